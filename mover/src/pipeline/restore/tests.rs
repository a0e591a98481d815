mod damage;
mod faults;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::device::faulty::{Fault as DeviceFault, FaultyQueue};
use crate::device::queue::IoQueue;
use crate::pipeline::progress::Progress;
use crate::pipeline::testing::{Bed, CHUNK, Layout, SEGMENT, flip, image};
use crate::repository::format::{Class, Compression, ContainerBuilder};
use crate::repository::ids::{SegmentId, SessionKey, name};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::load;
use crate::repository::store::faulty::{Fault, FaultyStore, Operation, Rule};

fn request(key: &SessionKey, target: &Path) -> RestoreRequest {
    RestoreRequest {
        point: key.point().to_string(),
        target: TargetSpec::Path(target.to_owned()),
        force: false,
        delta: false,
        range: None,
        salvage: false,
        engine: EngineChoice::Auto,
        forgotten: false,
    }
}

fn assert_same(path: &Path, expected: &[u8]) {
    let found = fs::read(path).unwrap();
    assert_eq!(found.len(), expected.len());
    let differing = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        differing,
        None,
        "first differing byte of {}",
        path.display()
    );
}

fn sum(report: &RestoreReport) -> u64 {
    report.written_bytes + report.zero_bytes + report.skipped_bytes
}

/// To a stream that keeps the bytes.
fn to_vec(
    bed: &Bed,
    key: &SessionKey,
    range: Option<(u64, u64)>,
    salvage: bool,
) -> Result<(Vec<u8>, RestoreReport)> {
    let context = bed.context();
    let point = load(&bed.repository, key).unwrap().unwrap();
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, range)?;
    let request = RestoreRequest {
        target: TargetSpec::Stdout,
        range,
        salvage,
        ..request(key, Path::new("-"))
    };
    let losses = Losses::new(salvage, point.id().to_string(), geometry.clone());
    let job = Job::new(&context, geometry, losses);
    let mut bytes = Vec::new();
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let report = restore.to_stream(job, &mut bytes)?;
    Ok((bytes, report))
}

#[test]
fn restores_bit_for_bit_into_a_sparse_file() {
    let bed = Bed::new();
    for (seed, layout) in [
        (1, Layout::default()),
        (
            2,
            Layout {
                spread: 5,
                compression: Compression::None,
            },
        ),
        (
            3,
            Layout {
                spread: 3,
                compression: Compression::Zstd(3),
            },
        ),
    ] {
        let image = image(700, 777, seed);
        let key = bed.point("disk", &image, layout);
        let target = bed.path(&format!("target-{seed}"));
        let context = bed.context();
        let report = run(&context, &request(&key, &target)).unwrap();
        assert_same(&target, &image);
        assert_eq!(report.size_bytes, image.len() as u64);
        assert_eq!(sum(&report), report.size_bytes);
        assert_eq!(report.skipped_bytes, 0);
        assert!(report.zero_bytes > 0 && report.lost.is_empty());
        assert_eq!(Progress::read_of(&context.progress.done), report.size_bytes);
        let blocks = fs::metadata(&target).unwrap().blocks() * 512;
        assert!(
            blocks <= report.written_bytes + (1 << 20),
            "{blocks} bytes allocated"
        );
        assert!(!bed.path(&format!("target-{seed}.partial")).exists());
    }
}

#[test]
fn sizes_at_the_edges() {
    let bed = Bed::new();
    for (at, size) in [
        0,
        1,
        511,
        4096,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        256 * CHUNK,
        257 * CHUNK + 3,
    ]
    .into_iter()
    .enumerate()
    {
        let mut image = image(size / CHUNK, size % CHUNK, at as u64);
        if size > 0 {
            image[0] = 1;
            image[size - 1] = 2;
        }
        let key = bed.point(&format!("disk-{size}"), &image, Layout::default());
        let target = bed.path(&format!("target-{size}"));
        let report = run(&bed.context(), &request(&key, &target)).unwrap();
        assert_same(&target, &image);
        assert_eq!(sum(&report), size as u64);
        assert_eq!(
            to_vec(&bed, &key, None, false).unwrap().0,
            image,
            "size {size}"
        );
    }
}

#[test]
fn an_existing_file_loses_everything_it_held() {
    let bed = Bed::new();
    let image = image(300, 5000, 9);
    let key = bed.point("disk", &image, Layout::default());
    let target = bed.path("target");
    fs::write(&target, vec![0xff; image.len() + 100_000]).unwrap();
    let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "without --force");
    let forced = RestoreRequest {
        force: true,
        ..request(&key, &target)
    };
    let report = run(&bed.context(), &forced).unwrap();
    assert_same(&target, &image);
    assert_eq!(sum(&report), report.size_bytes);
}

#[test]
fn delta_writes_only_what_differs() {
    let bed = Bed::new();
    let image = image(400, 1234, 4);
    let key = bed.point("disk", &image, Layout::default());
    let target = bed.path("target");
    fs::write(&target, &image).unwrap();
    let delta = RestoreRequest {
        delta: true,
        ..request(&key, &target)
    };
    let report = run(&bed.context(), &delta).unwrap();
    assert_eq!(
        (report.skipped_bytes, report.written_bytes),
        (image.len() as u64, 0)
    );

    let data = image
        .chunks(CHUNK)
        .position(|chunk| chunk.iter().any(|byte| *byte != 0))
        .unwrap();
    let zero = image
        .chunks(CHUNK)
        .position(|chunk| chunk.iter().all(|byte| *byte == 0))
        .unwrap();
    for changed in [
        vec![data],
        vec![zero],
        vec![0],
        vec![400],
        vec![data, zero, 0, 400, 17, 18, 255, 256],
    ] {
        let mut dirty = image.clone();
        let mut chunks = changed.clone();
        chunks.sort_unstable();
        chunks.dedup();
        for chunk in &chunks {
            dirty[chunk * CHUNK + 7] ^= 0x55;
        }
        fs::write(&target, &dirty).unwrap();
        let context = bed.context();
        let report = run(&context, &delta).unwrap();
        assert_same(&target, &image);
        let differing: usize = chunks
            .iter()
            .map(|chunk| if *chunk == 400 { 1234 } else { CHUNK })
            .sum();
        assert_eq!(
            report.skipped_bytes,
            (image.len() - differing) as u64,
            "{changed:?}"
        );
        assert_eq!(sum(&report), report.size_bytes);
    }
}

#[test]
fn delta_into_nothing_is_a_fresh_restore() {
    let bed = Bed::new();
    let image = image(40, 0, 4);
    let key = bed.point("disk", &image, Layout::default());
    let target = bed.path("target");
    let report = run(
        &bed.context(),
        &RestoreRequest {
            delta: true,
            ..request(&key, &target)
        },
    )
    .unwrap();
    assert_same(&target, &image);
    assert_eq!(report.skipped_bytes, 0);
}

#[test]
fn ranges_hold_just_their_bytes() {
    let bed = Bed::new();
    let image = image(600, 999, 11);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 4,
            ..Layout::default()
        },
    );
    let chunk = CHUNK as u64;
    let size = image.len() as u64;
    let ranges = [
        (0, 1),
        (0, size),
        (chunk * 3, chunk * 5 + 17),
        (chunk * 300, size - chunk * 300),
        (1, size - 1),
        (chunk * 2 + 4096, chunk * 40),
        (chunk * 7 + 513, 3),
        (size - 1, 1),
        (chunk * 255 + 100, chunk * 3),
    ];
    for (at, range) in ranges.into_iter().enumerate() {
        let (from, to) = (
            usize::try_from(range.0).unwrap(),
            usize::try_from(range.0 + range.1).unwrap(),
        );
        let target = bed.path(&format!("range-{at}"));
        let ranged = RestoreRequest {
            range: Some(range),
            ..request(&key, &target)
        };
        let report = run(&bed.context(), &ranged).unwrap();
        assert_same(&target, &image[from..to]);
        assert_eq!(
            (sum(&report), report.size_bytes),
            (range.1, range.1),
            "{range:?}"
        );
        assert_eq!(
            to_vec(&bed, &key, Some(range), false).unwrap().0,
            &image[from..to],
            "{range:?}"
        );
        // Again over something else.
        fs::write(&target, vec![0xff; to - from]).unwrap();
        run(
            &bed.context(),
            &RestoreRequest {
                force: true,
                ..ranged
            },
        )
        .unwrap();
        assert_same(&target, &image[from..to]);
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let bed = Bed::new();
    let image = image(3, 0, 12);
    let size = image.len() as u64;
    let key = bed.point("disk", &image, Layout::default());
    let outside = RestoreRequest {
        range: Some((size, 1)),
        ..request(&key, &bed.path("x"))
    };
    assert_eq!(
        run(&bed.context(), &outside).unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
    let odd = RestoreRequest {
        range: Some((1, 5)),
        delta: true,
        ..request(&key, &bed.path("x"))
    };
    assert_eq!(
        run(&bed.context(), &odd).unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
}

#[test]
fn a_stream_gets_everything_in_order() {
    let bed = Bed::new();
    let image = image(1500, 100, 21);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 7,
            ..Layout::default()
        },
    );
    let (bytes, report) = to_vec(&bed, &key, None, false).unwrap();
    assert!(bytes == image);
    assert_eq!(sum(&report), report.size_bytes);
}

#[test]
fn requests_stay_few() {
    let bed = Bed::new();
    let image: Vec<u8> = image(2000, 0, 93);
    let key = bed.point("disk", &image, Layout::default());
    let segments = bed.objects("seg/").len() as u64;
    let before = bed.repository.store.counts().get;
    run(&bed.context(), &request(&key, &bed.path("target"))).unwrap();
    let gets = bed.repository.store.counts().get - before;
    // One for each full segment; manifest, map and the like are a handful.
    assert!(gets <= segments + 12, "{gets} GETs for {segments} segments");
}

#[test]
fn the_repository_is_no_target() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(3, 0, 97), Layout::default());
    let error = run(&bed.context(), &request(&key, &bed.object("target"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

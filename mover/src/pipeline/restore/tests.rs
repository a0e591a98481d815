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
fn a_closed_pipe_is_an_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bed = Bed::new();
    let key = bed.point("disk", &image(1500, 100, 22), Layout::default());
    let (context, point) = (bed.context(), load(&bed.repository, &key).unwrap().unwrap());
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(&key, Path::new("-"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let error = restore
        .to_stream(Job::new(&context, geometry, losses), Closed)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

/// Chunks whose body is in the object, by a map walk.
fn chunks_in(bed: &Bed, key: &SessionKey, object: &str) -> Vec<(u64, u16)> {
    let point = load(&bed.repository, key).unwrap().unwrap();
    let mut cursor = crate::repository::map::MapCursor::new(&bed.repository, &point.manifest.root);
    let (mut from, mut chunks) = (0, Vec::new());
    while let Some((index, leaf)) = cursor.next(from).unwrap() {
        for (place, _, location) in leaf.leaf.data() {
            if name::segment(location.segment, 0) == object {
                chunks.push((index * 256 + place as u64, location.ordinal));
            }
        }
        from = index + 1;
    }
    chunks
}

/// The image with zeros where the report lost something; every lost range must lie in `allowed` chunks.
fn without_lost(image: &[u8], report: &RestoreReport, allowed: &[u64]) -> Vec<u8> {
    let mut expected = image.to_vec();
    for lost in &report.lost {
        let from = usize::try_from(lost.offset).unwrap();
        let to = from + usize::try_from(lost.length).unwrap();
        expected[from..to].fill(0);
        for chunk in from / CHUNK..to.div_ceil(CHUNK) {
            assert!(
                allowed.contains(&(chunk as u64)),
                "chunk {chunk} is not in the damaged object"
            );
        }
    }
    expected
}

#[test]
fn a_flipped_body_fails_or_is_salvaged() {
    let bed = Bed::new();
    let image = image(500, 321, 31);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 3,
            ..Layout::default()
        },
    );
    let object = bed.objects("seg/")[2].clone();
    let len = fs::metadata(bed.object(&object)).unwrap().len();
    flip(&bed.object(&object), len - 100);
    let target = bed.path("target");
    let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(object.as_str()));
    assert!(
        error.to_string().contains(&key.point().to_string()),
        "{error}"
    );
    assert!(!target.exists(), "a broken restore does not look complete");

    let salvage = RestoreRequest {
        salvage: true,
        delta: true,
        ..request(&key, &target)
    };
    let report = run(&bed.context(), &salvage).unwrap();
    let chunks: Vec<u64> = chunks_in(&bed, &key, &object)
        .into_iter()
        .map(|(chunk, _)| chunk)
        .collect();
    assert!(
        !report.lost.is_empty()
            && report.lost.iter().map(|lost| lost.length).sum::<u64>() < 10 * CHUNK as u64
    );
    assert_same(&target, &without_lost(&image, &report, &chunks));
    assert_eq!(sum(&report), report.size_bytes);
    assert!(report.lost[0].why.contains(&object), "{:?}", report.lost);
    let (bytes, streamed) = to_vec(&bed, &key, None, true).unwrap();
    assert_eq!(streamed.lost.len(), report.lost.len());
    assert!(bytes == without_lost(&image, &streamed, &chunks));
    assert_eq!(
        to_vec(&bed, &key, None, false).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

type Damage = fn(&Path);

#[test]
fn damaged_segments_of_each_kind_are_salvaged() {
    let kinds: [(&str, Damage); 4] = [
        ("head", |path| flip(path, 80)),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(300_000)
                .unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
    ];
    for (at, (kind, damage)) in kinds.into_iter().enumerate() {
        let bed = Bed::new();
        let image = image(300, 0, 40 + at as u64);
        let key = bed.point(
            "disk",
            &image,
            Layout {
                spread: 2,
                compression: Compression::None,
            },
        );
        let object = bed.objects("seg/")[1].clone();
        let chunks: Vec<u64> = chunks_in(&bed, &key, &object)
            .into_iter()
            .map(|(chunk, _)| chunk)
            .collect();
        damage(&bed.object(&object));
        let target = bed.path("target");
        let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind}: {error}");
        assert!(!target.exists(), "{kind}");
        fs::write(&target, vec![0xff; image.len()]).unwrap();
        let salvage = RestoreRequest {
            salvage: true,
            force: true,
            ..request(&key, &target)
        };
        let report = run(&bed.context(), &salvage).unwrap();
        assert!(!report.lost.is_empty(), "{kind}");
        assert_same(&target, &without_lost(&image, &report, &chunks));
        assert_eq!(sum(&report), report.size_bytes, "{kind}");
    }
}

#[test]
fn swapped_segments_are_noticed() {
    let bed = Bed::new();
    let image = image(300, 0, 51);
    let key = bed.point("disk", &image, Layout::default());
    let objects = bed.objects("seg/");
    let (a, b) = (bed.object(&objects[0]), bed.object(&objects[1]));
    let (first, second) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    fs::write(&a, second).unwrap();
    fs::write(&b, first).unwrap();
    let error = run(&bed.context(), &request(&key, &bed.path("target"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let salvage = RestoreRequest {
        salvage: true,
        ..request(&key, &bed.path("target2"))
    };
    assert!(!run(&bed.context(), &salvage).unwrap().lost.is_empty());
}

#[test]
fn a_damaged_map_loses_what_it_hides() {
    let bed = Bed::new();
    let image = image(1000, 0, 61);
    let key = bed.point("disk", &image, Layout::default());
    let object = bed.objects("map/")[0].clone();
    let clean = fs::read(bed.object(&object)).unwrap();
    let target = bed.path("target");
    // Bodies are in front of the padding-free end: one of the first is a leaf.
    let at = (4096..clean.len()).find(|at| clean[*at] != 0).unwrap() as u64 + 20;
    flip(&bed.object(&object), at);
    let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(object.as_str()));
    let report = run(
        &bed.context(),
        &RestoreRequest {
            salvage: true,
            delta: true,
            ..request(&key, &target)
        },
    )
    .unwrap();
    let all: Vec<u64> = (0..1000).collect();
    assert!(!report.lost.is_empty());
    assert_same(&target, &without_lost(&image, &report, &all));
    assert_eq!(sum(&report), report.size_bytes);
    fs::remove_file(bed.object(&object)).unwrap();
    let gone = bed.path("gone");
    let report = run(
        &bed.context(),
        &RestoreRequest {
            salvage: true,
            ..request(&key, &gone)
        },
    )
    .unwrap();
    assert_eq!(
        report.lost.iter().map(|lost| lost.length).sum::<u64>(),
        image.len() as u64
    );
    assert_same(&gone, &vec![0; image.len()]);
}

#[test]
fn a_store_that_is_down_is_no_loss() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(300, 0, 71), Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    store.add(Rule::nth(
        Operation::Get,
        "seg/",
        3,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    let context = bed.context_over(store);
    let salvage = RestoreRequest {
        salvage: true,
        ..request(&key, &bed.path("target"))
    };
    let error = run(&context, &salvage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!bed.path("target").exists());
}

#[test]
fn a_read_only_store_gives_a_warning() {
    let bed = Bed::new();
    let image = image(30, 0, 72);
    let key = bed.point("disk", &image, Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    store.add(Rule::always(
        Operation::PutOnce,
        "open/",
        Fault::Fail(ErrorKind::AccessDenied),
    ));
    let report = run(
        &bed.context_over(store),
        &request(&key, &bed.path("target")),
    )
    .unwrap();
    assert_same(&bed.path("target"), &image);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
}

#[test]
fn a_broken_restore_has_no_first_chunk_and_delta_goes_on_from_there() {
    let bed = Bed::new();
    let image = image(600, 0, 73);
    let key = bed.point("disk", &image, Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    let last = bed.objects("seg/").pop().unwrap();
    store.add(Rule::always(
        Operation::Get,
        &last,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    let target = bed.path("target");
    fs::write(&target, &image).unwrap();
    let error = run(
        &bed.context_over(store),
        &RestoreRequest {
            force: true,
            ..request(&key, &target)
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        fs::read(&target).unwrap()[..CHUNK]
            .iter()
            .all(|byte| *byte == 0),
        "the first chunk is gone"
    );
    let report = run(
        &bed.context(),
        &RestoreRequest {
            delta: true,
            ..request(&key, &target)
        },
    )
    .unwrap();
    assert_same(&target, &image);
    assert!(report.skipped_bytes > 0, "the rest is taken over");
}

#[test]
fn a_stop_ends_every_way_of_restoring() {
    let bed = Bed::new();
    let image = image(300, 0, 74);
    let key = bed.point("disk", &image, Layout::default());
    let target = bed.path("target");
    fs::write(&target, &image).unwrap();
    let base = RestoreRequest {
        force: true,
        ..request(&key, &target)
    };
    let delta = RestoreRequest {
        delta: true,
        ..base.clone()
    };
    let odd = RestoreRequest {
        range: Some((5, 100)),
        ..base.clone()
    };
    for request in [base, delta, odd] {
        let context = bed.context();
        context.stop.stop();
        assert_eq!(
            run(&context, &request).unwrap_err().kind(),
            ErrorKind::Interrupted
        );
    }
}

/// A target whose queue fails, or whose medium forgets.
struct FaultyOutput<'a> {
    target: &'a Target,
    faults: Vec<(u64, DeviceFault)>,
    forgets: Option<u64>,
}

impl Output for FaultyOutput<'_> {
    fn is_fresh(&self) -> bool {
        self.target.is_fresh()
    }
    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let inner = self.target.queue(options)?;
        Ok(Box::new(FaultyQueue::new(
            inner,
            "target".to_owned(),
            self.faults.clone(),
        )))
    }
    fn protect(&self) -> Result<()> {
        self.target.protect()
    }
    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        self.target.settle(first_chunk)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.target.zero(offset, len)
    }
    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = self.target.read_back(offset, len)?;
        if let Some(at) = self.forgets
            && (offset..offset + len as u64).contains(&at)
        {
            bytes[usize::try_from(at - offset).unwrap()] ^= 1;
        }
        Ok(bytes)
    }
}

fn to_faulty(
    bed: &Bed,
    key: &SessionKey,
    faults: Vec<(u64, DeviceFault)>,
    forgets: Option<u64>,
) -> Error {
    let (context, point) = (bed.context(), load(&bed.repository, key).unwrap().unwrap());
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(key, &bed.path("target"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let job = Job::new(&context, geometry, losses);
    let target = Target::open(&bed.path("target"), &restore.target_options(&job)).unwrap();
    let output = FaultyOutput {
        target: &target,
        faults,
        forgets,
    };
    restore.to_output(job, &output, "target").unwrap_err()
}

#[test]
fn a_target_that_fails_ends_the_restore() {
    let bed = Bed::new();
    let mut image = image(600, 0, 81);
    image[300 * CHUNK..302 * CHUNK].fill(7);
    let key = bed.point("disk", &image, Layout::default());
    let error = to_faulty(
        &bed,
        &key,
        vec![(300 * CHUNK as u64 + 5, DeviceFault::Error)],
        None,
    );
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!bed.path("target").exists());
}

#[test]
fn a_medium_that_forgets_is_caught() {
    let bed = Bed::new();
    let mut image = image(600, 0, 82);
    image[0] = 1;
    let key = bed.point("disk", &image, Layout::default());
    for at in [3, 16 * CHUNK as u64 - 9, 599 * CHUNK as u64] {
        let error = to_faulty(&bed, &key, Vec::new(), Some(at));
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("read back"), "{error}");
        fs::remove_file(bed.path("target.partial")).unwrap();
    }
}

#[test]
fn a_map_of_another_point_is_refused() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(40, 0, 91), Layout::default());
    let mut point = load(&bed.repository, &key).unwrap().unwrap();
    point.manifest.content_hash = [9; 32];
    let context = bed.context();
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(&key, Path::new("-"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let error = restore
        .to_stream(Job::new(&context, geometry, losses), Vec::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("content hash"), "{error}");
}

#[test]
fn a_lost_manifest_is_read_through_its_copy() {
    let bed = Bed::new();
    let image = image(40, 0, 92);
    let key = bed.point("disk", &image, Layout::default());
    fs::remove_file(bed.object(&name::slot(&key))).unwrap();
    let report = run(&bed.context(), &request(&key, &bed.path("target"))).unwrap();
    assert_same(&bed.path("target"), &image);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("copy")),
        "{:?}",
        report.warnings
    );
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
fn a_flipped_bit_is_never_restored_as_good() {
    let bed = Bed::new();
    let image = image(40, 77, 94);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 2,
            ..Layout::default()
        },
    );
    let (mut failed, mut same) = (0, 0);
    for object in bed.objects("") {
        let path = bed.object(&object);
        let len = fs::metadata(&path).unwrap().len();
        for part in 0..25 {
            let at = len * part / 25;
            flip(&path, at);
            // Damage that hurts nothing (padding, a second copy) may pass; other bytes may not.
            match to_vec(&bed, &key, None, false) {
                Ok((bytes, _)) => {
                    assert!(bytes == image, "{object} at {at}");
                    same += 1;
                }
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Corrupt,
                        "{object} at {at}: {error}"
                    );
                    failed += 1;
                }
            }
            flip(&path, at);
        }
    }
    assert!(
        failed > 50 && same > 0,
        "{failed} restores failed, {same} did not"
    );
}

/// Writes the next generation of a segment without the bodies in `dead` and removes the old one.
fn compact(bed: &Bed, id: SegmentId, dead: &[u16]) {
    let reader = SegmentReader::new(&bed.repository);
    let old = reader.directory(Class::Data, id).unwrap();
    let mut builder = ContainerBuilder::compaction(Arc::clone(&bed.repository.keys), &old, SEGMENT);
    for entry in old
        .entries()
        .iter()
        .filter(|entry| !dead.contains(&entry.ordinal))
    {
        let end = entry.offset + u64::from(entry.stored_len);
        let sealed = reader.read(&old, entry.offset..end).unwrap();
        builder.copy_body(entry, &sealed).unwrap();
    }
    let next = name::segment(id, 1);
    bed.repository
        .store
        .put(&next, builder.finish(&next).unwrap())
        .unwrap();
    bed.repository.store.delete(old.object()).unwrap();
}

#[test]
fn compacted_segments_are_found() {
    let bed = Bed::new();
    let image = image(300, 0, 95);
    let key = bed.point("disk", &image, Layout::default());
    for number in [0, 2] {
        compact(
            &bed,
            SegmentId {
                session: key.session,
                number,
            },
            &[],
        );
    }
    assert_eq!(to_vec(&bed, &key, None, false).unwrap().0, image);
    // A body that was dropped although the point needs it is a loss, not somebody else's chunk.
    compact(
        &bed,
        SegmentId {
            session: key.session,
            number: 1,
        },
        &[3],
    );
    assert_eq!(
        to_vec(&bed, &key, None, false).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let report = to_vec(&bed, &key, None, true).unwrap().1;
    assert_eq!(report.lost[0].length % CHUNK as u64, 0);
}

#[test]
fn a_segment_that_moves_while_it_is_read_is_found_again() {
    let bed = Bed::new();
    let image = image(600, 0, 96);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 3,
            ..Layout::default()
        },
    );
    // Ranges far from the start of a segment, so that directory and bodies are different requests.
    let range = Some((CHUNK as u64 * 101, CHUNK as u64 * 300));
    for call in 0..8 {
        let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
        store.add(Rule::nth(
            Operation::Get,
            "seg/",
            call,
            Fault::Fail(ErrorKind::NotFound),
        ));
        let target = bed.path(&format!("target-{call}"));
        run(
            &bed.context_over(store),
            &RestoreRequest {
                range,
                ..request(&key, &target)
            },
        )
        .unwrap();
        assert_same(&target, &image[101 * CHUNK..401 * CHUNK]);
    }
}

#[test]
fn the_repository_is_no_target() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(3, 0, 97), Layout::default());
    let error = run(&bed.context(), &request(&key, &bed.object("target"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

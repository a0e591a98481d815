use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::pipeline::testing::{Bed, CHUNK, Layout, flip, image};
use crate::repository::ids::name;

fn check(bed: &Bed, level: VerifyLevel) -> VerifyReport {
    run(
        &bed.context(),
        &VerifyRequest {
            points: Vec::new(),
            level,
            sample_percent: 10.0,
        },
    )
    .unwrap()
}

const LEVELS: [VerifyLevel; 3] = [
    VerifyLevel::Metadata,
    VerifyLevel::Sample,
    VerifyLevel::Data,
];

#[test]
fn an_intact_repository_has_no_findings() {
    let bed = Bed::new();
    let first = image(700, 100, 1);
    let mut second = first.clone();
    second[5 * CHUNK..6 * CHUNK].fill(3);
    bed.point("a", &first, Layout::default());
    bed.point(
        "a",
        &second,
        Layout {
            spread: 4,
            ..Layout::default()
        },
    );
    bed.point("b", &vec![0; 10 * CHUNK], Layout::default());
    for level in LEVELS {
        let report = check(&bed, level);
        assert_eq!(report.errors, []);
        assert_eq!(report.points, 3);
        assert_eq!(report.level, level.as_str());
        assert_eq!(report.chunks > 0, level != VerifyLevel::Metadata);
    }
    assert!(check(&bed, VerifyLevel::Data).chunks > check(&bed, VerifyLevel::Sample).chunks);
}

fn damage_and_find(bed: &Bed, key: &SessionKey, object: &str, kind: &str) {
    let report = check(bed, VerifyLevel::Data);
    let id = key.point().to_string();
    let found = report
        .errors
        .iter()
        .find(|finding| finding.object == object);
    let found = found.unwrap_or_else(|| panic!("{object} {kind}: {:?}", report.errors));
    let is_root = object.starts_with("config") || object.starts_with("keys/");
    assert!(
        is_root || found.points.contains(&id),
        "{object} {kind}: {found:?}"
    );
}

#[test]
fn every_kind_of_object_is_missed_when_removed_cut_or_flipped() {
    let bed = Bed::new();
    let image = image(300, 50, 2);
    let key = bed.point("disk", &image, Layout::default());
    for prefix in [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "map/", "seg/",
    ] {
        for object in bed.objects(prefix) {
            let path = bed.object(&object);
            let clean = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            damage_and_find(&bed, &key, &object, "missing");
            // The store takes folders away that are empty.
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            for len in [0, 40, clean.len() / 2, clean.len() - 1] {
                fs::write(&path, &clean[..len]).unwrap();
                damage_and_find(&bed, &key, &object, "cut");
            }
            fs::write(&path, &clean).unwrap();
        }
    }
    assert_eq!(check(&bed, VerifyLevel::Data).errors, []);
}

#[test]
fn a_flip_anywhere_is_found() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(20, 50, 3), Layout::default());
    for object in bed.objects("") {
        let path = bed.object(&object);
        let len = fs::metadata(&path).unwrap().len();
        let step = (len / 23).max(1);
        for at in (0..len)
            .step_by(usize::try_from(step).unwrap())
            .chain([len - 1])
        {
            flip(&path, at);
            let report = check(&bed, VerifyLevel::Data);
            assert!(
                report.errors.iter().any(|finding| finding.object == object),
                "{object} at {at} of {len}"
            );
            flip(&path, at);
        }
    }
    let _ = key;
    assert_eq!(check(&bed, VerifyLevel::Data).errors, []);
}

#[test]
fn a_bad_chunk_names_every_point_and_range_it_hurts() {
    let bed = Bed::new();
    // Chunk 3 and chunk 9 are the same body; another volume does not use it.
    let mut image = image(12, 0, 4);
    for (chunk, bytes) in image.chunks_mut(CHUNK).enumerate() {
        let value = u8::try_from(chunk).unwrap() + 1;
        bytes.fill(if chunk == 9 { 4 } else { value });
    }
    let key = bed.point(
        "disk",
        &image,
        Layout {
            compression: crate::repository::format::Compression::None,
            spread: 1,
        },
    );
    bed.point("other", &image, Layout::default());
    let object = bed.objects(&format!("seg/{}", key.session))[0].clone();
    let path = bed.object(&object);
    let reader = SegmentReader::new(&bed.repository);
    let id = SegmentId {
        session: key.session,
        number: 0,
    };
    let directory = reader
        .directory(crate::repository::format::Class::Data, id)
        .unwrap();
    flip(&path, directory.entry(3).unwrap().offset + 5);
    assert_eq!(
        check(&bed, VerifyLevel::Metadata).errors,
        [],
        "chunks are not looked at"
    );
    let report = check(&bed, VerifyLevel::Data);
    let chunk = CHUNK as u64;
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
    let finding = &report.errors[0];
    assert_eq!(
        (finding.kind.as_str(), finding.object.as_str()),
        ("damaged", object.as_str())
    );
    assert_eq!(finding.volume.as_deref(), Some("disk"));
    assert_eq!(finding.points, [key.point().to_string()]);
    assert_eq!(finding.ranges, [(3 * chunk, chunk), (9 * chunk, chunk)]);
}

#[test]
fn bytes_behind_the_end_are_found() {
    let bed = Bed::new();
    bed.point("disk", &image(20, 50, 5), Layout::default());
    let object = bed.objects("seg/")[0].clone();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(bed.object(&object))
        .unwrap();
    let len = file.metadata().unwrap().len();
    file.write_all_at(b"x", len).unwrap();
    let report = check(&bed, VerifyLevel::Metadata);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(report.errors[0].object, object);
}

#[test]
fn only_the_named_points_are_verified() {
    let bed = Bed::new();
    let good = bed.point("good", &image(20, 0, 6), Layout::default());
    let bad = bed.point("bad", &image(20, 0, 7), Layout::default());
    fs::remove_file(bed.object(&bed.objects(&format!("seg/{}", bad.session))[0])).unwrap();
    let ask = |key: &SessionKey| {
        let points = vec![key.point().to_string()];
        run(
            &bed.context(),
            &VerifyRequest {
                points,
                level: VerifyLevel::Metadata,
                sample_percent: 10.0,
            },
        )
        .unwrap()
    };
    assert_eq!(ask(&good).errors, []);
    assert_eq!(ask(&bad).errors[0].kind, "missing");
    assert!("everything".parse::<VerifyLevel>().is_err());
}

#[test]
fn a_store_that_is_down_is_an_error_and_no_finding() {
    use crate::repository::store::faulty::{Fault as StoreFault, FaultyStore, Operation, Rule};
    let bed = Bed::new();
    bed.point("disk", &image(300, 0, 8), Layout::default());
    for prefix in ["seg/", "map/", "live/"] {
        let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
        store.add(Rule::always(
            Operation::Get,
            prefix,
            StoreFault::Fail(ErrorKind::Unavailable),
        ));
        let request = VerifyRequest {
            points: Vec::new(),
            level: VerifyLevel::Sample,
            sample_percent: 10.0,
        };
        let error = run(&bed.context_over(store), &request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{prefix}");
    }
}

fn check_point(bed: &Bed, key: &SessionKey, level: VerifyLevel) -> VerifyReport {
    let request = VerifyRequest {
        points: vec![key.point().to_string()],
        level,
        sample_percent: 100.0,
    };
    run(&bed.context(), &request).unwrap()
}

#[test]
fn what_is_bad_is_marked_once_and_only_that() {
    let bed = Bed::new();
    let layout = Layout {
        compression: crate::repository::format::Compression::None,
        spread: 1,
    };
    let key = bed.point("disk", &image(40, 0, 12), layout);
    let id = SegmentId {
        session: key.session,
        number: 0,
    };
    let reader = SegmentReader::new(&bed.repository);
    let directory = reader
        .directory(crate::repository::format::Class::Data, id)
        .unwrap();
    for ordinal in [2, 3, 7] {
        let offset = directory.entry(ordinal).unwrap().offset;
        flip(&bed.object(&name::segment(id, 0)), offset + 1);
    }
    fs::remove_file(bed.object(&name::segment(SegmentId { number: 1, ..id }, 0))).unwrap();
    for _ in 0..2 {
        assert_eq!(check(&bed, VerifyLevel::Data).errors.len(), 2);
        let expected = [
            name::quarantine(id, 2, 3),
            name::quarantine(id, 7, 7),
            name::quarantine(SegmentId { number: 1, ..id }, 0, 4095),
        ];
        assert_eq!(bed.objects(name::QUARANTINE), expected);
    }
}

#[test]
fn samples_have_read_everything_after_as_many_runs_as_shares() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(200, 0, 13), Layout::default());
    let segments = bed.objects("seg/").len();
    assert!(segments > 4, "{segments}");
    let last = SegmentId {
        session: key.session,
        number: u32::try_from(segments).unwrap() - 1,
    };
    let reader = SegmentReader::new(&bed.repository);
    let directory = reader
        .directory(crate::repository::format::Class::Data, last)
        .unwrap();
    let entry = directory.entries().last().unwrap();
    flip(&bed.object(&name::segment(last, 0)), entry.offset);
    let request = VerifyRequest {
        points: Vec::new(),
        level: VerifyLevel::Sample,
        sample_percent: 25.0,
    };
    let runs: Vec<_> = (0..4)
        .map(|_| run(&bed.context(), &request).unwrap())
        .collect();
    let found = runs.iter().filter(|report| !report.errors.is_empty());
    assert!(found.count() >= 1, "the bad body was not read in four runs");
    assert!(runs.iter().all(|report| report.chunks > 0));
    let data = check(&bed, VerifyLevel::Data).chunks;
    let sum: u64 = runs.iter().map(|report| report.chunks).sum();
    assert!(sum >= data, "{sum} of {data}");
    assert!(runs.iter().all(|report| report.chunks < data));
    assert_eq!(bed.objects(name::CHECKED).len(), 1);
}

#[test]
fn a_store_that_takes_no_notes_is_verified_all_the_same() {
    use crate::repository::store::faulty::{Fault as StoreFault, FaultyStore, Operation, Rule};
    let bed = Bed::new();
    bed.point("disk", &image(60, 0, 14), Layout::default());
    let object = bed.objects("seg/").remove(0);
    fs::remove_file(bed.object(&object)).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    for operation in [Operation::Put, Operation::Create] {
        for prefix in [name::CHECKED, name::QUARANTINE] {
            let refused = StoreFault::Fail(ErrorKind::AccessDenied);
            store.add(Rule::always(operation, prefix, refused));
        }
    }
    let request = VerifyRequest {
        points: Vec::new(),
        level: VerifyLevel::Sample,
        sample_percent: 50.0,
    };
    let report = run(&bed.context_over(store), &request).unwrap();
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    assert_eq!(bed.objects(name::QUARANTINE), Vec::<String>::new());
}

#[test]
fn a_missing_map_segment_is_missing_and_says_what_to_do() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(300, 0, 15), Layout::default());
    let object = bed.objects("map/").remove(0);
    fs::remove_file(bed.object(&object)).unwrap();
    let report = check_point(&bed, &key, VerifyLevel::Metadata);
    let finding = report
        .errors
        .iter()
        .find(|found| found.object == object)
        .unwrap();
    assert_eq!(finding.kind, "missing");
    assert_eq!(finding.volume.as_deref(), Some("disk"));
    assert!(
        finding.message.contains("snaphaul repair"),
        "{}",
        finding.message
    );
}

#[test]
fn a_liveness_that_is_cut_or_swapped_says_so() {
    let bed = Bed::new();
    bed.point("disk", &image(300, 0, 16), Layout::default());
    bed.point("other", &image(200, 0, 17), Layout::default());
    let live = bed.objects("live/");
    let clean: Vec<_> = live
        .iter()
        .map(|object| fs::read(bed.object(object)).unwrap())
        .collect();
    let mut flipped = clean[0].clone();
    flipped[100] ^= 1;
    let cut = clean[0][..clean[0].len() - 3].to_vec();
    for (bytes, kind) in [
        (cut, "truncated"),
        (clean[1].clone(), "swapped"),
        (flipped, "damaged"),
    ] {
        fs::write(bed.object(&live[0]), bytes).unwrap();
        let report = check(&bed, VerifyLevel::Metadata);
        assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
        assert_eq!(
            (
                report.errors[0].object.as_str(),
                report.errors[0].kind.as_str()
            ),
            (live[0].as_str(), kind)
        );
    }
}

use std::fs;

use super::*;
use crate::pipeline::testing::{Bed, CHUNK, Layout, flip, image};
use crate::repository::format::Compression;
use crate::repository::ids::SessionKey;
use crate::repository::session::points::{PointStatus, list};
use crate::repository::session::resolve::resolve;

const PLAIN: Layout = Layout {
    spread: 1,
    compression: Compression::None,
};

fn repair(bed: &Bed, dry_run: bool) -> RepairReport {
    let request = RepairRequest {
        points: Vec::new(),
        dry_run,
    };
    run(&bed.context(), &request).unwrap()
}

fn verify_errors(bed: &Bed) -> Vec<VerifyFinding> {
    let request = VerifyRequest {
        points: Vec::new(),
        level: VerifyLevel::Data,
        sample_percent: 5.0,
    };
    verify::run(&bed.context(), &request).unwrap().errors
}

/// The volume's newest point restores to `image`, as its content hash has it.
fn assert_holds(bed: &Bed, volume: &str, image: &[u8]) {
    let text = format!("{volume}@latest");
    let report = crate::pipeline::restore::test(&bed.context(), &text).unwrap();
    assert_eq!(report.errors, []);
    let point = resolve(&bed.repository, &text).unwrap();
    let mut tree = crate::repository::map::ContentTree::new(&bed.repository.keys);
    for (chunk, bytes) in image.chunks(CHUNK).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            tree.chunk(chunk as u64, &bed.repository.keys.digest(bytes));
        }
    }
    let root = tree
        .finish(point.manifest.root.depth - 1)
        .unwrap_or([0; 16]);
    let chunk_size = u32::try_from(CHUNK).unwrap();
    let hash = bed
        .repository
        .keys
        .content_hash(image.len() as u64, chunk_size, root);
    assert_eq!(hash, point.manifest.content_hash);
}

fn everything(bed: &Bed) -> Vec<(String, Vec<u8>)> {
    let objects = bed.objects("").into_iter();
    objects
        .map(|object| (object.clone(), fs::read(bed.object(&object)).unwrap()))
        .collect()
}

/// What a dry run says comes true, a dry run changes nothing, and afterwards nothing is damaged.
fn repairs(bed: &Bed, object: &str, image: &[u8]) {
    let before = everything(bed);
    let dry = repair(bed, true);
    assert_eq!(everything(bed), before, "a dry run of {object}");
    let done = repair(bed, false);
    let names = |report: &RepairReport| -> Vec<String> {
        let repaired = report.repaired.iter();
        repaired.map(|repaired| repaired.object.clone()).collect()
    };
    assert_eq!(names(&dry), names(&done), "{object}");
    assert!(
        names(&done).contains(&object.to_owned()),
        "{object}: {done:?}"
    );
    assert_eq!(done.lost, [], "{object}");
    assert_eq!(verify_errors(bed), [], "{object}");
    assert_eq!(repair(bed, false).repaired, [], "{object}: nothing is left");
    assert_holds(bed, "disk", image);
}

#[test]
fn whatever_a_point_needs_beside_its_chunks_is_mended() {
    let image = image(700, 100, 21);
    for prefix in ["config", "keys/", "open/", "snap/", "copy/", "live/"] {
        for damage in 0..2 {
            let bed = Bed::new();
            bed.point("disk", &image, Layout::default());
            for object in bed.objects(prefix) {
                let path = bed.object(&object);
                match damage {
                    0 => fs::remove_file(&path).unwrap(),
                    _ => flip(&path, fs::metadata(&path).unwrap().len() - 5),
                }
                repairs(&bed, &object, &image);
            }
        }
    }
}

#[test]
fn a_point_that_is_committed_again_keeps_its_place_in_history() {
    let bed = Bed::new();
    let (old, new) = (image(40, 0, 22), image(40, 0, 23));
    let key = bed.point("disk", &old, PLAIN);
    bed.point("disk", &new, PLAIN);
    fs::remove_file(bed.object(&name::slot(&key))).unwrap();
    let report = repair(&bed, false);
    assert_eq!(report.repaired.len(), 1, "{report:?}");
    let id = report.repaired[0].new_point.clone().unwrap();
    assert_holds(&bed, "disk", &new);
    let points = list(&bed.repository, None).unwrap().points;
    let again = points
        .iter()
        .find(|point| point.id().to_string() == id)
        .unwrap();
    assert_eq!(again.status, PointStatus::Complete);
    assert_eq!(again.key.sequence, key.sequence);
    assert_eq!(again.manifest.pins, [key]);
    let replaced = points.iter().find(|point| point.key == key).unwrap();
    assert_eq!(replaced.status, PointStatus::Forgotten);
}

#[test]
fn a_lost_map_is_rebuilt_from_the_segments() {
    // Depth 1 and 2; distinct chunks, holes, and chunks that are there twice.
    for (chunks, seed) in [(200, 31), (256, 32), (700, 33)] {
        let bed = Bed::new();
        let mut image = image(chunks, 9, seed);
        for chunk in 0..chunks {
            let bytes = &mut image[chunk * CHUNK..(chunk + 1) * CHUNK];
            // A filled chunk is made one of its kind, but for two of a small map.
            if bytes.iter().any(|byte| *byte != 0) && (chunks > 256 || chunk % 90 != 7) {
                bytes[..8].copy_from_slice(&(chunk as u64 + 1).to_le_bytes());
            }
        }
        bed.point("disk", &image, Layout::default());
        let object = bed.objects("map/").remove(0);
        fs::remove_file(bed.object(&object)).unwrap();
        repairs(&bed, &object, &image);
    }
}

#[test]
fn what_is_not_proved_right_is_not_used() {
    let bed = Bed::new();
    // Equal chunks all over: which of the places are zero and which hold the body is not to be known in two levels.
    let mut image = vec![0; 700 * CHUNK];
    for chunk in (0..700).filter(|chunk| chunk % 3 != 1) {
        image[chunk * CHUNK..(chunk + 1) * CHUNK].fill(7);
    }
    let key = bed.point("disk", &image, PLAIN);
    let object = bed.objects("map/").remove(0);
    fs::remove_file(bed.object(&object)).unwrap();
    let report = repair(&bed, false);
    assert_eq!(report.repaired, []);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    let lost = &report.lost[0];
    assert_eq!(lost.object, object);
    assert_eq!(lost.volume.as_deref(), Some("disk"));
    assert_eq!(lost.points, [key.point().to_string()]);
    assert_eq!(lost.ranges, [(0, 700 * CHUNK as u64)]);
    assert!(lost.message.contains("--salvage"), "{}", lost.message);
}

#[test]
fn a_lost_node_is_rebuilt_above_the_leaves_that_are_left() {
    use crate::repository::map::{DamagedPage, Liveness};
    let bed = Bed::new();
    // Equal chunks, so that only the old leaves tell what lies where.
    let mut image = vec![0; 700 * CHUNK];
    for chunk in (0..700).filter(|chunk| chunk % 3 != 1) {
        image[chunk * CHUNK..(chunk + 1) * CHUNK].fill(7);
    }
    let key = bed.point("disk", &image, PLAIN);
    let point = resolve(&bed.repository, "disk@latest").unwrap();
    let context = bed.context();
    let reader = Arc::new(SegmentReader::new(&context.repository));
    let object = bed.repository.store.get(&name::live(&key)).unwrap();
    let keys = &bed.repository.keys;
    let liveness = Liveness::open(keys, &key, &point.manifest.liveness, &object).unwrap();
    let lost = DamagedPage::of_root(&point.manifest.root);
    let rebuilder = rebuild::Rebuilder {
        context: &context,
        reader: &reader,
        point: &point,
        liveness: &liveness,
    };
    let leaves = rebuilder.page(&lost).unwrap().unwrap();
    assert_eq!(leaves.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn lost_chunks_are_told_and_nothing_is_pretended() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(60, 0, 24), PLAIN);
    let object = bed.objects("seg/").remove(0);
    fs::remove_file(bed.object(&object)).unwrap();
    let report = repair(&bed, false);
    assert_eq!(report.repaired, []);
    assert_eq!(report.lost.len(), 1);
    assert_eq!(report.lost[0].object, object);
    assert!(!report.lost[0].ranges.is_empty());
    assert_eq!(report.lost[0].points, [key.point().to_string()]);
    assert_eq!(bed.objects(name::QUARANTINE).len(), 1);
}

#[test]
fn a_forgotten_point_is_left_alone() {
    let bed = Bed::new();
    let key: SessionKey = bed.point("disk", &image(20, 0, 25), PLAIN);
    fs::remove_file(bed.object(&name::open(&key))).unwrap();
    let tomb = bytes::Bytes::from_static(b"forgotten by a test, 16 bytes and more");
    bed.repository.store.put(&name::tomb(&key), tomb).unwrap();
    let report = repair(&bed, false);
    assert_eq!((report.repaired.len(), report.lost.len()), (0, 0));
}

#[test]
fn both_copies_lost_is_lost() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(20, 0, 26), PLAIN);
    flip(&bed.object(&name::slot(&key)), 100);
    flip(&bed.object(&name::copy(&key)), 100);
    let report = repair(&bed, false);
    assert_eq!(report.repaired, []);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert_eq!(report.lost[0].object, name::slot(&key));
}

#[test]
fn a_point_that_cannot_be_helped_does_not_stop_the_others() {
    let bed = Bed::new();
    let bad = bed.point("bad", &image(20, 0, 27), PLAIN);
    let good = bed.point("good", &image(20, 0, 28), PLAIN);
    let mut manifest = resolve(&bed.repository, "bad@latest").unwrap().manifest;
    manifest.content_hash[0] ^= 1;
    let object = manifest.seal(&bed.repository.keys).unwrap();
    for control in [name::slot(&bad), name::copy(&bad)] {
        fs::write(bed.object(&control), &object).unwrap();
    }
    fs::remove_file(bed.object(&name::copy(&good))).unwrap();
    let report = repair(&bed, false);
    assert_eq!(report.repaired.len(), 1, "{report:?}");
    assert_eq!(report.repaired[0].object, name::copy(&good));
    assert_eq!(report.lost.len(), 1, "{report:?}");
    assert_eq!(report.lost[0].object, name::slot(&bad));
    assert!(report.lost[0].message.contains("--salvage"), "{report:?}");
}

#[test]
fn a_point_that_became_unreadable_does_not_end_the_repair_of_the_others() {
    let bed = Bed::new();
    let image = image(40, 0, 31);
    let keys = [1, 2].map(|_| bed.point("disk", &image, PLAIN));
    let [gone, hurt] = keys;
    fs::remove_file(bed.object(&name::copy(&hurt))).unwrap();
    // Both were whole enough to be listed when they were looked at.
    for object in [name::slot(&gone), name::copy(&gone)] {
        let path = bed.object(&object);
        flip(&path, fs::metadata(&path).unwrap().len() - 5);
    }
    let context = bed.context();
    let mut repair = Repair {
        context: &context,
        dry_run: false,
        reader: Arc::new(SegmentReader::new(&bed.repository)),
        report: RepairReport::default(),
    };
    let found = |key: &SessionKey| VerifyFinding {
        kind: "missing".to_owned(),
        object: name::copy(key),
        message: String::new(),
        volume: None,
        points: vec![key.point().to_string()],
        ranges: Vec::new(),
    };
    let settled = repair.points(&keys, &keys.each_ref().map(found)).unwrap();
    assert_eq!(settled.len(), 2);
    let report = repair.report;
    assert_eq!(report.lost.len(), 1, "{report:?}");
    assert_eq!(report.lost[0].points, [gone.point().to_string()]);
    assert!(
        bed.objects(name::COPY).contains(&name::copy(&hurt)),
        "{report:?}"
    );
}

//! Where a delta is not taken, or a difference proves nothing.

use super::*;

#[test]
fn after_a_change_of_size_everything_is_read_once() {
    let (bed, storage) = begun();
    let at_start = CHUNKS * CHUNK + 5000;
    for len in [
        at_start + 1,
        at_start + 300 * CHUNK,
        200 * CHUNK + 17,
        200 * CHUNK,
        201 * CHUNK,
    ] {
        storage.change(|image| {
            let grown = image.len() < len;
            image.resize(len, 0);
            if grown {
                image[len - 1] = 7;
            }
            image[len / 2] ^= 1;
        });
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "hole-map", "{len}");
        assert!(report.changed_blocks_reason.contains("change of size"));
        assert_eq!(report.size_bytes, len as u64);
        check_newest(&bed, &storage);
        storage.change(scatter(len as u64, 3));
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "told", "{len}");
        check_newest(&bed, &storage);
    }
}

#[test]
fn a_base_that_is_gone_does_not_hide_a_change_of_size() {
    let (bed, mut storage) = begun();
    storage.is_device = true;
    storage.answer = Answer::HalfAllocated;
    storage.change(|image| image.resize(900 * CHUNK, 3));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    // Nobody is asked what is allocated, so that nobody is caught.
    assert_eq!(
        (report.changed_blocks.as_str(), report.changed_blocks_liar),
        ("scan", None)
    );
    for reason in ["the base is gone", "change of size"] {
        let told = &report.changed_blocks_reason;
        assert!(told.contains(reason), "{told}");
    }
    check_newest(&bed, &storage);
}

#[test]
fn after_a_step_back_everything_is_read_once() {
    let (bed, mut storage) = begun();
    storage.is_device = true;
    storage.goes_back = true;
    storage.change(scatter(1, 5));
    for choice in [
        ChangedBlocksChoice::Auto,
        ChangedBlocksChoice::Source("told".to_owned()),
    ] {
        let report = back_up(&bed, &storage, choice).unwrap();
        assert_eq!(report.changed_blocks, "scan");
        assert!(report.changed_blocks_reason.contains("step back"));
        check_newest(&bed, &storage);
    }
    storage.goes_back = false;
    storage.change(scatter(2, 5));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
}

#[test]
fn nobody_is_asked_about_a_source_that_somebody_writes_to() {
    let bed = Bed::new();
    let mut storage = Storage::device(&bed, image(1, 100 * CHUNK));
    storage.is_live = true;
    // With and without a parent: neither a delta nor what is allocated is of the moment that is read.
    for _ in 0..2 {
        let live = BackupRequest {
            allow_live: true,
            ..request(ChangedBlocksChoice::Auto, ParentChoice::Auto)
        };
        let report = backup::run(&bed.context(), &storage.source(), &live).unwrap();
        assert_eq!(report.changed_blocks, "scan");
        assert!(
            report
                .changed_blocks_reason
                .contains("writing to the source")
        );
        assert_eq!(report.base_needed_by, None);
        let manifest = newest(&bed).manifest;
        assert!(Identity::among("told", &manifest.identity).is_none());
        assert!(manifest.identity.iter().all(|(key, _)| key != NEEDS_BASE));
        storage.change(scatter(1, 3));
    }
}

#[test]
fn a_difference_where_discarded_ranges_read_as_anything_is_stored_and_no_lie() {
    let bed = Bed::new();
    // So few chunks that all of them are samples.
    let mut storage = Storage::device(&bed, image(1, 60 * CHUNK));
    storage.discard_unstable = true;
    back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    storage.change(scatter(2, 200));
    storage.answer = Answer::Nothing;
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(
        report.changed_blocks, "told",
        "{}",
        report.changed_blocks_reason
    );
    assert_eq!(report.changed_blocks_liar, None);
    assert!(report.unstable_bytes > 0);
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.contains("discarded"))
    );
    check_newest(&bed, &storage);
}

#[test]
fn a_storage_that_needs_its_base_is_named_in_the_point() {
    let (bed, storage) = begun();
    let point = newest(&bed);
    let needs = (NEEDS_BASE.to_owned(), "told".to_owned());
    assert!(point.manifest.identity.contains(&needs));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Scan).unwrap();
    assert_eq!(report.base_needed_by.as_deref(), Some("told"));
}

#[test]
fn samples_are_the_same_for_the_same_pair_and_others_for_another() {
    let (bed, storage) = begun();
    storage.change(scatter(1, 5));
    let seed = || {
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "told");
        report.sample_seed.unwrap()
    };
    let (first, second) = (seed(), seed());
    // Another parent.
    assert_ne!(first, second);
}

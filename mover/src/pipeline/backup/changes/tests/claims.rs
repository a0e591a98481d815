//! Who says what is allocated is watched like who says what changed.

use super::*;

/// A device of which only some ranges hold anything.
fn sparse(bed: &Bed) -> Storage {
    let mut data = image(1, 2000 * CHUNK);
    data[300 * CHUNK..1300 * CHUNK].fill(0);
    Storage::device(bed, data)
}

#[test]
fn an_honest_first_point_reads_what_is_allocated_and_some_more() {
    let bed = Bed::new();
    let storage = sparse(&bed);
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    assert_eq!(report.changed_blocks_liar, None);
    let samples = changed_blocks::samples::SAMPLES as u64;
    assert_eq!(report.sampled_bytes, samples * CHUNK as u64);
    assert!(report.read_bytes <= (1000 + samples) * CHUNK as u64);
    assert!(report.sample_seed.is_some());
    check_newest(&bed, &storage);
    // The rest was believed, so that the point is not one of which everything was read.
    assert_eq!(History::of(&newest(&bed).manifest).partial, 1);
}

#[test]
fn who_hides_data_from_the_first_point_is_caught() {
    for answer in [Answer::HalfAllocated, Answer::StartUnallocated] {
        let bed = Bed::new();
        let mut storage = sparse(&bed);
        storage.answer = answer;
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "scan", "{answer:?}");
        assert_eq!(report.changed_blocks_liar.as_deref(), Some("told"));
        assert!(
            report
                .warnings
                .iter()
                .any(|warning| warning.contains("did not tell of data")),
            "{:?}",
            report.warnings
        );
        check_newest(&bed, &storage);
        let verdict = verdict(&bed);
        assert!(verdict.evidence.contains("unallocated"), "{verdict:?}");
        assert_eq!(verdict.target, "told.state=0");
    }
}

#[test]
fn a_base_that_is_gone_is_no_way_around_the_samples() {
    let (bed, mut storage) = begun();
    storage.is_device = true;
    storage.answer = Answer::OnlyAllocated;
    storage.change(scatter(3, 20));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    assert!(report.changed_blocks_reason.contains("the base is gone"));
    check_newest(&bed, &storage);

    storage.answer = Answer::HalfAllocated;
    storage.change(scatter(4, 20));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "scan");
    assert_eq!(report.changed_blocks_liar.as_deref(), Some("told"));
    check_newest(&bed, &storage);
}

#[test]
fn what_the_parent_has_and_nobody_holds_any_more_must_read_as_zeros() {
    // So small a lie that no sample need meet it: the parent knows the chunk.
    let bed = Bed::new();
    let mut storage = sparse(&bed);
    back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    storage.answer = Answer::OnlyAllocated;
    storage.change(|image| image[1400 * CHUNK..1500 * CHUNK].fill(0));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    assert!(report.sampled_bytes > 0);
    check_newest(&bed, &storage);
}

#[test]
fn a_delta_that_tells_of_data_where_nothing_is_allocated_is_a_contradiction() {
    let (bed, mut storage) = begun();
    storage.answer = Answer::Contradicts;
    storage.change(scatter(5, 100));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "hole-map");
    assert_eq!(report.changed_blocks_liar.as_deref(), Some("told"));
    assert!(report.changed_blocks_reason.contains("contradicts"));
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.contains("contradicts"))
    );
    check_newest(&bed, &storage);
    let verdict = verdict(&bed);
    assert!(verdict.target.contains("told.state"), "{verdict:?}");
}

#[test]
fn who_can_say_neither_means_a_scan_with_a_warning() {
    let (bed, mut storage) = begun();
    storage.is_device = true;
    storage.answer = Answer::NeitherOfBoth;
    storage.change(scatter(5, 10));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "scan");
    assert_eq!(report.changed_blocks_liar, None);
    assert!(report.changed_blocks_reason.contains("the pool is busy"));
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.contains("the pool is busy"))
    );
    check_newest(&bed, &storage);
}

#[test]
fn every_31st_point_is_a_scan_whatever_is_told() {
    let bed = Bed::new();
    let mut storage = Storage::device(&bed, image(7, 40 * CHUNK));
    let mut names = Vec::new();
    for round in 0..32 {
        // Now the base is there, now it is gone.
        storage.answer = match round % 3 {
            0 => Answer::OnlyAllocated,
            _ => Answer::Honest,
        };
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        names.push(report.changed_blocks);
        storage.change(scatter(round, 1));
    }
    let scans: Vec<_> = (0..names.len()).filter(|at| names[*at] == "scan").collect();
    assert_eq!(scans, [30], "{names:?}");
}

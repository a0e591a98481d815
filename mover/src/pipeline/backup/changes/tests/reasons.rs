//! Nobody is passed over in silence.

use super::*;

#[test]
fn auto_says_why_a_better_source_was_not_asked() {
    for (is_device, is_fault) in [(false, false), (false, true), (true, false), (true, true)] {
        let (bed, mut storage) = begun();
        storage.is_device = is_device;
        storage.unusable = Some(("thin_delta is missing", is_fault));
        storage.change(scatter(1, 5));
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(
            report.changed_blocks,
            if is_device { "scan" } else { "hole-map" }
        );
        let reason = &report.changed_blocks_reason;
        assert!(
            reason.contains("told cannot be asked: thin_delta is missing"),
            "{reason}"
        );
        // What is only of another kind is worth a reason; what should have answered, a warning.
        let warned = report
            .warnings
            .iter()
            .any(|text| text.contains("thin_delta is missing"));
        assert_eq!(warned, is_fault);
        check_newest(&bed, &storage);
    }
}

#[test]
fn a_named_source_that_cannot_be_asked_means_a_full_read_with_a_warning() {
    for is_fault in [false, true] {
        let (bed, mut storage) = begun();
        storage.is_device = true;
        storage.unusable = Some(("its pool has failed", is_fault));
        storage.change(scatter(1, 5));
        let named = ChangedBlocksChoice::Source("told".to_owned());
        let report = back_up(&bed, &storage, named).unwrap();
        assert_eq!(report.changed_blocks, "scan");
        let warned = report
            .warnings
            .iter()
            .filter(|text| text.contains("its pool has failed"));
        assert_eq!(warned.count(), 1, "{:?}", report.warnings);
        check_newest(&bed, &storage);
    }
}

#[test]
fn a_reason_without_end_does_not_cost_the_point() {
    let (bed, mut storage) = begun();
    let reason: &'static str = Box::leak("thin_delta: no\n".repeat(1000).into_boxed_str());
    storage.unusable = Some((reason, true));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert!(report.changed_blocks_reason.len() <= 1024);
}

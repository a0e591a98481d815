//! What every [`ChangedBlocks`] source must pass; one run for each implementation.
//!
//! Owns: the cases. Must not: know an implementation. A failed case panics, as tests do.

use crate::checked::Checked;
use crate::extent::{ByteLen, Extent, ExtentKind};
use crate::extent_set::ExtentSet;
use crate::source::{ChangedBlocks, ExtentSink, Precision, SourceError, SourceErrorKind, Summary};

/// Checks that `allocated` of a target of `size` bytes is sound, repeatable, stops when asked, and covers `needed`, the
/// bytes that are not zero. An exact source must answer with nothing else.
pub fn check_allocated(source: &mut dyn ChangedBlocks, size: u64, needed: &ExtentSet) {
    let first = sound_answer(source, size, |source, sink| source.allocated(sink));
    covers(source, &first, needed);
    let second = sound_answer(source, size, |source, sink| source.allocated(sink));
    assert_eq!(first, second, "two answers about one target differ");
    stops(source, |source, sink| source.allocated(sink));
}

/// Checks `delta` of a source that is bound to its base in the same way against `changed`, the bytes that differ. Extents of
/// either kind count: a range that became zero has changed.
pub fn check_delta(source: &mut dyn ChangedBlocks, size: u64, changed: &ExtentSet) {
    let first = sound_answer(source, size, |source, sink| source.delta(sink));
    covers_changes(source, &first, changed);
    let second = sound_answer(source, size, |source, sink| source.delta(sink));
    assert_eq!(first, second, "two answers about one pair differ");
    stops(source, |source, sink| source.delta(sink));
    if source.tells_both() {
        let allocated = sound_answer(source, size, |source, sink| source.allocated(sink));
        let outside = data_of(&first).subtract(&data_of(&allocated));
        assert!(
            outside.is_empty(),
            "changed, and not allocated: {outside:?}"
        );
    }
}

/// Checks that a source without a base says so, and delivers nothing.
pub fn check_without_base(source: &mut dyn ChangedBlocks) {
    let mut seen = 0;
    let answer = source.delta(&mut |_| {
        seen += 1;
        true
    });
    let error = answer.expect_err("a delta without a base");
    assert_eq!(error.kind, SourceErrorKind::FullBackup, "{error}");
    assert_eq!(seen, 0, "extents of a delta without a base");
}

type Ask = fn(&mut dyn ChangedBlocks, &mut ExtentSink<'_>) -> Result<Summary, SourceError>;

/// The extents of an answer that [`Checked`] lets pass.
fn sound_answer(source: &mut dyn ChangedBlocks, size: u64, ask: Ask) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut checked = Checked::new(source, ByteLen(size));
    let summary = ask(&mut checked, &mut |extent| {
        extents.push(extent);
        true
    });
    summary.unwrap_or_else(|error| unreachable!("unsound answer: {error}"));
    extents
}

fn data_of(told: &[Extent]) -> ExtentSet {
    let data = told.iter().copied();
    data.filter(|extent| extent.kind == ExtentKind::Data)
        .collect()
}

fn covers(source: &dyn ChangedBlocks, told: &[Extent], needed: &ExtentSet) {
    covers_set(source, &data_of(told), needed);
}

fn covers_changes(source: &dyn ChangedBlocks, told: &[Extent], changed: &ExtentSet) {
    covers_set(source, &told.iter().copied().collect(), changed);
}

fn covers_set(source: &dyn ChangedBlocks, data: &ExtentSet, needed: &ExtentSet) {
    assert!(
        needed.subtract(data).is_empty(),
        "not told: {:?}",
        needed.subtract(data)
    );
    if source.capabilities().precision == Precision::Exact {
        let unit = source.capabilities().granularity;
        let rounded = needed.round_out(unit, ByteLen(u64::MAX));
        let excess = data.subtract(&rounded);
        assert!(excess.is_empty(), "an exact source told more: {excess:?}");
    }
}

/// A consumer that stops at once sees one extent and never a summary of it.
fn stops(source: &mut dyn ChangedBlocks, ask: Ask) {
    let mut seen = 0;
    let answer = ask(source, &mut |_| {
        seen += 1;
        false
    });
    assert!(seen <= 1, "the source went on after it was told to stop");
    assert!(
        seen == 0 || answer.is_err(),
        "a summary for an answer that was stopped"
    );
}

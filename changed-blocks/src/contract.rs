//! What every [`ChangedBlocks`] source must pass; one run for each implementation.
//!
//! Owns: the cases. Must not: know an implementation. A failed case panics, as tests do.

use crate::checked::Checked;
use crate::extent::{ByteLen, Extent, ExtentKind};
use crate::extent_set::ExtentSet;
use crate::source::{ChangedBlocks, ExtentSink, Precision, SourceError, Summary};

/// Checks that `allocated` of a target of `size` bytes is sound, repeatable, stops when asked, and covers `needed`, the
/// bytes that are not zero. An exact source must answer with nothing else.
pub fn check_allocated(source: &mut dyn ChangedBlocks, size: u64, needed: &ExtentSet) {
    let first = sound_answer(source, size, |source, sink| {
        source.allocated(sink).map(Some)
    });
    covers(
        source,
        first.as_deref().expect("allocated always answers"),
        needed,
    );
    let second = sound_answer(source, size, |source, sink| {
        source.allocated(sink).map(Some)
    });
    assert_eq!(first, second, "two answers about one target differ");
    stops(source, |source, sink| source.allocated(sink).map(Some));
}

/// Checks `delta` in the same way against `changed`, the bytes that differ; a source that cannot compare delivers nothing.
pub fn check_delta(source: &mut dyn ChangedBlocks, size: u64, changed: &ExtentSet) {
    let Some(told) = sound_answer(source, size, |source, sink| source.delta(sink)) else {
        return;
    };
    covers(source, &told, changed);
    stops(source, |source, sink| source.delta(sink));
}

type Ask = fn(&mut dyn ChangedBlocks, &mut ExtentSink<'_>) -> Result<Option<Summary>, SourceError>;

/// The extents of an answer that [`Checked`] lets pass.
fn sound_answer(source: &mut dyn ChangedBlocks, size: u64, ask: Ask) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut checked = Checked::new(Borrowed(source), ByteLen(size));
    let summary = ask(&mut checked, &mut |extent| {
        extents.push(extent);
        true
    });
    let summary = summary.unwrap_or_else(|error| unreachable!("unsound answer: {error}"));
    summary.map(|_| extents)
}

fn covers(source: &dyn ChangedBlocks, told: &[Extent], needed: &ExtentSet) {
    let data: ExtentSet = told
        .iter()
        .copied()
        .filter(|extent| extent.kind == ExtentKind::Data)
        .collect();
    assert!(
        needed.subtract(&data).is_empty(),
        "not told: {:?}",
        needed.subtract(&data)
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

struct Borrowed<'a>(&'a mut dyn ChangedBlocks);

impl ChangedBlocks for Borrowed<'_> {
    fn capabilities(&self) -> crate::source::Capabilities {
        self.0.capabilities()
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        self.0.allocated(sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Option<Summary>, SourceError> {
        self.0.delta(sink)
    }
}

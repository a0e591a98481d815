//! A source that lies in every way its form allows, and an honest one.

use super::*;
use crate::ExtentSet;
use crate::contract;
use crate::source::{Precision, SourceErrorKind};

const SIZE: u64 = 10_000;

/// Says what it was told to say.
#[derive(Clone)]
struct Scripted {
    extents: Vec<Extent>,
    end: Result<Summary, SourceErrorKind>,
    /// Goes on although the sink asked it to stop.
    deaf: bool,
}

impl Scripted {
    fn honest(extents: &[Extent]) -> Self {
        let summary = Summary {
            size: ByteLen(SIZE),
            extents: extents.len() as u64,
        };
        Self {
            extents: extents.to_vec(),
            end: Ok(summary),
            deaf: false,
        }
    }
}

impl ChangedBlocks for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            precision: Precision::Exact,
            zero_extents: true,
            ..Capabilities::without_base("scripted", ByteLen(1))
        }
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        self.delta(sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        for extent in &self.extents {
            if !sink(*extent) && !self.deaf {
                return Err(stopped());
            }
        }
        self.end
            .map_err(|kind| SourceError::new(kind, "fail as told"))
    }
}

fn ask(source: Scripted) -> (Vec<Extent>, Result<Summary, SourceError>) {
    let mut seen = Vec::new();
    let answer = Checked::new(source, ByteLen(SIZE)).delta(&mut |extent| {
        seen.push(extent);
        true
    });
    (seen, answer)
}

#[test]
fn an_honest_answer_passes_unchanged() {
    let extents = [
        Extent::data(0, 10),
        Extent::zero(10, 90),
        Extent::data(SIZE - 1, 1),
    ];
    let (seen, answer) = ask(Scripted::honest(&extents));
    assert_eq!(seen, extents);
    assert_eq!(answer.unwrap().extents, 3);
    let needed: ExtentSet = [Extent::data(0, 10), Extent::data(SIZE - 1, 1)]
        .into_iter()
        .collect();
    let mut checked = Checked::new(Scripted::honest(&extents), ByteLen(SIZE));
    contract::check_allocated(&mut checked, SIZE, &needed);
    contract::check_delta(&mut checked, SIZE, &extents.into_iter().collect());
}

#[test]
fn lies_about_extents_are_named_and_not_passed_on() {
    let good = Extent::data(100, 100);
    let lies = [
        (Extent::data(300, 0), "empty"),
        (Extent::data(SIZE, 1), "passes the end"),
        (Extent::data(SIZE - 1, 2), "passes the end"),
        (Extent::data(u64::MAX, 2), "passes the end"),
        (Extent::data(100, 100), "starts before"),
        (Extent::data(199, 1), "starts before"),
        (Extent::data(0, 1), "starts before"),
    ];
    for deaf in [false, true] {
        for (lie, says) in lies {
            let mut source = Scripted::honest(&[good, lie, Extent::data(5000, 1)]);
            source.deaf = deaf;
            let (seen, answer) = ask(source);
            assert_eq!(seen, [good], "{lie:?}");
            let error = answer.unwrap_err();
            assert_eq!(error.kind, SourceErrorKind::FullBackup);
            assert!(error.message.contains(says), "{lie:?}: {error}");
            assert!(error.message.contains("scripted"), "{error}");
        }
    }
}

#[test]
fn a_truncated_answer_is_thrown_away() {
    let mut source = Scripted::honest(&[Extent::data(0, 10)]);
    source.end = Ok(Summary {
        size: ByteLen(SIZE),
        extents: 2,
    });
    assert!(
        ask(source.clone())
            .1
            .unwrap_err()
            .message
            .contains("1 extents delivered of 2")
    );
    source.end = Err(SourceErrorKind::Retry);
    assert_eq!(ask(source).1.unwrap_err().kind, SourceErrorKind::Retry);
}

#[test]
fn an_answer_about_another_size_is_thrown_away() {
    let mut source = Scripted::honest(&[]);
    source.end = Ok(Summary {
        size: ByteLen(SIZE - 1),
        extents: 0,
    });
    assert!(
        ask(source)
            .1
            .unwrap_err()
            .message
            .contains("9999 bytes, not 10000")
    );
}

#[test]
fn a_deaf_source_gives_no_summary_to_a_consumer_that_stopped() {
    let mut source = Scripted::honest(&[Extent::data(0, 1), Extent::data(2, 1)]);
    source.deaf = true;
    let mut seen = 0;
    let answer = Checked::new(source, ByteLen(SIZE)).allocated(&mut |_| {
        seen += 1;
        false
    });
    assert_eq!(seen, 1);
    assert!(answer.is_err());
}

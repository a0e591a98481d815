//! An answer of a source of changed blocks held against every byte of both states (rule R14).
//!
//! ```text
//!   answer  ─► extents, pulled ──────────────┐
//!   target  ─► 8 reads of 1 MiB, in order ───┼─► told of: does it differ?   not told of: it must not   zero: it must be
//!   base    ─► 8 reads of 1 MiB, in order ───┘
//! ```
//!
//! Owns: that comparison, in memory that does not grow. Must not: choose who is asked, or repair anything.

mod reader;

use std::iter::Peekable;
use std::ops::Range;

use changed_blocks::{ByteLen, ChangedBlocks, Checked, Extent, ExtentKind};
use crossbeam_channel::bounded;

use super::ChangedRequest;
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::backup::extents::{self, BATCHES_IN_FLIGHT, ExtentStream, Question};
use crate::pipeline::progress::StopFlag;
use crate::pipeline::report::AuditReport;
use reader::InOrder;

/// What is told too much is counted in these: file systems write no less.
const BLOCK: u64 = 4096;
/// What is left out is counted in these: no device writes less.
const SECTOR: usize = 512;
/// Places that a report names.
const MOST_WRONG: usize = 16;

/// Takes the answer of `blocks`, hands every extent to `take`, and compares.
///
/// # Errors
/// `InvalidRequest` where somebody may be writing to one of both states (rule R12), `SourceChanged` where somebody did; what the
/// answer and the devices give.
pub(super) fn run(
    request: &ChangedRequest<'_>,
    blocks: &mut (dyn ChangedBlocks + Send),
    stop: &StopFlag,
    take: &mut dyn FnMut(Extent) -> bool,
) -> Result<AuditReport> {
    let both = [Some(request.source), request.base.map(|(base, _)| base)];
    let both: Vec<_> = both.into_iter().flatten().collect();
    for source in &both {
        if !source.check_unchanged()? {
            let message = "audit what changed: somebody may be writing to it";
            return Err(Error::new(ErrorKind::InvalidRequest, message)
                .object(source.name())
                .hint("audit snapshots"));
        }
    }
    let (question, end) = match request.base {
        Some((base, _)) => (Question::Delta, request.source.size().min(base.size())),
        None => (Question::Allocated, request.source.size()),
    };
    let report = std::thread::scope(|scope| {
        let (sender, answers) = bounded(BATCHES_IN_FLIGHT);
        let size = request.source.size();
        scope.spawn(move || {
            let mut checked = Checked::new(blocks, ByteLen(size));
            extents::send(&mut checked, question, &sender);
        });
        let told = ExtentStream::new(answers, size);
        compare(&both, end, told, stop, take)
    })?;
    for source in &both {
        if !source.check_unchanged()? {
            let message = "audit what changed: somebody wrote to it meanwhile";
            return Err(Error::new(ErrorKind::SourceChanged, message).object(source.name()));
        }
    }
    Ok(report)
}

fn compare(
    both: &[&dyn SourceDevice],
    end: u64,
    told: impl Iterator<Item = Result<Extent>>,
    stop: &StopFlag,
    take: &mut dyn FnMut(Extent) -> bool,
) -> Result<AuditReport> {
    let mut told = Told {
        extents: told.peekable(),
        current: None,
        take,
    };
    let mut sums = Sums::default();
    let mut target = InOrder::new(both[0], end)?;
    let mut base = both
        .get(1)
        .map(|base| InOrder::new(*base, end))
        .transpose()?;
    while let Some(now) = target.next()? {
        stop.check()?;
        let before = base.as_mut().map(InOrder::next).transpose()?.flatten();
        let mut at = now.offset;
        let last = at + now.bytes().len() as u64;
        while at < last {
            let (kind, until) = told.at(at, last)?;
            let part = index(at - now.offset)..index(until - now.offset);
            let before = before.as_ref().map(|piece| &piece.bytes()[part.clone()]);
            sums.add(at, kind, &now.bytes()[part], before);
            at = until;
        }
        sums.report.read_bytes += (last - now.offset) * both.len() as u64;
        target.give_back(now);
        if let (Some(base), Some(before)) = (&mut base, before) {
            base.give_back(before);
        }
    }
    // What lies behind the smaller end is nobody's to tell, but the answer must come to its end.
    told.drain()?;
    Ok(sums.finish())
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a piece is small")
}

/// The answer, as ranges of one kind.
struct Told<'a, I: Iterator<Item = Result<Extent>>> {
    extents: Peekable<I>,
    current: Option<Extent>,
    take: &'a mut dyn FnMut(Extent) -> bool,
}

impl<I: Iterator<Item = Result<Extent>>> Told<'_, I> {
    fn pull(&mut self) -> Result<()> {
        self.current = self.extents.next().transpose()?;
        if let Some(extent) = self.current {
            // A stop on request is seen by the loop over pieces.
            let _ = (self.take)(extent);
        }
        Ok(())
    }

    /// What was told of the byte at `at`, and up to where (at most `last`) that goes on. Offsets ascend.
    fn at(&mut self, at: u64, last: u64) -> Result<(Option<ExtentKind>, u64)> {
        let end = |extent: &Extent| extent.end().unwrap_or(u64::MAX);
        while self.current.as_ref().is_none_or(|extent| end(extent) <= at) {
            if self.extents.peek().is_none() {
                return Ok((None, last));
            }
            self.pull()?;
        }
        Ok(match &self.current {
            Some(extent) if extent.offset.0 <= at => (Some(extent.kind), end(extent).min(last)),
            Some(extent) => (None, extent.offset.0.min(last)),
            None => (None, last),
        })
    }

    fn drain(&mut self) -> Result<()> {
        while self.extents.peek().is_some() {
            self.pull()?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sums {
    report: AuditReport,
    told_bytes: u64,
    /// The 4 KiB block that was counted last.
    counted: Option<u64>,
}

impl Sums {
    /// Adds a range of one kind; `before` is what the base has there, zeros without one.
    fn add(&mut self, at: u64, kind: Option<ExtentKind>, now: &[u8], before: Option<&[u8]>) {
        match kind {
            None => {
                for wrong in differing(now, before) {
                    self.report.untold_bytes += wrong.len() as u64;
                    self.note(at, &wrong);
                }
            }
            Some(kind) => {
                self.told_bytes += now.len() as u64;
                self.count_true(at, now, before);
                if kind == ExtentKind::Zero {
                    for wrong in differing(now, None) {
                        self.report.wrong_zero_bytes += wrong.len() as u64;
                        self.note(at, &wrong);
                    }
                }
            }
        }
    }

    fn count_true(&mut self, at: u64, now: &[u8], before: Option<&[u8]>) {
        let mut start = 0;
        while start < now.len() {
            let block = (at + start as u64) / BLOCK;
            let stop = index((block + 1) * BLOCK - at).min(now.len());
            let before = before.map(|before| &before[start..stop]);
            // Two extents may tell of one block.
            if self.counted != Some(block) && !differing(&now[start..stop], before).is_empty() {
                self.report.true_bytes += BLOCK;
                self.counted = Some(block);
            }
            start = stop;
        }
    }

    fn note(&mut self, at: u64, wrong: &Range<usize>) {
        let (offset, len) = (at + wrong.start as u64, wrong.len() as u64);
        let wrong = &mut self.report.wrong;
        let noted = wrong.len();
        match wrong.last_mut() {
            Some((start, length)) if *start + *length == offset => *length += len,
            _ if noted < MOST_WRONG => wrong.push((offset, len)),
            _ => {}
        }
    }

    fn finish(mut self) -> AuditReport {
        let is_any = self.report.true_bytes > 0;
        self.report.over_report =
            is_any.then(|| self.told_bytes as f64 / self.report.true_bytes as f64);
        self.report
    }
}

/// Sectors of `now` that differ from `before`, or from zeros; neighbours joined.
fn differing(now: &[u8], before: Option<&[u8]>) -> Vec<Range<usize>> {
    let zeros = [0; SECTOR];
    let mut found: Vec<Range<usize>> = Vec::new();
    if before == Some(now) {
        return found;
    }
    for (number, sector) in now.chunks(SECTOR).enumerate() {
        let start = number * SECTOR;
        let range = start..start + sector.len();
        let other = before.map_or(&zeros[..sector.len()], |before| &before[range.clone()]);
        if sector == other {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.end == start => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

#[cfg(test)]
mod tests;

//! Distrust of a source: the checks every answer passes before anything is built on it.
//!
//! ```text
//!   source ──► Checked ──► consumer
//!                 └─ first unsound extent, wrong size, wrong count, no Complete: an error, never a summary
//! ```
//!
//! Owns: the soundness rules of an answer's form. Must not: know whether the answer is true; samples outside the delta find
//! that.

use crate::extent::{ByteLen, Extent};
use crate::identity::Identity;
use crate::scan::stopped;
use crate::source::{Base, Capabilities, ChangedBlocks, ExtentSink, SourceError, Summary};

/// Passes on an answer as long as it is sound: extents ascending, disjoint, not empty and inside the target, and an end
/// that names the target's size and the number of extents delivered.
///
/// Extents are passed on as they come, so a consumer acts only once it holds the [`Summary`].
#[derive(Debug)]
pub struct Checked<S> {
    source: S,
    size: u64,
}

impl<S: ChangedBlocks> Checked<S> {
    /// Checks the answers of `source` about a target of `size` bytes.
    #[must_use]
    pub fn new(source: S, size: ByteLen) -> Self {
        Self {
            source,
            size: size.0,
        }
    }

    fn run(
        &mut self,
        sink: &mut ExtentSink<'_>,
        ask: impl FnOnce(&mut S, &mut ExtentSink<'_>) -> Result<Summary, SourceError>,
    ) -> Result<Summary, SourceError> {
        let mut form = Form {
            size: self.size,
            end: 0,
            extents: 0,
            stop: None,
        };
        let answer = ask(&mut self.source, &mut |extent| form.pass(extent, sink));
        if let Some(Stop::Unsound(fault)) = form.stop {
            return Err(unsound(self.source.capabilities().name, &fault));
        }
        let answer = answer?;
        if matches!(form.stop, Some(Stop::Consumer)) {
            return Err(stopped());
        }
        match form.end_fault(answer) {
            Some(fault) => Err(unsound(self.source.capabilities().name, &fault)),
            None => Ok(answer),
        }
    }
}

impl<S: ChangedBlocks> ChangedBlocks for Checked<S> {
    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn identity(&self) -> Option<Identity> {
        self.source.identity()
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.source.bind(base)
    }

    fn goes_back(&self, base: &Identity) -> Option<String> {
        self.source.goes_back(base)
    }

    fn tells_both(&self) -> bool {
        self.source.tells_both()
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        self.run(sink, |source, sink| source.allocated(sink))
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        self.run(sink, |source, sink| source.delta(sink))
    }
}

/// What has been seen of an answer.
struct Form {
    size: u64,
    end: u64,
    extents: u64,
    stop: Option<Stop>,
}

enum Stop {
    Consumer,
    Unsound(String),
}

impl Form {
    fn pass(&mut self, extent: Extent, sink: &mut ExtentSink<'_>) -> bool {
        // A source that goes on after it was told to stop reaches nobody.
        if self.stop.is_some() {
            return false;
        }
        match self.accept(extent) {
            Err(fault) => self.stop = Some(Stop::Unsound(fault)),
            Ok(()) if !sink(extent) => self.stop = Some(Stop::Consumer),
            Ok(()) => {}
        }
        self.stop.is_none()
    }

    fn accept(&mut self, extent: Extent) -> Result<(), String> {
        let (offset, len, size) = (extent.offset, extent.len, self.size);
        if len.0 == 0 {
            return Err(format!("empty extent at {offset}"));
        }
        let end = extent
            .end()
            .filter(|end| *end <= size)
            .ok_or_else(|| format!("extent at {offset} of {len} bytes passes the end at {size}"))?;
        if offset.0 < self.end {
            let last = self.end;
            return Err(format!(
                "extent at {offset} starts before the last one ends at {last:#x}"
            ));
        }
        self.end = end;
        self.extents += 1;
        Ok(())
    }

    /// What is wrong with the end of the answer.
    fn end_fault(&self, summary: Summary) -> Option<String> {
        if summary.size.0 != self.size {
            return Some(format!(
                "target of {} bytes, not {}",
                summary.size, self.size
            ));
        }
        (summary.extents != self.extents)
            .then(|| format!("{} extents delivered of {}", self.extents, summary.extents))
    }
}

fn unsound(name: &str, fault: &str) -> SourceError {
    SourceError::full(format!("trust the answer of {name}: {fault}"))
}

#[cfg(test)]
mod tests;

//! One question, asked until its answer is complete.
//!
//! Owns: the calls, one after the other, and the waits between them. Must not: judge an answer (`answer` does).

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::super::answer::{Answer, Doubt, Next, Patience};
use super::super::service::{MetadataCall, MetadataQuestion, MetadataService, MetadataStream};
use super::super::waiting::{Waited, within};
use super::CsiSource;
use crate::extent::Extent;
use crate::scan::stopped;
use crate::source::{ExtentSink, SourceError};

impl<S: MetadataService> CsiSource<S> {
    /// Asks until the answer is complete. Whether the service told the size of the volume.
    pub(super) fn ask(
        &mut self,
        question: &MetadataQuestion,
        sink: &mut ExtentSink<'_>,
    ) -> Result<bool, SourceError> {
        self.check_runtime()?;
        let mut answer = Answer::new(
            self.size,
            Patience {
                attempts: self.options.attempts,
                back_off: self.options.back_off,
            },
        );
        let mut deadline = Instant::now() + self.options.no_progress;
        let thrown_away = |Doubt(reason)| SourceError::full(format!("{question}: {reason}"));
        loop {
            let offset = answer.begin().map_err(thrown_away)?;
            let call = MetadataCall {
                question: question.clone(),
                starting_offset: offset,
                max_results: self.options.max_results,
            };
            let next = self.call(&call, &mut answer, &mut deadline, sink);
            match next.map_err(|failure| match failure {
                Failure::Doubt(doubt) => thrown_away(doubt),
                Failure::Stopped => stopped(),
            })? {
                Next::Complete => break,
                Next::Call { wait, renew } => {
                    if renew {
                        self.service.renew();
                    }
                    self.rest(wait)?;
                }
            }
        }
        self.finish(question, answer, sink)
    }

    fn finish(
        &self,
        question: &MetadataQuestion,
        answer: Answer,
        sink: &mut ExtentSink<'_>,
    ) -> Result<bool, SourceError> {
        let knows_capacity = answer.capacity().is_some();
        let mut told = Vec::new();
        if let Some(capacity) = answer.finish(&mut told) {
            let size = self.size;
            self.notices.add(format!(
                "{question}: the driver knows {capacity} bytes of {size}; the rest is read"
            ));
        }
        pass(&mut told, sink)?;
        Ok(knows_capacity)
    }

    /// One call to its end.
    fn call(
        &mut self,
        call: &MetadataCall,
        answer: &mut Answer,
        deadline: &mut Instant,
        sink: &mut ExtentSink<'_>,
    ) -> Result<Next, Failure> {
        let runtime = self.runtime.clone();
        let patience = self.options.no_progress;
        let wait = |ended| match ended {
            Waited::Late => Failure::Doubt(Doubt(format!("nothing new for {patience:?}"))),
            Waited::Stopped => Failure::Stopped,
        };
        let stop = self.stop.clone();
        let started = within(&runtime, *deadline, &stop, self.service.call(call));
        let mut stream = match started.map_err(wait)? {
            Ok(stream) => stream,
            Err(error) => return Ok(answer.failed(&error)?),
        };
        let mut told = Vec::new();
        loop {
            match within(&runtime, *deadline, &stop, stream.next()).map_err(wait)? {
                Ok(Some(message)) => {
                    if answer.message(&message, &mut told)? {
                        *deadline = Instant::now() + patience;
                    }
                    pass(&mut told, sink).map_err(|_| Failure::Stopped)?;
                }
                Ok(None) => {
                    // Whoever confirms looks at all the rest again.
                    *deadline = Instant::now() + patience;
                    return Ok(answer.ended());
                }
                Err(error) => return Ok(answer.failed(&error)?),
            }
        }
    }

    /// Waits before the next call.
    fn rest(&self, wait: Duration) -> Result<(), SourceError> {
        let until = Instant::now() + wait;
        match within(
            &self.runtime,
            until,
            &self.stop,
            std::future::pending::<()>(),
        ) {
            Err(Waited::Stopped) => Err(stopped()),
            Err(Waited::Late) | Ok(()) => Ok(()),
        }
    }

    /// Blocking on a runtime from within, or on one that nobody drives, would panic or never end.
    fn check_runtime(&self) -> Result<(), SourceError> {
        if Handle::try_current().is_ok()
            || self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
        {
            return Err(SourceError::full(
                "a driver is asked from outside of a runtime with several threads",
            ));
        }
        Ok(())
    }
}

/// Why a call is not followed by another.
enum Failure {
    Doubt(Doubt),
    Stopped,
}

impl From<Doubt> for Failure {
    fn from(doubt: Doubt) -> Self {
        Self::Doubt(doubt)
    }
}

/// Passes on what is final.
fn pass(told: &mut Vec<Extent>, sink: &mut ExtentSink<'_>) -> Result<(), SourceError> {
    for extent in told.drain(..) {
        if !sink(extent) {
            return Err(stopped());
        }
    }
    Ok(())
}

//! The source's answer as a stream that is pulled, not pushed.
//!
//! Owns: the thread boundary between a changed-block source and the reader, and the rule that an answer without its
//! explicit end is thrown away. Must not: judge extents (`plan` does).

use changed_blocks::{ChangedBlocks, Extent, SourceError, SourceErrorKind, Summary};
use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, ErrorKind, Result};

/// Extents sent at once; a channel operation per extent would cost more than finding it.
const BATCH: usize = 1024;
/// Batches in flight: the source runs ahead of the reader by at most 16 Ki extents, 400 KiB.
pub const BATCHES_IN_FLIGHT: usize = 16;

/// What a source's thread sends.
#[derive(Debug)]
pub enum Answer {
    /// Some extents.
    Batch(Vec<Extent>),
    /// The explicit end.
    Complete(Summary),
    /// The answer failed.
    Failed(SourceError),
}

/// What a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What may hold anything but zeros?
    Allocated,
    /// What may differ from the base? Everything else is as the parent has it.
    Delta,
}

/// Runs a source and sends its answer; returns early once nobody listens.
pub fn send(source: &mut dyn ChangedBlocks, question: Question, sender: &Sender<Answer>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut sink = |extent| {
        batch.push(extent);
        batch.len() < BATCH
            || sender
                .send(Answer::Batch(std::mem::replace(
                    &mut batch,
                    Vec::with_capacity(BATCH),
                )))
                .is_ok()
    };
    let result = match question {
        Question::Allocated => source.allocated(&mut sink),
        Question::Delta => source.delta(&mut sink),
    };
    let last = match result {
        Ok(summary) => Answer::Complete(summary),
        Err(error) => Answer::Failed(error),
    };
    if sender.send(Answer::Batch(batch)).is_ok() {
        // A reader that stopped listening has failed already and says why itself.
        let _ = sender.send(last);
    }
}

/// Extents in the order the source gave them; ends only after the source said so.
#[derive(Debug)]
pub struct ExtentStream {
    answers: Receiver<Answer>,
    batch: std::vec::IntoIter<Extent>,
    size: u64,
    ended: bool,
}

impl ExtentStream {
    /// Reads the answer for a volume of `size` bytes.
    #[must_use]
    pub fn new(answers: Receiver<Answer>, size: u64) -> Self {
        Self {
            answers,
            batch: Vec::new().into_iter(),
            size,
            ended: false,
        }
    }

    fn end(&mut self, result: Option<Error>) -> Option<Result<Extent>> {
        self.ended = true;
        result.map(Err)
    }
}

impl Iterator for ExtentStream {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(extent) = self.batch.next() {
                return Some(Ok(extent));
            }
            match self.answers.recv() {
                Ok(Answer::Batch(batch)) => self.batch = batch.into_iter(),
                Ok(Answer::Complete(summary)) if summary.size.0 == self.size => {
                    return self.end(None);
                }
                Ok(Answer::Complete(summary)) => {
                    return self.end(Some(other_size(summary, self.size)));
                }
                Ok(Answer::Failed(error)) => return self.end(Some(failed(error))),
                Err(_) => return self.end(Some(incomplete())),
            }
        }
        None
    }
}

fn other_size(summary: Summary, size: u64) -> Error {
    Error::new(
        ErrorKind::SourceChanged,
        format!(
            "ask which ranges hold data: the source has {} bytes now, {size} before",
            summary.size
        ),
    )
    .hint("back up a snapshot, or run again when nobody writes to the source")
}

fn incomplete() -> Error {
    Error::new(
        ErrorKind::Internal,
        "ask which ranges hold data: the answer has no end",
    )
}

fn failed(mut error: SourceError) -> Error {
    // A source that is a repository itself says better what is wrong and what to do.
    let own = error
        .source
        .take_if(|cause| cause.get_ref().is_some_and(|inner| inner.is::<Error>()));
    if let Some(Ok(own)) = own
        .and_then(std::io::Error::into_inner)
        .map(|inner| inner.downcast::<Error>())
    {
        return *own;
    }
    let kind = match error.kind {
        SourceErrorKind::Retry => ErrorKind::Unavailable,
        SourceErrorKind::FullBackup | SourceErrorKind::GiveUp => ErrorKind::Io,
    };
    Error::new(kind, "ask which ranges hold data")
        .hint("run again with --changed-blocks scan")
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use changed_blocks::ByteLen;

    fn stream(answers: Vec<Answer>) -> Vec<Result<Extent>> {
        let (sender, receiver) = crossbeam_channel::bounded(16);
        for answer in answers {
            sender.send(answer).unwrap();
        }
        drop(sender);
        ExtentStream::new(receiver, 100).collect()
    }

    #[test]
    fn a_complete_answer_ends_without_an_error() {
        let summary = Summary {
            size: ByteLen(100),
            extents: 1,
        };
        let got = stream(vec![
            Answer::Batch(vec![Extent::data(0, 5)]),
            Answer::Complete(summary),
        ]);
        assert_eq!(got.len(), 1);
        assert_eq!(*got[0].as_ref().unwrap(), Extent::data(0, 5));
    }

    #[test]
    fn an_answer_without_its_end_is_thrown_away() {
        let got = stream(vec![Answer::Batch(vec![Extent::data(0, 5)])]);
        assert!(got.last().unwrap().is_err());
    }

    #[test]
    fn a_size_that_changed_is_an_error() {
        let summary = Summary {
            size: ByteLen(99),
            extents: 0,
        };
        let got = stream(vec![Answer::Complete(summary)]);
        assert_eq!(
            got[0].as_ref().unwrap_err().kind(),
            ErrorKind::SourceChanged
        );
    }
}

//! One call of a SnapshotMetadata service, whoever serves it.
//!
//! Owns: what is asked and what comes back, with the numbers as they are on the wire. Must not: judge an answer, or call again.

use std::fmt;
use std::future::Future;

use csi_proto::{Code, Status};

/// What is asked of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataQuestion {
    /// Which ranges were ever written.
    Allocated,
    /// Which ranges differ from a base.
    Delta {
        /// What the driver knows the base by: the handle of a snapshot, or a change id. Opaque.
        base: String,
    },
}

impl fmt::Display for MetadataQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allocated => "GetMetadataAllocated",
            Self::Delta { .. } => "GetMetadataDelta",
        })
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataCall {
    /// What is asked.
    pub question: MetadataQuestion,
    /// First byte of interest; the first range ends behind it, and may begin before it.
    pub starting_offset: i64,
    /// At most so many ranges in one message; 0 lets the server choose.
    pub max_results: i32,
}

/// How a service counts ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockType {
    /// Every range is as long as the first.
    Fixed,
    /// Ranges of any length.
    Variable,
    /// Neither: not set, or of a later version of the interface.
    Other(i32),
}

impl From<i32> for BlockType {
    fn from(number: i32) -> Self {
        match number {
            1 => Self::Fixed,
            2 => Self::Variable,
            other => Self::Other(other),
        }
    }
}

/// One message of a stream. Nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataMessage {
    /// How ranges are counted.
    pub block_type: BlockType,
    /// Size of the volume in bytes, as the service sees it.
    pub capacity: i64,
    /// Ranges as `(offset, length)` in bytes.
    pub ranges: Vec<(i64, i64)>,
}

/// Why a call, or its stream, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct CallError {
    /// As gRPC numbers it.
    pub code: Code,
    /// The server's text, for people.
    pub message: String,
}

impl CallError {
    /// An error of our own side.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What tonic says of a message that is longer than it was allowed to read. It says so with `OUT_OF_RANGE`, by which a server
/// means the end of the volume.
const TOO_LONG: &str = "decoded message length too large";

/// Letters that are kept of a server's text.
const MAX_TEXT: usize = 400;

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::OutOfRange if status.message().contains(TOO_LONG) => Code::ResourceExhausted,
            code => code,
        };
        Self::new(code, for_people(status.message()))
    }
}

/// A server's text in one line of bounded length: it ends up in reports and on terminals.
#[must_use]
pub fn for_people(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).take(MAX_TEXT).collect()
}

/// A service that can be asked about one snapshot.
pub trait MetadataService: Send {
    /// What a call answers with.
    type Stream: MetadataStream;

    /// Starts a call. A server may send nothing before its first range is found, so that this may take as long as the call; it
    /// may be dropped at any time.
    ///
    /// # Errors
    /// The status of the server, or of the connection.
    fn call(
        &mut self,
        call: &MetadataCall,
    ) -> impl Future<Output = Result<Self::Stream, CallError>> + Send;

    /// Throws away whatever the next call could be refused for: a token.
    fn renew(&mut self) {}
}

/// The messages of one call. Dropping it ends the call.
pub trait MetadataStream: Send {
    /// The next message; `None` where the server ended the stream without an error. May be dropped at any time.
    ///
    /// # Errors
    /// The status that ended the stream.
    fn next(&mut self) -> impl Future<Output = Result<Option<MetadataMessage>, CallError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_server_fits_a_line() {
        let error = CallError::from(Status::internal("a\nb\u{1b}[31m"));
        assert_eq!(error.to_string(), "Internal: a b [31m");
        let error = CallError::from(Status::aborted("ü".repeat(5000)));
        assert_eq!(error.message.chars().count(), MAX_TEXT);
    }

    #[test]
    fn a_message_that_is_too_long_is_not_the_end_of_a_volume() {
        let text = format!("Error, {TOO_LONG}: found 5 bytes, the limit is: 4 bytes");
        assert_eq!(
            CallError::from(Status::out_of_range(text)).code,
            Code::ResourceExhausted
        );
        let end = CallError::from(Status::out_of_range("starting_offset"));
        assert_eq!(end.code, Code::OutOfRange);
    }
}

//! The messages of both interfaces as one type: they differ in their requests only.
//!
//! Owns: the conversion, and that no error shows what the server was sent. Must not: check a number.

use csi_proto::{Status, Streaming, csi, snapshot_metadata};

use super::redact::redact;
use super::service::{BlockType, CallError, MetadataMessage, MetadataStream};

/// The longest message that is read. A range takes 14 to 24 bytes, so that a server may send forty times the ranges that it is
/// asked for before it is refused.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A stream of responses to one of the two questions.
#[derive(Debug)]
pub enum Responses<A, D> {
    /// To `GetMetadataAllocated`.
    Allocated(Streaming<A>),
    /// To `GetMetadataDelta`.
    Delta(Streaming<D>),
}

impl<A, D> Responses<A, D>
where
    A: Into<MetadataMessage> + Send + 'static,
    D: Into<MetadataMessage> + Send + 'static,
{
    /// The next message, or the error as the server put it.
    pub(super) async fn message(&mut self) -> Result<Option<MetadataMessage>, Status> {
        Ok(match self {
            Self::Allocated(stream) => stream.message().await?.map(Into::into),
            Self::Delta(stream) => stream.message().await?.map(Into::into),
        })
    }
}

/// The answer to a call that carried secrets, or a token, which its errors may repeat.
pub struct Answers<A, D> {
    pub(super) responses: Responses<A, D>,
    pub(super) secrets: Vec<String>,
}

impl<A, D> std::fmt::Debug for Answers<A, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl<A, D> MetadataStream for Answers<A, D>
where
    A: Into<MetadataMessage> + Send + 'static,
    D: Into<MetadataMessage> + Send + 'static,
{
    async fn next(&mut self) -> Result<Option<MetadataMessage>, CallError> {
        let message = self.responses.message().await;
        message.map_err(|status| without_secrets(&status, &self.secrets))
    }
}

/// Before anything is cut off the text: the beginning of a secret is one, too.
pub(super) fn without_secrets(status: &Status, secrets: &[String]) -> CallError {
    let text = redact(status.message(), secrets);
    CallError::from(Status::new(status.code(), text))
}

macro_rules! message_of {
    ($($response:ty),*) => {$(
        impl From<$response> for MetadataMessage {
            fn from(response: $response) -> Self {
                let ranges = response.block_metadata.iter();
                Self {
                    block_type: BlockType::from(response.block_metadata_type),
                    capacity: response.volume_capacity_bytes,
                    ranges: ranges.map(|range| (range.byte_offset, range.size_bytes)).collect(),
                }
            }
        }
    )*};
}

message_of!(
    csi::GetMetadataAllocatedResponse,
    csi::GetMetadataDeltaResponse,
    snapshot_metadata::GetMetadataAllocatedResponse,
    snapshot_metadata::GetMetadataDeltaResponse
);

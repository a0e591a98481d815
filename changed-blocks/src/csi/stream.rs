//! The messages of both interfaces as one type: they differ in their requests only.
//!
//! Owns: the conversion. Must not: check a number.

use csi_proto::{Status, Streaming, csi, snapshot_metadata};

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

impl<A, D> MetadataStream for Responses<A, D>
where
    A: Into<MetadataMessage> + Send + 'static,
    D: Into<MetadataMessage> + Send + 'static,
{
    async fn next(&mut self) -> Result<Option<MetadataMessage>, CallError> {
        self.message().await.map_err(CallError::from)
    }
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

//! SnapshotMetadata of `csi.v1`, on the socket of a driver.
//!
//! Owns: the form of the two calls. Must not: show a secret, or repeat a call.

use std::collections::BTreeMap;

use csi_proto::csi::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::csi::{
    GetMetadataAllocatedRequest, GetMetadataAllocatedResponse, GetMetadataDeltaRequest,
    GetMetadataDeltaResponse,
};
use csi_proto::{Channel, Status};

use super::service::{CallError, MetadataCall, MetadataQuestion, MetadataService};
use super::stream::{Answers, MAX_MESSAGE_BYTES, Responses, without_secrets};

/// What a driver says of one of its snapshots.
#[derive(Clone)]
pub struct DriverMetadata {
    client: SnapshotMetadataClient<Channel>,
    snapshot: String,
    secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for DriverMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverMetadata")
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl DriverMetadata {
    /// Asks the driver behind `channel` about the snapshot with the handle `snapshot`. `secrets` are those of the snapshotter
    /// (`csi.storage.k8s.io/snapshotter-secret-name`); empty where the driver needs none.
    #[must_use]
    pub fn new(channel: Channel, snapshot: &str, secrets: BTreeMap<String, String>) -> Self {
        Self {
            client: SnapshotMetadataClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            snapshot: snapshot.to_owned(),
            secrets,
        }
    }
}

/// The answer of a driver.
pub type DriverAnswer = Answers<GetMetadataAllocatedResponse, GetMetadataDeltaResponse>;

impl MetadataService for DriverMetadata {
    type Stream = DriverAnswer;

    // No deadline travels with a call: it would bound the whole stream, and the server would cut a long one.
    async fn call(&mut self, call: &MetadataCall) -> Result<Self::Stream, CallError> {
        let client = &mut self.client;
        let secrets: Vec<String> = self.secrets.values().cloned().collect();
        let hide = |status: Status| without_secrets(&status, &secrets);
        let responses = match &call.question {
            MetadataQuestion::Allocated => {
                let request = GetMetadataAllocatedRequest {
                    snapshot_id: self.snapshot.clone(),
                    starting_offset: call.starting_offset,
                    max_results: call.max_results,
                    secrets: self.secrets.clone(),
                };
                let response = client.get_metadata_allocated(request).await.map_err(hide)?;
                Responses::Allocated(response.into_inner())
            }
            MetadataQuestion::Delta { base } => {
                let request = GetMetadataDeltaRequest {
                    base_snapshot_id: base.clone(),
                    target_snapshot_id: self.snapshot.clone(),
                    starting_offset: call.starting_offset,
                    max_results: call.max_results,
                    secrets: self.secrets.clone(),
                };
                let response = client.get_metadata_delta(request).await.map_err(hide)?;
                Responses::Delta(response.into_inner())
            }
        };
        Ok(Answers { responses, secrets })
    }
}

//! From the Kubernetes service to the driver's, message by message.
//!
//! Owns: the two calls. Must not: look at ranges.

use std::sync::Arc;

use csi_proto::csi::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::csi::{self};
use csi_proto::snapshot_metadata::snapshot_metadata_server::SnapshotMetadata;
use csi_proto::snapshot_metadata::{
    BlockMetadata, GetMetadataAllocatedRequest, GetMetadataAllocatedResponse,
    GetMetadataDeltaRequest, GetMetadataDeltaResponse,
};
use csi_proto::{Channel, Status, Streaming};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response};

use super::gate::Gate;
use super::{Asked, Cut, Shared, lock};

/// Messages that wait for a slow caller.
const AHEAD: usize = 2;

type Answers<T> = ReceiverStream<Result<T, Status>>;

/// The service.
#[derive(Debug)]
pub(super) struct Relay {
    gate: Gate,
    channel: Channel,
    shared: Arc<Shared>,
}

impl Relay {
    pub(super) fn new(gate: Gate, channel: Channel, shared: Arc<Shared>) -> Self {
        Self {
            gate,
            channel,
            shared,
        }
    }

    async fn let_in(
        &self,
        token: &str,
        (namespace, name): (&str, &str),
        starting_offset: i64,
    ) -> Result<String, Status> {
        let handle = self.gate.handle(token, namespace, name).await;
        lock(&self.shared.asked).push(Asked {
            token: token.to_owned(),
            starting_offset,
            refused: handle.as_ref().err().map(Status::code),
        });
        handle
    }

    fn pass<F, T>(&self, from: Streaming<F>, token: String) -> Answers<T>
    where
        F: Into<Ranges> + Send + 'static,
        T: From<Ranges> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let cut = lock(&self.shared.cut).take();
        tokio::spawn(pass(from, sender, cut, token));
        ReceiverStream::new(receiver)
    }
}

async fn pass<F, T>(
    mut from: Streaming<F>,
    to: Sender<Result<T, Status>>,
    mut cut: Option<Cut>,
    token: String,
) where
    F: Into<Ranges> + Send + 'static,
    T: From<Ranges> + Send + 'static,
{
    let mut passed = 0;
    loop {
        if let Some(cut) = cut.take_if(|cut| cut.after == passed) {
            // What it waits for is another process: a thread of its own keeps the rest going.
            let hook = cut.hook;
            let done = tokio::task::spawn_blocking(move || hook(&token)).await;
            let code = done.map_or(csi_proto::Code::Internal, |()| cut.code);
            let _gone = to.send(Err(Status::new(code, "cut"))).await;
            return;
        }
        let next = match from.message().await {
            Ok(Some(message)) => Ok(T::from(message.into())),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let ends = next.is_err();
        if to.send(next).await.is_err() || ends {
            return;
        }
        passed += 1;
    }
}

/// A message of either interface.
#[derive(Debug)]
struct Ranges {
    kind: i32,
    capacity: i64,
    ranges: Vec<(i64, i64)>,
}

macro_rules! same_fields {
    ($($from:ty => $to:ty),*) => {$(
        impl From<$from> for Ranges {
            fn from(message: $from) -> Self {
                let ranges = message.block_metadata.iter();
                Self {
                    kind: message.block_metadata_type,
                    capacity: message.volume_capacity_bytes,
                    ranges: ranges.map(|range| (range.byte_offset, range.size_bytes)).collect(),
                }
            }
        }

        impl From<Ranges> for $to {
            fn from(message: Ranges) -> Self {
                let ranges = message.ranges.into_iter();
                Self {
                    block_metadata_type: message.kind,
                    volume_capacity_bytes: message.capacity,
                    block_metadata: ranges
                        .map(|(byte_offset, size_bytes)| BlockMetadata { byte_offset, size_bytes })
                        .collect(),
                }
            }
        }
    )*};
}

same_fields!(
    csi::GetMetadataAllocatedResponse => GetMetadataAllocatedResponse,
    csi::GetMetadataDeltaResponse => GetMetadataDeltaResponse
);

#[tonic::async_trait]
impl SnapshotMetadata for Relay {
    type GetMetadataAllocatedStream = Answers<GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Answers<GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let asked = request.into_inner();
        let place = (&*asked.namespace, &*asked.snapshot_name);
        let snapshot_id = self
            .let_in(&asked.security_token, place, asked.starting_offset)
            .await?;
        let request = csi::GetMetadataAllocatedRequest {
            snapshot_id,
            starting_offset: asked.starting_offset,
            max_results: asked.max_results,
            ..csi::GetMetadataAllocatedRequest::default()
        };
        let mut driver = SnapshotMetadataClient::new(self.channel.clone());
        let answer = driver.get_metadata_allocated(request).await?;
        Ok(Response::new(
            self.pass(answer.into_inner(), asked.security_token),
        ))
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let asked = request.into_inner();
        if asked.base_snapshot_id.is_empty() {
            return Err(Status::invalid_argument("the base is missing"));
        }
        let place = (&*asked.namespace, &*asked.target_snapshot_name);
        let target_snapshot_id = self
            .let_in(&asked.security_token, place, asked.starting_offset)
            .await?;
        let request = csi::GetMetadataDeltaRequest {
            base_snapshot_id: asked.base_snapshot_id,
            target_snapshot_id,
            starting_offset: asked.starting_offset,
            max_results: asked.max_results,
            ..csi::GetMetadataDeltaRequest::default()
        };
        let mut driver = SnapshotMetadataClient::new(self.channel.clone());
        let answer = driver.get_metadata_delta(request).await?;
        Ok(Response::new(
            self.pass(answer.into_inner(), asked.security_token),
        ))
    }
}

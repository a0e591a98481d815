//! Blocking calls to a CSI driver, for tests that prepare volumes or look at what a backup left.
//!
//! Owns: filling in requests. Must not: repeat, forgive or clean up anything; that is what is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use csi_proto::csi::controller_client::ControllerClient;
use csi_proto::csi::node_client::NodeClient;
use csi_proto::csi::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::csi::volume_capability::access_mode::Mode;
use csi_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use csi_proto::csi::volume_content_source::{SnapshotSource, Type};
use csi_proto::csi::{
    BlockMetadata, CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
    GetMetadataAllocatedRequest, GetMetadataAllocatedResponse, GetMetadataDeltaRequest,
    GetMetadataDeltaResponse, ListSnapshotsRequest, ListVolumesRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Snapshot, Volume,
    VolumeCapability, VolumeContentSource,
};
use csi_proto::{Channel, Status};
use tokio::runtime::Runtime;
use tonic::{Request, Streaming};

/// No test waits longer for a driver on the same machine.
const LIMIT: Duration = Duration::from_secs(30);

/// One message of a metadata stream, of either call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the block type.
    pub kind: i32,
    /// Size of the volume in bytes.
    pub capacity: i64,
    /// Offset and size of each range, in bytes, as they were sent.
    pub ranges: Vec<(i64, i64)>,
}

/// What came of a stream: the messages, and how it ended.
pub type Stream = (Vec<Message>, Result<(), Status>);

/// A connection with a runtime of its own.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

/// Raw block, for one writer.
#[must_use]
pub fn block() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

/// A mounted file system, for one writer.
#[must_use]
pub fn mount(fs_type: &str) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            ..MountVolume::default()
        })),
        ..block()
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LIMIT);
    request
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Where nothing listens.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let channel = runtime.block_on(csi_proto::connect::unix(socket))?;
        Ok(Self { runtime, channel })
    }

    /// The channel, for calls that have no method here.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Runs a call to its end.
    pub fn run<F: Future>(&self, call: F) -> F::Output {
        self.runtime.block_on(call)
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel())
    }

    /// A raw block volume of `size` bytes, empty or from a snapshot.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn create_volume(&self, name: &str, size: u64, snapshot: Option<&str>) -> Result<Volume> {
        self.create_volume_for(name, size, snapshot, block())
    }

    /// As [`Client::create_volume`], for another kind of access.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn create_volume_for(
        &self,
        name: &str,
        size: u64,
        snapshot: Option<&str>,
        capability: VolumeCapability,
    ) -> Result<Volume> {
        let source = snapshot.map(|id| VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.to_owned(),
            })),
        });
        let message = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: i64::try_from(size)?,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability],
            volume_content_source: source,
            ..CreateVolumeRequest::default()
        };
        let answer = self.run(self.controller().create_volume(request(message)))?;
        answer.into_inner().volume.context("a volume was made")
    }

    /// Deletes a volume.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn delete_volume(&self, id: &str) -> Result<(), Status> {
        let message = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..DeleteVolumeRequest::default()
        };
        self.run(self.controller().delete_volume(request(message)))
            .map(drop)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn create_snapshot(&self, name: &str, volume: &str) -> Result<Snapshot> {
        let message = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let answer = self.run(self.controller().create_snapshot(request(message)))?;
        answer.into_inner().snapshot.context("a snapshot was made")
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let message = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        self.run(self.controller().delete_snapshot(request(message)))
            .map(drop)
    }

    /// Handles of all volumes.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn volumes(&self) -> Result<BTreeSet<String>, Status> {
        let answer = self.run(
            self.controller()
                .list_volumes(request(ListVolumesRequest::default())),
        )?;
        let volumes = answer
            .into_inner()
            .entries
            .into_iter()
            .filter_map(|entry| entry.volume);
        Ok(volumes.map(|volume| volume.volume_id).collect())
    }

    /// Handles of all snapshots, from every page.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn snapshots(&self) -> Result<BTreeSet<String>, Status> {
        let mut all = BTreeSet::new();
        let mut message = ListSnapshotsRequest::default();
        loop {
            let answer = self.run(self.controller().list_snapshots(request(message)))?;
            let answer = answer.into_inner();
            let snapshots = answer
                .entries
                .into_iter()
                .filter_map(|entry| entry.snapshot);
            all.extend(snapshots.map(|snapshot| snapshot.snapshot_id));
            if answer.next_token.is_empty() {
                return Ok(all);
            }
            message = ListSnapshotsRequest {
                starting_token: answer.next_token,
                ..ListSnapshotsRequest::default()
            };
        }
    }

    /// Makes a volume available to a node; gives the context for the calls of that node.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn controller_publish(
        &self,
        volume: &Volume,
        node: &str,
    ) -> Result<BTreeMap<String, String>, Status> {
        let message = ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node.to_owned(),
            volume_capability: Some(block()),
            volume_context: volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let answer = self.run(
            self.controller()
                .controller_publish_volume(request(message)),
        )?;
        Ok(answer.into_inner().publish_context)
    }

    /// Takes a volume from a node.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn controller_unpublish(&self, volume: &str, node: &str) -> Result<(), Status> {
        let message = ControllerUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.to_owned(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.run(
            self.controller()
                .controller_unpublish_volume(request(message)),
        )
        .map(drop)
    }

    /// NodeStageVolume with a request that is written out.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn stage(&self, message: NodeStageVolumeRequest) -> Result<(), Status> {
        self.run(self.node().node_stage_volume(request(message)))
            .map(drop)
    }

    /// NodePublishVolume with a request that is written out.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn publish(&self, message: NodePublishVolumeRequest) -> Result<(), Status> {
        self.run(self.node().node_publish_volume(request(message)))
            .map(drop)
    }

    /// NodeUnpublishVolume.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn unpublish(&self, volume: &str, target: &Path) -> Result<(), Status> {
        let message = NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: target.display().to_string(),
        };
        self.run(self.node().node_unpublish_volume(request(message)))
            .map(drop)
    }

    /// NodeUnstageVolume.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn unstage(&self, volume: &str, staging: &Path) -> Result<(), Status> {
        let message = NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging.display().to_string(),
        };
        self.run(self.node().node_unstage_volume(request(message)))
            .map(drop)
    }

    /// GetMetadataAllocated, read to its end.
    pub fn allocated(&self, snapshot: &str, offset: i64, max_results: i32) -> Stream {
        let message = GetMetadataAllocatedRequest {
            snapshot_id: snapshot.to_owned(),
            starting_offset: offset,
            max_results,
            ..GetMetadataAllocatedRequest::default()
        };
        let mut client = SnapshotMetadataClient::new(self.channel());
        self.run(async {
            match client.get_metadata_allocated(message).await {
                Ok(answer) => collect(answer.into_inner()).await,
                Err(status) => (Vec::new(), Err(status)),
            }
        })
    }

    /// GetMetadataDelta, read to its end.
    pub fn delta(&self, base: &str, target: &str, offset: i64, max_results: i32) -> Stream {
        let message = GetMetadataDeltaRequest {
            base_snapshot_id: base.to_owned(),
            target_snapshot_id: target.to_owned(),
            starting_offset: offset,
            max_results,
            ..GetMetadataDeltaRequest::default()
        };
        let mut client = SnapshotMetadataClient::new(self.channel());
        self.run(async {
            match client.get_metadata_delta(message).await {
                Ok(answer) => collect(answer.into_inner()).await,
                Err(status) => (Vec::new(), Err(status)),
            }
        })
    }
}

async fn collect<T: Into<Message>>(mut stream: Streaming<T>) -> Stream {
    let mut messages = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message.into()),
            Ok(None) => return (messages, Ok(())),
            Err(status) => return (messages, Err(status)),
        }
    }
}

fn pairs(ranges: &[BlockMetadata]) -> Vec<(i64, i64)> {
    ranges
        .iter()
        .map(|range| (range.byte_offset, range.size_bytes))
        .collect()
}

impl From<GetMetadataAllocatedResponse> for Message {
    fn from(message: GetMetadataAllocatedResponse) -> Self {
        Self {
            kind: message.block_metadata_type,
            capacity: message.volume_capacity_bytes,
            ranges: pairs(&message.block_metadata),
        }
    }
}

impl From<GetMetadataDeltaResponse> for Message {
    fn from(message: GetMetadataDeltaResponse) -> Self {
        Self {
            kind: message.block_metadata_type,
            capacity: message.volume_capacity_bytes,
            ranges: pairs(&message.block_metadata),
        }
    }
}

//! One driver: the connection, what it can do, and the calls with their words.
//!
//! Owns: requests and what of an answer is believed. Must not: know the order of the calls, or write the journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use csi_proto::csi::{self, controller_client, identity_client, node_client};
use csi_proto::{Channel, Request, connect};

use super::answer::Rpc;
use super::call::{CallError, Caller, answered, incomplete};
use super::options::CsiOptions;
use super::profile::Profile;
use super::runtime::ControlPlane;
use super::secrets::Group;
use super::state::{WantedSnapshot, WantedVolume};
use super::timing::Timing;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

type Answer<T> = std::result::Result<T, CallError>;

/// What a driver can do, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It has a controller.
    pub controller: bool,
    /// It cares where volumes are made.
    pub topology: bool,
    /// It tells what changed between snapshots.
    pub snapshot_metadata: bool,
    /// It takes snapshots of several volumes at one moment.
    pub group_snapshots: bool,
    /// It makes volumes.
    pub volumes: bool,
    /// It makes snapshots, and volumes of them.
    pub snapshots: bool,
    /// Volumes are attached before they are staged.
    pub attach: bool,
    /// They can be attached for reading only.
    pub attach_readonly: bool,
    /// Volumes are staged before their device appears.
    pub stage: bool,
    /// It tells volumes that one pod, or several, may write.
    pub multi_writer: bool,
}

/// A driver that answers.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// Where this node is, where the driver cares.
    pub topology: Option<BTreeMap<String, String>>,
    /// What it can do.
    pub abilities: Abilities,
    /// What is known of it beside that.
    pub profile: Profile,
    /// Its socket, as a path that does not depend on the working directory.
    pub socket: PathBuf,
    controller: Channel,
    node_channel: Channel,
    caller: Caller,
}

/// What a driver says of a volume that it made.
#[derive(Clone, Debug)]
pub struct MadeVolume {
    /// What it calls it.
    pub id: String,
    /// Bytes; 0 where it does not say.
    pub bytes: i64,
    context: BTreeMap<String, String>,
    publish: BTreeMap<String, String>,
}

/// What a driver says of a snapshot.
#[derive(Clone, Debug)]
pub struct MadeSnapshot {
    /// What it calls it.
    pub id: String,
    /// Bytes of a volume made from it; 0 where it does not say.
    pub bytes: i64,
    /// Whether volumes can be made from it.
    pub ready: bool,
}

impl Driver {
    /// Connects, and asks what there is to know.
    ///
    /// # Errors
    /// `Unavailable` where nobody answers, or only somebody who is not ready; what the driver answers.
    pub fn connect(options: &CsiOptions) -> Result<Self> {
        let runtime = ControlPlane::start()?;
        let socket = std::path::absolute(&options.socket).unwrap_or(options.socket.clone());
        let controller = open(&runtime, &socket)?;
        let node_channel = match &options.node_socket {
            Some(socket) => open(&runtime, socket)?,
            None => controller.clone(),
        };
        let caller = Caller {
            runtime,
            secrets: options.secrets.clone(),
            deadlines: options.deadlines,
            timing: Timing::default(),
            driver: socket.display().to_string(),
        };
        let mut driver = Self {
            name: String::new(),
            version: String::new(),
            node: String::new(),
            topology: None,
            abilities: Abilities::default(),
            profile: Profile::of(""),
            socket,
            controller,
            node_channel,
            caller,
        };
        driver.probe()?;
        driver.ask_names()?;
        driver.ask_abilities()?;
        Ok(driver)
    }

    /// The clock of this run.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.caller.timing
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn channel(&self) -> Channel {
        self.controller.clone()
    }

    fn probe(&self) -> Result<()> {
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let answer = self.caller.call(Rpc::Probe, &self.caller.driver, None, || {
            let mut client = client.clone();
            async move { client.probe(csi::ProbeRequest {}).await }
        });
        match answered(Rpc::Probe, &self.caller.driver, answer)?.ready {
            Some(false) => Err(Error::new(ErrorKind::Unavailable, "the driver is not ready yet")
                .object(self.socket.display())
                .hint("run again when it is; its log tells what it waits for")),
            _ => Ok(()),
        }
    }

    fn ask_names(&mut self) -> Result<()> {
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let answer = self
            .caller
            .call(Rpc::GetPluginInfo, &self.caller.driver, None, || {
                let mut client = client.clone();
                async move { client.get_plugin_info(csi::GetPluginInfoRequest {}).await }
            });
        let info = answered(Rpc::GetPluginInfo, &self.caller.driver, answer)?;
        if info.name.is_empty() {
            return Err(incomplete(Rpc::GetPluginInfo, &self.caller.driver, "name"));
        }
        self.caller.driver.clone_from(&info.name);
        self.profile = Profile::of(&info.name);
        (self.name, self.version) = (info.name, info.vendor_version);
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeGetInfo, &self.name, None, || {
            let mut client = client.clone();
            async move { client.node_get_info(csi::NodeGetInfoRequest {}).await }
        });
        let node = answered(Rpc::NodeGetInfo, &self.name, answer).map_err(|error| {
            error.hint("where the node part of the driver has a socket of its own, give it with --csi-node-socket")
        })?;
        self.node = node.node_id;
        self.topology = node.accessible_topology.map(|place| place.segments);
        Ok(())
    }

    fn ask_abilities(&mut self) -> Result<()> {
        let driver = self.name.clone();
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let rpc = Rpc::GetPluginCapabilities;
        let answer = self.caller.call(rpc, &driver, None, || {
            let mut client = client.clone();
            async move {
                let request = csi::GetPluginCapabilitiesRequest {};
                client.get_plugin_capabilities(request).await
            }
        });
        let plugin = answered(rpc, &driver, answer)?;
        self.abilities.take_plugin(&plugin);
        if self.abilities.controller {
            let rpc = Rpc::ControllerGetCapabilities;
            let client = self.controller_client();
            let answer = self.caller.call(rpc, &driver, None, || {
                let mut client = client.clone();
                async move {
                    let request = csi::ControllerGetCapabilitiesRequest {};
                    client.controller_get_capabilities(request).await
                }
            });
            let controller = answered(rpc, &driver, answer)?;
            self.abilities.take_controller(&controller);
        }
        let rpc = Rpc::NodeGetCapabilities;
        let client = self.node_client();
        let answer = self.caller.call(rpc, &driver, None, || {
            let mut client = client.clone();
            async move {
                let request = csi::NodeGetCapabilitiesRequest {};
                client.node_get_capabilities(request).await
            }
        });
        let node = answered(rpc, &driver, answer)?;
        self.abilities.take_node(&node);
        Ok(())
    }

    fn controller_client(&self) -> controller_client::ControllerClient<Channel> {
        controller_client::ControllerClient::new(self.controller.clone())
    }

    fn node_client(&self) -> node_client::NodeClient<Channel> {
        node_client::NodeClient::new(self.node_channel.clone())
    }

    /// One attempt at a request: the driver learns how long we wait.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.caller.deadlines.call);
        request
    }

    /// How a volume is used: as a block device, on one node. The mode is the one that Kubernetes asks for ReadWriteOnce.
    fn capability(&self) -> csi::VolumeCapability {
        use csi::volume_capability::{AccessMode, AccessType, BlockVolume, access_mode::Mode};
        let mode = if self.abilities.multi_writer {
            Mode::SingleNodeMultiWriter
        } else {
            Mode::SingleNodeWriter
        };
        csi::VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    pub(super) fn create_snapshot(
        &self,
        wanted: &WantedSnapshot,
        stop: Option<&StopFlag>,
    ) -> Answer<MadeSnapshot> {
        let rpc = Rpc::CreateSnapshot;
        let message = csi::CreateSnapshotRequest {
            source_volume_id: wanted.volume.clone(),
            name: wanted.name.clone(),
            secrets: self.caller.secrets.of(Group::Snapshotter),
            parameters: wanted.parameters.clone(),
        };
        let client = self.controller_client();
        let answer = self.caller.call(rpc, &wanted.volume, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.create_snapshot(request).await }
        })?;
        let snapshot = answer.and_then(|answer| answer.snapshot);
        let snapshot = snapshot.filter(|snapshot| !snapshot.snapshot_id.is_empty());
        let snapshot = snapshot.ok_or_else(|| self.unclear(rpc, "snapshot"))?;
        if !snapshot.source_volume_id.is_empty() && snapshot.source_volume_id != wanted.volume {
            tracing::warn!(
                snapshot.source_volume_id,
                "the driver names another volume as the source of the snapshot"
            );
        }
        Ok(MadeSnapshot {
            id: snapshot.snapshot_id,
            bytes: snapshot.size_bytes.max(0),
            ready: snapshot.ready_to_use,
        })
    }

    pub(super) fn delete_snapshot(&self, id: &str) -> Answer<()> {
        let message = csi::DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            secrets: self.caller.secrets.of(Group::Snapshotter),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::DeleteSnapshot, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.delete_snapshot(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn create_volume(
        &self,
        wanted: &WantedVolume,
        stop: Option<&StopFlag>,
    ) -> Answer<MadeVolume> {
        use csi::volume_content_source::{SnapshotSource, Type};
        let rpc = Rpc::CreateVolume;
        let source = wanted.snapshot.as_ref().map(|id| csi::VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.clone(),
            })),
        });
        let range = csi::CapacityRange {
            required_bytes: wanted.bytes,
            limit_bytes: 0,
        };
        let place = wanted.topology.as_ref().map(|segments| csi::Topology {
            segments: segments.clone(),
        });
        let message = csi::CreateVolumeRequest {
            name: wanted.name.clone(),
            capacity_range: (wanted.bytes > 0).then_some(range),
            volume_capabilities: Vec::from([self.capability()]),
            parameters: wanted.parameters.clone(),
            secrets: self.caller.secrets.of(Group::Provisioner),
            volume_content_source: source,
            accessibility_requirements: place.map(|place| csi::TopologyRequirement {
                requisite: Vec::from([place.clone()]),
                preferred: Vec::from([place]),
            }),
            mutable_parameters: BTreeMap::new(),
        };
        let client = self.controller_client();
        let object = wanted.snapshot.as_deref().unwrap_or(&wanted.name);
        let answer = self.caller.call(rpc, object, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.create_volume(request).await }
        })?;
        let volume = answer.and_then(|answer| answer.volume);
        let volume = volume.filter(|volume| !volume.volume_id.is_empty());
        let volume = volume.ok_or_else(|| self.unclear(rpc, "volume"))?;
        Ok(MadeVolume {
            id: volume.volume_id,
            bytes: volume.capacity_bytes.max(0),
            context: volume.volume_context,
            publish: BTreeMap::new(),
        })
    }

    pub(super) fn delete_volume(&self, id: &str) -> Answer<()> {
        let message = csi::DeleteVolumeRequest {
            volume_id: id.to_owned(),
            secrets: self.caller.secrets.of(Group::Provisioner),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::DeleteVolume, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.delete_volume(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn attach(
        &self,
        volume: &mut MadeVolume,
        readonly: bool,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let rpc = Rpc::ControllerPublish;
        let message = csi::ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(self.capability()),
            readonly: readonly && self.abilities.attach_readonly,
            secrets: self.caller.secrets.of(Group::ControllerPublish),
            volume_context: volume.context.clone(),
        };
        let client = self.controller_client();
        let answer = self.caller.call(rpc, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.controller_publish_volume(request).await }
        })?;
        volume.publish = answer
            .map(|answer| answer.publish_context)
            .unwrap_or_default();
        Ok(())
    }

    pub(super) fn detach(&self, id: &str, node: &str) -> Answer<()> {
        let message = csi::ControllerUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: node.to_owned(),
            secrets: self.caller.secrets.of(Group::ControllerPublish),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::ControllerUnpublish, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.controller_unpublish_volume(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn stage(
        &self,
        volume: &MadeVolume,
        path: &Path,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let message = csi::NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish.clone(),
            staging_target_path: path.display().to_string(),
            volume_capability: Some(self.capability()),
            secrets: self.caller.secrets.of(Group::NodeStage),
            volume_context: volume.context.clone(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeStage, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_stage_volume(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn unstage(&self, id: &str, path: &Path) -> Answer<()> {
        let message = csi::NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: path.display().to_string(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeUnstage, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_unstage_volume(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn publish(
        &self,
        volume: &MadeVolume,
        (staged, path): (Option<&Path>, &Path),
        readonly: bool,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let message = csi::NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish.clone(),
            staging_target_path: staged
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            target_path: path.display().to_string(),
            volume_capability: Some(self.capability()),
            readonly,
            secrets: self.caller.secrets.of(Group::NodePublish),
            volume_context: volume.context.clone(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodePublish, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_publish_volume(request).await }
        });
        answer.map(drop)
    }

    pub(super) fn unpublish(&self, id: &str, path: &Path) -> Answer<()> {
        let message = csi::NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: path.display().to_string(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeUnpublish, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_unpublish_volume(request).await }
        });
        answer.map(drop)
    }

    /// Something was made, and nobody knows what it is called.
    fn unclear(&self, rpc: Rpc, what: &str) -> CallError {
        CallError {
            error: incomplete(rpc, &self.name, what),
            outcome: super::answer::Outcome::Unknown,
            code: None,
        }
    }
}

fn open(runtime: &ControlPlane, socket: &Path) -> Result<Channel> {
    let connected = runtime.wait(connect::unix(socket));
    connected.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "connect to the driver")
            .object(socket.display())
            .hint("--csi-socket names the socket of a driver that runs on this node, e.g. /var/lib/kubelet/plugins/NAME/csi.sock")
            .source(error)
    })
}

impl Abilities {
    fn take_plugin(&mut self, answer: &csi::GetPluginCapabilitiesResponse) {
        use csi::plugin_capability::{Type, service};
        for capability in &answer.capabilities {
            let Some(Type::Service(service)) = &capability.r#type else {
                continue;
            };
            match service.r#type() {
                service::Type::ControllerService => self.controller = true,
                service::Type::VolumeAccessibilityConstraints => self.topology = true,
                service::Type::GroupControllerService => self.group_snapshots = true,
                service::Type::SnapshotMetadataService => self.snapshot_metadata = true,
                service::Type::Unknown => {}
            }
        }
    }

    fn take_controller(&mut self, answer: &csi::ControllerGetCapabilitiesResponse) {
        use csi::controller_service_capability::{Type, rpc};
        for capability in &answer.capabilities {
            let Some(Type::Rpc(rpc)) = &capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                rpc::Type::CreateDeleteVolume => self.volumes = true,
                rpc::Type::CreateDeleteSnapshot => self.snapshots = true,
                rpc::Type::PublishUnpublishVolume => self.attach = true,
                rpc::Type::PublishReadonly => self.attach_readonly = true,
                rpc::Type::SingleNodeMultiWriter => self.multi_writer = true,
                _ => {}
            }
        }
    }

    fn take_node(&mut self, answer: &csi::NodeGetCapabilitiesResponse) {
        use csi::node_service_capability::{Type, rpc};
        for capability in &answer.capabilities {
            let Some(Type::Rpc(rpc)) = &capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                rpc::Type::StageUnstageVolume => self.stage = true,
                rpc::Type::SingleNodeMultiWriter => self.multi_writer = true,
                _ => {}
            }
        }
    }
}

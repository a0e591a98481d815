//! A claim of a pod as a device or folder of this machine.
//!
//! Owns: the node calls and their paths. Must not: attach to the node: the attach/detach controller does, where the driver asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use csi_proto::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest, VolumeCapability};
use csi_proto::{Code, Status};
use serde_json::Value;

use super::NodeOptions;
use crate::cluster::api::{Api, in_namespace};
use crate::csi::client::{Client, block, mount};

/// What the kubelet asks a driver for.
#[derive(Debug)]
struct Source {
    volume: String,
    handle: String,
    capability: VolumeCapability,
    context: BTreeMap<String, String>,
    publish_context: BTreeMap<String, String>,
    read_only: bool,
}

/// A staged and published volume of one pod.
#[derive(Debug)]
pub(super) struct PodVolume {
    client: Client,
    handle: String,
    folder: PathBuf,
    target: PathBuf,
}

impl PodVolume {
    /// Attaches the claim for a pod. Every step may have been done by an earlier try.
    pub(super) fn attach(
        api: &Api,
        options: &NodeOptions,
        namespace: &str,
        claim: &str,
        pod_uid: &str,
    ) -> Result<Self> {
        let source = source(api, options, namespace, claim)?;
        let folder = options.kubelet.join("volumes").join(&source.volume);
        let staging = folder.join("staging");
        std::fs::create_dir_all(&staging)?;
        let volume = Self {
            client: Client::connect(&options.socket)?,
            handle: source.handle.clone(),
            target: folder.join(pod_uid),
            folder,
        };
        if let Err(error) = volume.publish(&source, &staging) {
            // A pod that never runs holds nothing; the next look tries again.
            let _ = volume.detach();
            return Err(error);
        }
        Ok(volume)
    }

    /// The device, or the folder.
    pub(super) fn path(&self) -> &Path {
        &self.target
    }

    fn publish(&self, source: &Source, staging: &Path) -> Result<()> {
        let staging = staging.display().to_string();
        let staged = self.client.stage(NodeStageVolumeRequest {
            volume_id: source.handle.clone(),
            publish_context: source.publish_context.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(source.capability.clone()),
            volume_context: source.context.clone(),
            ..NodeStageVolumeRequest::default()
        });
        implemented(staged).context("NodeStageVolume")?;
        self.client
            .publish(NodePublishVolumeRequest {
                volume_id: source.handle.clone(),
                publish_context: source.publish_context.clone(),
                staging_target_path: staging,
                target_path: self.target.display().to_string(),
                volume_capability: Some(source.capability.clone()),
                volume_context: source.context.clone(),
                readonly: source.read_only,
                ..NodePublishVolumeRequest::default()
            })
            .context("NodePublishVolume")
    }

    /// Unpublishes, and unstages where no other pod has the volume. May be repeated.
    pub(super) fn detach(&self) -> Result<()> {
        known(self.client.unpublish(&self.handle, &self.target)).context("NodeUnpublishVolume")?;
        let staging = self.folder.join("staging");
        if self.others(&staging) {
            return Ok(());
        }
        known(implemented(self.client.unstage(&self.handle, &staging)))
            .context("NodeUnstageVolume")?;
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn others(&self, staging: &Path) -> bool {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        entries.flatten().any(|entry| {
            let path = entry.path();
            path != staging && path != self.target
        })
    }
}

/// Drivers without staging have no such call.
fn implemented(answer: Result<(), Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        answer => answer,
    }
}

/// A volume that is gone holds nothing.
fn known(answer: Result<(), Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        answer => answer,
    }
}

fn source(api: &Api, options: &NodeOptions, namespace: &str, claim: &str) -> Result<Source> {
    let claims = in_namespace("/api/v1", namespace, "persistentvolumeclaims");
    let claim = api
        .get(&format!("{claims}/{claim}"))?
        .with_context(|| format!("the claim {claim} does not exist"))?;
    let name = claim["spec"]["volumeName"]
        .as_str()
        .filter(|_| claim["status"]["phase"] == "Bound")
        .context("the claim is not bound")?;
    let volume = api
        .get(&format!("/api/v1/persistentvolumes/{name}"))?
        .context("the volume of the claim does not exist")?;
    let csi = &volume["spec"]["csi"];
    if csi["driver"] != options.driver.as_str() {
        bail!("the node has no driver for {csi}");
    }
    let capability = match volume["spec"]["volumeMode"].as_str() {
        Some("Block") => block(),
        _ => mount(csi["fsType"].as_str().unwrap_or("ext4")),
    };
    Ok(Source {
        volume: name.to_owned(),
        handle: csi["volumeHandle"].as_str().context("a handle")?.to_owned(),
        capability,
        context: strings(&csi["volumeAttributes"]),
        publish_context: publish_context(api, options, name)?,
        read_only: csi["readOnly"] == true,
    })
}

/// What the driver answered when the volume was attached; nothing where it need not be.
fn publish_context(
    api: &Api,
    options: &NodeOptions,
    volume: &str,
) -> Result<BTreeMap<String, String>> {
    let path = format!("/apis/storage.k8s.io/v1/csidrivers/{}", options.driver);
    let driver = api.get(&path)?;
    if driver.is_some_and(|driver| driver["spec"]["attachRequired"] == false) {
        return Ok(BTreeMap::new());
    }
    let attachments = api.list("/apis/storage.k8s.io/v1/volumeattachments")?;
    let attachment = attachments.iter().find(|attachment| {
        let spec = &attachment["spec"];
        spec["nodeName"] == options.name.as_str()
            && spec["source"]["persistentVolumeName"] == volume
            && attachment["status"]["attached"] == true
            && attachment["metadata"]["deletionTimestamp"].is_null()
    });
    let attachment = attachment.context("the volume is not attached yet")?;
    Ok(strings(&attachment["status"]["attachmentMetadata"]))
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

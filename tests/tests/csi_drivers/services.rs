//! What the driver of our own has beside the calls of a backup: registration, groups, file systems, expansion, no staging.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use csi_proto::Code;
use csi_proto::csi::controller_client::ControllerClient;
use csi_proto::csi::group_controller_client::GroupControllerClient;
use csi_proto::csi::node_client::NodeClient;
use csi_proto::csi::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeGroupSnapshotRequest,
    DeleteVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotRequest, NodeExpandVolumeRequest,
    NodeGetCapabilitiesRequest, NodePublishVolumeRequest,
};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::{Client, block, mount};
use tests::csi_driver::pluginregistration::registration_client::RegistrationClient;
use tests::csi_driver::pluginregistration::{InfoRequest, RegistrationStatus};
use tests::image::MIB;
use tests::scratch::Scratch;
use tests::test_driver::TestDriver;

/// A kubelet learns the name and the socket, and says that it is content.
pub(crate) fn registration() -> Result<()> {
    let folder = Scratch::new("registry")?;
    let socket = folder.join("driver-reg.sock");
    let driver = TestDriver::start(|options| options.registration = Some(socket.clone()))?;
    let kubelet = Client::connect(&socket)?;
    kubelet.run(async {
        let mut registration = RegistrationClient::new(kubelet.channel());
        let info = registration.get_info(InfoRequest {}).await?.into_inner();
        ensure!(info.r#type == "CSIPlugin" && info.name == "csi.test.snaphaul.dev");
        ensure!(
            info.endpoint == driver.socket().display().to_string()
                && info.supported_versions == ["1.0.0"]
        );
        registration
            .notify_registration_status(RegistrationStatus {
                plugin_registered: true,
                error: String::new(),
            })
            .await?;
        Ok(())
    })?;
    ensure!(
        driver
            .calls()?
            .iter()
            .any(|call| call.call == "NotifyRegistrationStatus")
    );
    Ok(())
}

/// Snapshots of two volumes under one name; none of them can be deleted alone.
pub(crate) fn groups() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    let volumes: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| Ok(client.create_volume(name, MIB, None)?.volume_id))
        .collect::<Result<_>>()?;
    let group = client.run(async {
        let mut groups = GroupControllerClient::new(client.channel());
        let request = CreateVolumeGroupSnapshotRequest {
            name: "g".to_owned(),
            source_volume_ids: volumes,
            ..Default::default()
        };
        let first = groups
            .create_volume_group_snapshot(request.clone())
            .await?
            .into_inner()
            .group_snapshot;
        let again = groups
            .create_volume_group_snapshot(request)
            .await?
            .into_inner()
            .group_snapshot;
        ensure!(first == again, "the same name gives the same group");
        let group = first.context("a group was made")?;
        let request = GetVolumeGroupSnapshotRequest {
            group_snapshot_id: group.group_snapshot_id.clone(),
            ..Default::default()
        };
        ensure!(
            groups
                .get_volume_group_snapshot(request)
                .await?
                .into_inner()
                .group_snapshot
                == again
        );
        Ok(group)
    })?;
    ensure!(group.snapshots.len() == 2 && client.snapshots()?.len() == 2);
    let alone = client.delete_snapshot(&group.snapshots[0].snapshot_id);
    ensure!(alone.is_err_and(|status| status.code() == Code::InvalidArgument));
    client.run(async {
        let snapshot_ids = group
            .snapshots
            .iter()
            .map(|snapshot| snapshot.snapshot_id.clone())
            .collect();
        let request = DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: group.group_snapshot_id,
            snapshot_ids,
            ..Default::default()
        };
        GroupControllerClient::new(client.channel())
            .delete_volume_group_snapshot(request)
            .await
    })?;
    ensure!(client.snapshots()?.is_empty());
    Ok(())
}

/// Small for a disk, and the least that XFS takes. (ext4 grows only for a caller with CAP_SYS_RESOURCE.)
const XFS_SIZE: u64 = 304 * MIB;

/// A file of a mounted volume is found again in a volume from its snapshot, mounted and as raw block; both can grow.
pub(crate) fn one_image_block_and_mounted() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    let before = driver.leaks()?;
    let xfs = mount("xfs");
    let source = client.create_volume_for("source", XFS_SIZE, None, xfs.clone())?;
    let mounted = Attached::new(&driver, "source", &source, &xfs, BTreeMap::new())?;
    let written = vec![b'w'; 4096];
    std::fs::write(mounted.path().join("file"), &written)?;
    let snapshot = client.create_snapshot("s", &source.volume_id)?.snapshot_id;
    let copy = client.create_volume("copy", XFS_SIZE, Some(&snapshot))?;
    let raw = Attached::block(&driver, "copy", &copy)?;
    ensure!(has_block(raw.path(), &written)?, "the block device has it");
    raw.detach()?;
    let again = Attached::new(&driver, "copy", &copy, &xfs, BTreeMap::new())?;
    ensure!(std::fs::read(again.path().join("file"))? == written);
    let size = nix::sys::statvfs::statvfs(again.path())?.blocks();
    grow(&client, &copy.volume_id, &again)?;
    ensure!(
        nix::sys::statvfs::statvfs(again.path())?.blocks() > size,
        "the file system grows"
    );
    again.detach()?;
    mounted.detach()?;
    client.delete_volume(&copy.volume_id)?;
    client.delete_snapshot(&snapshot)?;
    client.delete_volume(&source.volume_id)?;
    let left = driver.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn has_block(device: &Path, block: &[u8]) -> Result<bool> {
    let mut device = std::fs::File::open(device)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match device.read(&mut buffer)? {
            0 => return Ok(false),
            count
                if buffer[..count]
                    .chunks(block.len())
                    .any(|found| found == block) =>
            {
                return Ok(true);
            }
            _ => {}
        }
    }
}

fn grow(client: &Client, volume: &str, attached: &Attached) -> Result<()> {
    let capacity_range = Some(CapacityRange {
        required_bytes: i64::try_from(2 * XFS_SIZE)?,
        limit_bytes: 0,
    });
    let request = ControllerExpandVolumeRequest {
        volume_id: volume.to_owned(),
        capacity_range,
        ..Default::default()
    };
    client.run(ControllerClient::new(client.channel()).controller_expand_volume(request))?;
    let volume_path = attached.path().display().to_string();
    let request = NodeExpandVolumeRequest {
        volume_id: volume.to_owned(),
        volume_path,
        capacity_range,
        ..Default::default()
    };
    client.run(NodeClient::new(client.channel()).node_expand_volume(request))?;
    Ok(())
}

/// A driver without STAGE_UNSTAGE_VOLUME attaches and detaches with the target alone.
pub(crate) fn without_staging() -> Result<()> {
    let driver = TestDriver::start(|options| (options.stage, options.metadata) = (false, false))?;
    let client = driver.client()?;
    let capabilities = client.run(
        NodeClient::new(client.channel()).node_get_capabilities(NodeGetCapabilitiesRequest {}),
    )?;
    ensure!(!format!("{:?}", capabilities.into_inner()).contains("StageUnstage"));
    let volume = client.create_volume("one", MIB, None)?;
    let before = driver.leaks()?;
    let target = driver.kubelet().join("target");
    client.publish(NodePublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        target_path: target.display().to_string(),
        volume_capability: Some(block()),
        ..NodePublishVolumeRequest::default()
    })?;
    ensure!(std::fs::read(&target)?.len() == usize::try_from(MIB)?);
    client.unpublish(&volume.volume_id, &target)?;
    let left = driver.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    let metadata = client.allocated("any", 0, 0).1;
    ensure!(metadata.is_err_and(|status| status.code() == Code::Unimplemented));
    Ok(())
}

//! No secret in what `Debug` prints: of any message that has one.

use std::collections::BTreeMap;

use csi_proto::csi;
use csi_proto::snapshot_metadata as kubernetes;

const SECRET: &str = "k9-never-in-a-log";

fn secrets() -> BTreeMap<String, String> {
    BTreeMap::from([("userKey".to_owned(), SECRET.to_owned())])
}

/// A message of each type, made with its secret and nothing else.
macro_rules! with_secrets {
    ($($message:ident),*) => {
        vec![$(format!("{:?}", csi::$message { secrets: secrets(), ..Default::default() })),*]
    };
}

#[test]
fn a_secret_is_never_printed() {
    let mut printed = with_secrets![
        CreateVolumeRequest,
        DeleteVolumeRequest,
        ControllerPublishVolumeRequest,
        ControllerUnpublishVolumeRequest,
        ValidateVolumeCapabilitiesRequest,
        CreateSnapshotRequest,
        DeleteSnapshotRequest,
        ListSnapshotsRequest,
        GetSnapshotRequest,
        ControllerExpandVolumeRequest,
        NodeStageVolumeRequest,
        NodePublishVolumeRequest,
        NodeExpandVolumeRequest,
        CreateVolumeGroupSnapshotRequest,
        DeleteVolumeGroupSnapshotRequest,
        GetVolumeGroupSnapshotRequest,
        GetMetadataAllocatedRequest,
        GetMetadataDeltaRequest
    ];
    printed.push(format!(
        "{:?}",
        kubernetes::GetMetadataAllocatedRequest {
            security_token: SECRET.to_owned(),
            ..Default::default()
        }
    ));
    printed.push(format!(
        "{:?}",
        kubernetes::GetMetadataDeltaRequest {
            security_token: SECRET.to_owned(),
            ..Default::default()
        }
    ));
    for text in &printed {
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("(redacted)"), "{text}");
    }
    let facts: serde_json::Value =
        serde_json::from_str(include_str!("data/csi-wire.json")).expect("the facts are JSON");
    let marked = facts["csi.v1"]["messages"]
        .as_object()
        .expect("messages")
        .iter()
        .filter(|(name, fields)| {
            *name != "ControllerModifyVolumeRequest"
                && fields
                    .as_object()
                    .expect("fields")
                    .values()
                    .any(|field| field["secret"] == true)
        })
        .count();
    assert_eq!(
        printed.len(),
        marked + 2,
        "every message with a secret is printed here"
    );
}

#[test]
fn what_is_not_secret_is_printed() {
    let request = csi::CreateSnapshotRequest {
        source_volume_id: "vol-1".to_owned(),
        name: "snap-1".to_owned(),
        ..Default::default()
    };
    let text = format!("{request:?}");
    assert!(
        text.contains("vol-1") && text.contains("snap-1") && text.contains("secrets: (none)"),
        "{text}"
    );
}

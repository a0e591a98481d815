//! Removes the snapshot of a working copy.
//!
//! Owns: the finalizer of external-provisioner on it. It sets that before it asks the driver for a volume, and takes it away once there is
//! one: where the claim went before, nobody ever does, and the snapshot would stay. Must not: touch a snapshot that a user made, or the
//! finalizers of the snapshot controller, which takes its own away.

use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::json;

use super::apply;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;
use crate::kube::foreign::snapshot::VolumeSnapshot;

/// The finalizer of external-provisioner, from 4.0 on.
const PROVISIONER: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// How often it is tried against others who change the same finalizers.
const TRIES: u32 = 5;

/// Deletes a snapshot of the system namespace whose claim is gone or going. Its content keeps the driver's snapshot (`Retain`), so that a
/// volume that is still being made of it is not disturbed.
///
/// # Errors
/// What the server answers.
pub async fn delete_copy(snapshots: &Api<VolumeSnapshot>, name: &str, uid: &str) -> Result<()> {
    apply::delete(snapshots, name, uid, None).await?;
    for _ in 0..TRIES {
        let read = snapshots.get_opt(name).await;
        let left = read.map_err(|error| answer::failed("read a snapshot", name, error))?;
        let Some(left) = left.filter(|left| left.uid().as_deref() == Some(uid)) else {
            return Ok(());
        };
        let mut finalizers = left.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != PROVISIONER);
        if finalizers.len() == left.finalizers().len() {
            return Ok(());
        }
        let change = json!({"metadata": {"finalizers": finalizers}});
        if apply::merge_seen(snapshots, &left, &change).await? {
            return Ok(());
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "take the finalizer of the provisioner from a snapshot that others keep changing",
    )
    .object(name))
}

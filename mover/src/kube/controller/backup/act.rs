//! Carrying out what was decided for a backup.
//!
//! Owns: one call of the API server, or of the repository, for each action. Must not: decide. The first failure ends the list: what comes later
//! relies on what comes before, and the next look begins again.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::json;

use super::action::{Action, Object};
use super::base;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::{Bandwidth, RepositoryAccess};
use crate::kube::api::PodVolumeBackup;
use crate::kube::controller::holder::{self, HoldMode};
use crate::kube::controller::owner::Owner;
use crate::kube::controller::working_copy::{self, ChangeId, ClaimRequest, Original};
use crate::kube::controller::{Context, apply, removal};
use crate::kube::foreign::snapshot::{
    SnapshotDeletion, SnapshotSource, VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotSpec,
};
use crate::pipeline::forget::{self, ForgetRequest, Selection};

/// Does one thing.
pub(super) async fn act(
    context: &Context,
    backup: &PodVolumeBackup,
    action: &Action,
) -> Result<()> {
    let hand = Hand::new(context, backup);
    match action {
        Action::Finalizer(present) => {
            apply::set_finalizer(&hand.backups(), &backup.metadata, *present).await
        }
        Action::TakeSnapshot { claim, class } => hand.take_snapshot(claim, class.as_deref()).await,
        Action::Content { name, policy } => hand.content(name, *policy).await,
        Action::CopyContent(original) => hand.copy_content(original).await,
        Action::CopySnapshot(original) => hand.copy_snapshot(original).await,
        Action::CopyChangeId(id) => hand.copy_change_id(id).await,
        Action::Claim {
            class,
            access,
            size,
        } => hand.claim(class, access, *size).await,
        Action::Volume { name } => hand.volume(name).await,
        Action::KeepVolume { name } => hand.keep_volume(name).await,
        Action::Holder { nodes, read_only } => hand.holder(nodes, *read_only).await,
        Action::Settle(node) => {
            if context.slots.settle(&hand.owner.uid, node) {
                context.wake_waiting();
            }
            Ok(())
        }
        Action::ReleaseSlot => {
            if context.slots.release(&hand.owner.uid) {
                context.wake_waiting();
            }
            Ok(())
        }
        Action::Delete {
            what,
            name,
            uid,
            force,
        } => hand.delete(*what, name, uid, *force).await,
        Action::BaseContentPolicy { name, policy } => {
            let change = json!({"spec": {"deletionPolicy": policy}});
            apply::merge(&hand.contents(), name, &change)
                .await
                .map(|_| ())
        }
        Action::Base {
            name,
            original,
            volume_handle,
            point,
        } => hand.base(name, original, volume_handle, point).await,
        Action::Forget { point } => hand.forget(point).await,
        Action::DeleteSelf => {
            let uid = &hand.owner.uid;
            apply::delete(&hand.backups(), &hand.owner.name, uid, None).await
        }
    }
}

struct Hand<'a> {
    context: &'a Context,
    backup: &'a PodVolumeBackup,
    owner: Owner,
}

impl<'a> Hand<'a> {
    fn new(context: &'a Context, backup: &'a PodVolumeBackup) -> Self {
        Self {
            context,
            backup,
            owner: super::owner_of(backup),
        }
    }

    fn system(&self) -> &str {
        &self.context.settings.namespace
    }

    fn backups(&self) -> Api<PodVolumeBackup> {
        Api::namespaced(self.context.client.clone(), &self.owner.namespace)
    }

    fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.context.client.clone())
    }

    fn snapshots(&self, namespace: &str) -> Api<VolumeSnapshot> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), self.system())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), self.system())
    }

    async fn copy_content(&self, original: &Original) -> Result<()> {
        let content = working_copy::content(original, self.owner.metadata(None), self.system());
        apply::ensure(&self.contents(), &content).await.map(|_| ())
    }

    async fn copy_snapshot(&self, original: &Original) -> Result<()> {
        let metadata = self.owner.metadata(Some(self.system()));
        let snapshots = self.snapshots(self.system());
        apply::ensure(&snapshots, &working_copy::snapshot(original, metadata))
            .await
            .map(|_| ())
    }

    async fn copy_change_id(&self, id: &ChangeId) -> Result<()> {
        let change = json!({"metadata": {"annotations": {&*id.annotation: id.value}}});
        let snapshots = self.snapshots(self.system());
        apply::merge(&snapshots, &self.owner.object_name(), &change)
            .await
            .map(|_| ())
    }

    /// The volume of the working copy becomes ours to remove.
    async fn volume(&self, name: &str) -> Result<()> {
        let change = json!({
            "metadata": {"labels": self.owner.labels(), "annotations": self.owner.annotations()},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"},
        });
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        apply::merge(&volumes, name, &change).await.map(|_| ())
    }

    async fn keep_volume(&self, name: &str) -> Result<()> {
        let change = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        apply::merge(&volumes, name, &change).await.map(|_| ())
    }

    async fn holder(&self, nodes: &BTreeSet<String>, read_only: bool) -> Result<()> {
        let claim = self.owner.object_name();
        let settings = &self.context.settings.holder;
        let mode = HoldMode::Read;
        let place = (nodes, &self.context.stores.nodes());
        let pod = holder::pod(&self.owner, settings, mode, (&claim, read_only), place);
        apply::ensure(&self.pods(), &pod).await.map(|_| ())
    }

    async fn take_snapshot(&self, claim: &str, class: Option<&str>) -> Result<()> {
        let snapshot = VolumeSnapshot {
            metadata: self.owner.metadata(Some(&self.owner.namespace)),
            spec: VolumeSnapshotSpec {
                source: SnapshotSource {
                    persistent_volume_claim_name: Some(claim.to_owned()),
                    volume_snapshot_content_name: None,
                },
                volume_snapshot_class_name: class.map(str::to_owned),
            },
            status: None,
        };
        let snapshots = self.snapshots(&self.owner.namespace);
        apply::ensure(&snapshots, &snapshot).await.map(|_| ())
    }

    async fn content(&self, name: &str, policy: SnapshotDeletion) -> Result<()> {
        let change = json!({
            "metadata": {"labels": self.owner.labels(), "annotations": self.owner.annotations()},
            "spec": {"deletionPolicy": policy},
        });
        apply::merge(&self.contents(), name, &change)
            .await
            .map(|_| ())
    }

    async fn claim(&self, class: &str, access: &str, size: u64) -> Result<()> {
        let name = self.owner.object_name();
        let request = ClaimRequest {
            namespace: self.system(),
            class,
            access_mode: access,
            size,
            snapshot: Some(&name),
        };
        let claim = working_copy::claim(&self.owner, &request);
        apply::ensure(&self.claims(), &claim).await.map(|_| ())
    }

    async fn delete(&self, what: Object, name: &str, uid: &str, force: bool) -> Result<()> {
        let grace = force.then_some(0);
        let users = &self.owner.namespace;
        match what {
            Object::Holder => apply::delete(&self.pods(), name, uid, grace).await,
            Object::Claim => apply::delete(&self.claims(), name, uid, None).await,
            Object::CopySnapshot => {
                removal::delete_copy(&self.snapshots(self.system()), name, uid).await
            }
            Object::BaseSnapshot => {
                apply::delete(&self.snapshots(self.system()), name, uid, None).await
            }
            Object::Snapshot => apply::delete(&self.snapshots(users), name, uid, None).await,
            Object::CopyContent | Object::Content | Object::BaseContent => {
                apply::delete(&self.contents(), name, uid, None).await
            }
        }
    }

    async fn base(
        &self,
        name: &str,
        original: &Original,
        volume_handle: &str,
        point: &str,
    ) -> Result<()> {
        let repository = self.backup.spec.repository_ref.name.as_str();
        let metadata =
            |namespace| base::metadata(name, namespace, volume_handle, (repository, point));
        let content = working_copy::content(original, metadata(None), self.system());
        apply::ensure(&self.contents(), &content).await?;
        let snapshot = working_copy::snapshot(original, metadata(Some(self.system())));
        apply::ensure(&self.snapshots(self.system()), &snapshot).await?;
        Ok(())
    }

    /// A point that is not there any more is as good as forgotten.
    async fn forget(&self, point: &str) -> Result<()> {
        let name = self.backup.spec.repository_ref.name.clone();
        let Some(repository) = self.context.stores.repository(&name) else {
            return Err(
                Error::new(ErrorKind::NotFound, "find the repository of the point").object(name),
            );
        };
        let access =
            RepositoryAccess::read(&self.context.client, self.system(), &repository).await?;
        let request = ForgetRequest {
            selection: Selection::Points(vec![point.to_owned()]),
            dry_run: false,
            now_unix_millis: k8s_openapi::jiff::Timestamp::now().as_millisecond(),
        };
        let work = move || {
            let repository = access.open(Bandwidth::default())?;
            match forget::run(&repository, &request) {
                Ok(outcome) => outcome.failure.map_or(Ok(()), Err),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, "forget a point").source(error))??;
        tracing::info!(
            backup = self.backup.name_any(),
            point,
            "the point is forgotten"
        );
        Ok(())
    }
}

//! What must hold in the simulated cluster.
//!
//! Owns: what holds at every moment, and in the end. Must not: change anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{World, change_id, profile};
use crate::kube::api::backup::DeletionPolicy;
use crate::kube::api::{Phase, PodVolumeBackupStatus};
use crate::kube::foreign::snapshot::SnapshotDeletion;

impl World {
    /// What holds at every moment.
    pub(super) fn check(&self) {
        let contents = [
            &self.seen.content,
            &self.seen.copy_content,
            &self.seen.base_content,
        ];
        let mut deleters: BTreeMap<&str, u32> = BTreeMap::new();
        for content in contents.into_iter().flatten() {
            let handle = content
                .original
                .as_ref()
                .map_or("", |original| original.handle.as_str());
            if content.policy == SnapshotDeletion::Delete {
                *deleters.entry(handle).or_default() += 1;
            }
        }
        assert!(
            deleters.values().all(|count| *count <= 1),
            "two contents delete one handle"
        );
        for original in contents
            .into_iter()
            .flatten()
            .filter_map(|content| content.original.as_ref())
        {
            let own = change_id(&original.handle);
            assert!(
                original.change_id.as_ref().is_none_or(|id| *id == own),
                "the change id of another snapshot: {original:?}"
            );
        }
        if let Some(handle) = self.base_handle() {
            assert!(self.backend.contains(&handle), "the base lost its snapshot");
            if self.seen.content.as_ref().is_some_and(|content| {
                content
                    .original
                    .as_ref()
                    .is_some_and(|o| o.handle == handle)
                    && content.policy == SnapshotDeletion::Delete
            }) {
                panic!("the base would go with the content");
            }
        }
    }

    /// What a new order says, and what the agent finds at that moment.
    pub(super) fn ordered(&self, before: &PodVolumeBackupStatus, after: &PodVolumeBackupStatus) {
        let Some(order) = after.order.as_ref().filter(|_| before.order.is_none()) else {
            return;
        };
        let profile = profile();
        assert_eq!(order.change_id_annotation, profile.change_id_annotation);
        assert_eq!(
            order.snapshot_metadata_service_name,
            profile.snapshot_metadata_service_name
        );
        assert_eq!(order.keeps_base, Some(true));
        let content = self.seen.content.as_ref();
        let noted = content.and_then(|content| content.original.as_ref()?.change_id.as_ref());
        let copy = self.seen.copy_snapshot.as_ref();
        let copied = copy.and_then(|copy| copy.change_id.as_ref());
        assert!(noted.is_none() || noted == copied, "{noted:?} {copied:?}");
    }

    pub(in super::super) fn assert_clean(&self) {
        assert!(self.seen.holder.is_none() && self.seen.claim.is_none());
        assert!(self.seen.volume.is_none() && self.seen.copy_snapshot.is_none());
        assert!(self.seen.copy_content.is_none() && !self.slot);
        if !self.shape.user_snapshot {
            assert!(self.seen.snapshot.is_none() && self.seen.content.is_none());
        }
        let mut expected: BTreeSet<String> = self.base_handle().into_iter().collect();
        if self.seen.content.is_some() {
            expected.insert("s-user".to_owned());
        }
        assert_eq!(self.backend, expected, "snapshots of the driver");
        if let Some(backup) = &self.backup {
            let status = backup.status.clone().unwrap_or_default();
            self.assert_finalizer();
            assert!(status.message.is_some(), "every end says why");
        }
        if self.forgotten {
            assert_eq!(self.shape.deletion, DeletionPolicy::Delete);
        }
    }

    /// It stays only where the point goes with the object.
    pub(super) fn assert_finalizer(&self) {
        let Some(backup) = &self.backup else {
            return;
        };
        let owns =
            self.shape.deletion == DeletionPolicy::Delete && self.phase() == Phase::Completed;
        let all = backup.metadata.finalizers.as_ref();
        let has = all.is_some_and(|all| !all.is_empty());
        assert_eq!(has, owns, "finalizer");
    }
}

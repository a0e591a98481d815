//! What must hold in the simulated cluster.
//!
//! Owns: what holds at every moment, and in the end. Must not: change anything.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::kube::api::Phase;
use crate::kube::api::backup::DeletionPolicy;
use crate::kube::controller::backup::view::ContentView;
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
            let owns = self.shape.deletion == DeletionPolicy::Delete
                && status.phase == Some(Phase::Completed);
            let has = backup
                .metadata
                .finalizers
                .as_ref()
                .is_some_and(|all| !all.is_empty());
            assert_eq!(has, owns, "finalizer");
            assert!(status.message.is_some(), "every end says why");
        }
        if self.forgotten {
            assert_eq!(self.shape.deletion, DeletionPolicy::Delete);
        }
    }

    /// The backup has ended although its driver never removed anything: what is left has a name, and the message says it.
    pub(in super::super) fn assert_left_behind(&self) {
        assert!(self.phase().is_terminal() || self.gone());
        assert!(!self.slot, "a place is kept");
        let mut handles: BTreeSet<&str> = BTreeSet::new();
        let contents = [
            &self.seen.content,
            &self.seen.copy_content,
            &self.seen.base_content,
        ];
        for content in contents.into_iter().flatten() {
            handles.extend(
                content
                    .original
                    .iter()
                    .map(|original| original.handle.as_str()),
            );
        }
        let named = self
            .backend
            .iter()
            .all(|handle| handles.contains(handle.as_str()));
        assert!(named, "nothing names one of {:?}", self.backend);
        let Some(backup) = &self.backup else {
            return;
        };
        let message = self.message().unwrap_or_default();
        let own = |content: &&ContentView| content.name != "theirs-c" && content.ours;
        let volume = self.seen.volume.as_ref().map(|volume| &volume.name);
        let content = self
            .seen
            .content
            .as_ref()
            .filter(own)
            .map(|content| &content.name);
        let copy = self.seen.copy_content.as_ref().map(|copy| &copy.name);
        let based = self.seen.content.as_ref().is_some_and(|content| {
            self.base_handle().is_some()
                && content
                    .original
                    .as_ref()
                    .map(|original| original.handle.clone())
                    == self.base_handle()
        });
        for name in [volume, content.filter(|_| !based), copy]
            .into_iter()
            .flatten()
        {
            assert!(
                message.contains(name.as_str()),
                "{name} is not in: {message}"
            );
        }
        let status = backup.status.clone().unwrap_or_default();
        let owns =
            self.shape.deletion == DeletionPolicy::Delete && status.phase == Some(Phase::Completed);
        let has = backup
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|all| !all.is_empty());
        assert_eq!(has, owns, "the finalizer goes");
        for content in [&self.seen.content, &self.seen.copy_content]
            .into_iter()
            .flatten()
        {
            assert!(
                content.name == "theirs-c"
                    || content.ours
                    || content.name.starts_with("snaphaul-")
                    || self
                        .seen
                        .snapshot
                        .as_ref()
                        .is_some_and(|snapshot| snapshot.ours),
                "the sweep does not find {content:?}"
            );
        }
    }
}

//! What is ordered, the same for backups and restores.
//!
//! Owns: what of a resource an agent needs. Must not: decide what runs when.

use ::kube::{Resource, ResourceExt as _};

use crate::kube::api::backup::{ChangedBlocksPolicy, ParentPolicy, PodVolumeBackup, PointStatus};
use crate::kube::api::restore::PodVolumeRestore;
use crate::kube::api::transfer::{TransferOrder, TransferState, TransferStatus};

/// Which kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Backup,
    Restore,
}

impl Kind {
    /// The word of metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// Where the name of the repository is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RepositoryName {
    Given(String),
    /// That of a backup of the same namespace.
    OfBackup(String),
    Nowhere,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    Backup {
        parent: ParentPolicy,
        changed_blocks: ChangedBlocksPolicy,
    },
    Restore {
        point: Option<PointStatus>,
    },
}

/// An order, and whom it is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Creation of the resource, seconds since 1970.
    pub(super) since: i64,
    pub(super) node: String,
    pub(super) repository: RepositoryName,
    pub(super) order: TransferOrder,
    pub(super) answer: Option<TransferStatus>,
    pub(super) task: Task,
}

impl Work {
    /// The work for a backup; `None` without an order.
    pub(super) fn of_backup(backup: &PodVolumeBackup) -> Option<Self> {
        let status = backup.status.as_ref()?;
        let task = Task::Backup {
            parent: backup.spec.parent_policy,
            changed_blocks: backup.spec.changed_blocks_policy,
        };
        let repository = RepositoryName::Given(backup.spec.repository_ref.name.clone());
        let order = (status.order.clone()?, status.transfer.clone());
        Self::new(
            backup,
            Kind::Backup,
            (status.node.clone()?, repository),
            order,
            task,
        )
    }

    /// The work for a restore; `None` without an order.
    pub(super) fn of_restore(restore: &PodVolumeRestore) -> Option<Self> {
        let status = restore.status.as_ref()?;
        let task = Task::Restore {
            point: status.point.clone(),
        };
        let spec = &restore.spec;
        let repository = match (&spec.repository_ref, &spec.source.backup_name) {
            (Some(reference), _) => RepositoryName::Given(reference.name.clone()),
            (None, Some(backup)) => RepositoryName::OfBackup(backup.clone()),
            (None, None) => RepositoryName::Nowhere,
        };
        let order = (status.order.clone()?, status.transfer.clone());
        Self::new(
            restore,
            Kind::Restore,
            (status.node.clone()?, repository),
            order,
            task,
        )
    }

    fn new<K: Resource>(
        resource: &K,
        kind: Kind,
        (node, repository): (String, RepositoryName),
        (order, answer): (TransferOrder, Option<TransferStatus>),
        task: Task,
    ) -> Option<Self> {
        let created = resource.meta().creation_timestamp.as_ref();
        Some(Self {
            kind,
            namespace: resource.namespace()?,
            name: resource.name_any(),
            uid: resource.uid()?,
            since: created.map_or(0, |time| time.0.as_second()),
            node,
            repository,
            order,
            answer,
            task,
        })
    }

    /// Whether the newest attempt has no final answer.
    pub(super) fn is_open(&self) -> bool {
        !self.answer.as_ref().is_some_and(|answer| {
            answer.attempt == self.order.attempt && answer.state != TransferState::Running
        })
    }

    /// Whether somebody may have worked on it before.
    pub(super) fn was_tried(&self) -> bool {
        self.order.attempt > 1 || self.answer.is_some()
    }
}

#[cfg(test)]
pub(super) fn example(uid: &str, namespace: &str, since: i64) -> Work {
    Work {
        kind: Kind::Backup,
        namespace: namespace.to_owned(),
        name: format!("n-{uid}"),
        uid: uid.to_owned(),
        since,
        node: "node".to_owned(),
        repository: RepositoryName::Given("r".to_owned()),
        order: TransferOrder {
            attempt: 1,
            ..TransferOrder::default()
        },
        answer: None,
        task: Task::Backup {
            parent: ParentPolicy::Auto,
            changed_blocks: ChangedBlocksPolicy::Auto,
        },
    }
}

//! What is ordered, the same for backups and restores.
//!
//! Owns: what of a resource an agent needs. Must not: decide what runs when.

use ::kube::core::DynamicObject;
use ::kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::order;
use crate::error::{Error, ErrorKind};
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
    pub(super) const ALL: [Self; 2] = [Self::Backup, Self::Restore];
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
    /// Nothing that this agent understands; why.
    Unreadable(String),
}

/// The answer to what cannot be understood: no other attempt of the same order will be, either.
pub(super) fn unreadable(why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("read the order: {why}"))
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
    /// The work for a resource of this kind; `None` without an order.
    pub(super) fn of(kind: Kind, resource: &DynamicObject) -> Option<Self> {
        let order = resource.data.pointer("/status/order");
        let order = order.filter(|order| !order.is_null())?;
        let read = order::read(kind, order).and_then(|_| match kind {
            Kind::Backup => Ok(Self::of_backup(&typed(resource)?)),
            Kind::Restore => Ok(Self::of_restore(&typed(resource)?)),
        });
        read.unwrap_or_else(|why| Self::of_unreadable(kind, resource, why))
    }

    /// What is needed to answer an order that is not understood. `None` where even that cannot be: then it is only logged.
    fn of_unreadable(kind: Kind, resource: &DynamicObject, why: String) -> Option<Self> {
        tracing::warn!(
            name = resource.name_any(),
            why,
            "an order is not understood"
        );
        let status = &resource.data["status"];
        let attempt = status["order"]["attempt"].as_i64()?;
        let said = &status["transfer"];
        let answer: Option<TransferStatus> = serde_json::from_value(said.clone()).ok();
        // An end in words that came later is an end.
        let is_other = said["state"].is_string() && said["attempt"].as_i64() == Some(attempt);
        if answer.is_none() && is_other {
            return None;
        }
        let order = TransferOrder {
            attempt,
            stop: status["order"]["stop"].as_str().map(str::to_owned),
            ..TransferOrder::default()
        };
        let node = status["node"].as_str()?.to_owned();
        let task = Task::Unreadable(why);
        let place = (node, RepositoryName::Nowhere);
        Self::new(resource, kind, place, (order, answer), task)
    }

    /// The work for a backup; `None` without an order.
    fn of_backup(backup: &PodVolumeBackup) -> Option<Self> {
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
    fn of_restore(restore: &PodVolumeRestore) -> Option<Self> {
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

fn typed<K: Resource + DeserializeOwned>(resource: &DynamicObject) -> Result<K, String> {
    let parsed = resource.clone().try_parse();
    parsed.map_err(|error| format!("the resource is not understood: {error}"))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(status: serde_json::Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeBackup",
            "metadata": {"name": "b", "namespace": "n", "uid": "u"},
            "spec": {"source": {"persistentVolumeClaim": {"name": "c"}}, "repositoryRef": {"name": "r"}},
        });
        object["status"] = status;
        serde_json::from_value(object).unwrap()
    }

    fn status(order: &[(&str, serde_json::Value)]) -> serde_json::Value {
        let mut status = json!({"node": "node", "order": {
            "attempt": 2, "strategy": "Pod", "volume": "c/n/v", "driver": "d", "volumeHandle": "v",
        }});
        for (name, value) in order {
            status["order"][*name] = value.clone();
        }
        status
    }

    #[test]
    fn an_order_that_is_understood_is_work() {
        let work = Work::of(Kind::Backup, &resource(status(&[]))).unwrap();
        assert_eq!(work.order.driver, "d");
        assert_eq!(work.repository, RepositoryName::Given("r".to_owned()));
        assert!(matches!(work.task, Task::Backup { .. }) && work.is_open());
        assert_eq!(Work::of(Kind::Backup, &resource(json!({}))), None);
        assert_eq!(
            Work::of(Kind::Backup, &resource(json!({"order": null}))),
            None
        );
    }

    #[test]
    fn one_that_is_not_is_answered_and_hides_no_other() {
        let mut later = resource(status(&[]));
        later.data["spec"]["parentPolicy"] = json!("Later");
        let unknown = resource(status(&[("later", json!(1)), ("stop", json!("why"))]));
        for (resource, said) in [(later, "Later"), (unknown, "later")] {
            let work = Work::of(Kind::Backup, &resource).unwrap();
            let Task::Unreadable(why) = &work.task else {
                panic!("{work:?}")
            };
            assert!(why.contains(said), "{why}");
            assert!(work.is_open() && work.order.attempt == 2);
            let stop = resource.data.pointer("/status/order/stop");
            assert_eq!(
                work.order.stop.is_some(),
                stop.is_some_and(|stop| !stop.is_null())
            );
        }
    }

    #[test]
    fn what_was_answered_stays_answered() {
        let with = |transfer: serde_json::Value| {
            let mut status = status(&[("later", json!(1))]);
            status["transfer"] = transfer;
            Work::of(Kind::Backup, &resource(status))
        };
        let failed = with(json!({"attempt": 2, "state": "Failed"})).unwrap();
        assert!(!failed.is_open());
        assert_eq!(with(json!({"attempt": 2, "state": "Later"})), None);
        assert!(
            with(json!({"attempt": 1, "state": "Failed"}))
                .unwrap()
                .is_open()
        );
        let no_attempt = resource(status(&[("attempt", json!("two"))]));
        assert_eq!(Work::of(Kind::Backup, &no_attempt), None);
    }
}

//! The agent's part of a status.
//!
//! Owns: how it is written so that it never answers another order. Must not: decide what is written, or touch the controller's part.
//!
//! A write is a merge patch with UID and resource version: an object that was deleted and made again, or an order that changed a moment
//! ago, is a conflict, and then everything is looked at again.

use std::time::Duration;

use ::kube::Client;
use ::kube::api::{Api, DynamicObject, Patch, PatchParams};
use ::kube::core::ApiResource;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::NAME;
use super::work::{Kind, Work};
use crate::error::Result;
use crate::kube::answer::{failed, is_conflict, is_missing};
use crate::kube::api::backup::PodVolumeBackup;
use crate::kube::api::restore::PodVolumeRestore;

/// Writes that meet somebody else's are tried again this often at once.
const CONFLICTS: u32 = 8;
/// Waits between tries while the API server does not answer.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// Nobody waits for this answer: the object is gone, or its order is another attempt's or another node's.
    NotWanted,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is to be carried out.
    Wanted,
    /// It is to end, for this reason.
    Stopped(String),
    /// It is another attempt's, another node's, or nobody's.
    Gone,
}

/// Writes the answers to one order.
#[derive(Clone, Debug)]
pub(super) struct StatusWriter {
    objects: Api<DynamicObject>,
    kind: ApiResource,
    namespace: String,
    name: String,
    uid: String,
    node: String,
    attempt: i64,
}

impl StatusWriter {
    pub(super) fn new(client: &Client, work: &Work) -> Self {
        let kind = match work.kind {
            Kind::Backup => ApiResource::erase::<PodVolumeBackup>(&()),
            Kind::Restore => ApiResource::erase::<PodVolumeRestore>(&()),
        };
        Self {
            objects: Api::namespaced_with(client.clone(), &work.namespace, &kind),
            kind,
            namespace: work.namespace.clone(),
            name: work.name.clone(),
            uid: work.uid.clone(),
            node: work.node.clone(),
            attempt: work.order.attempt,
        }
    }

    /// What events are about.
    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.kind.api_version.clone()),
            kind: Some(self.kind.kind.clone()),
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Writes `fields` of the status, if the order is still the same.
    pub(super) async fn write(&self, fields: &Value) -> Result<Written> {
        for _ in 0..CONFLICTS {
            let found = match self.objects.get(&self.name).await {
                Ok(found) => found,
                Err(error) if is_missing(&error) => return Ok(Written::NotWanted),
                Err(error) => return Err(failed("read an order", &self.name, error)),
            };
            if !self.is_ours(&found) {
                return Ok(Written::NotWanted);
            }
            let patch = json!({
                "metadata": { "uid": self.uid, "resourceVersion": found.metadata.resource_version },
                "status": fields,
            });
            let parameters = PatchParams {
                field_manager: Some(NAME.to_owned()),
                ..PatchParams::default()
            };
            let written = self
                .objects
                .patch_status(&self.name, &parameters, &Patch::Merge(&patch))
                .await;
            match written {
                Ok(_) => return Ok(Written::Yes),
                Err(error) if is_conflict(&error) => {}
                Err(error) if is_missing(&error) => return Ok(Written::NotWanted),
                Err(error) => return Err(failed("answer an order", &self.name, error)),
            }
        }
        let message = "answer an order: it changes all the time";
        Err(
            crate::error::Error::new(crate::error::ErrorKind::Unavailable, message)
                .object(&self.name),
        )
    }

    /// Writes, however long the API server is away; gives up once `is_enough` says so.
    pub(super) async fn insist(
        &self,
        fields: &Value,
        is_enough: impl Fn() -> bool,
    ) -> Result<Written> {
        let mut pauses = PAUSES.iter().copied();
        let last = Duration::from_secs(15);
        loop {
            let error = match self.write(fields).await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            if is_enough() {
                return Err(error);
            }
            tracing::warn!(%error, name = self.name, "an answer is written later");
            tokio::time::sleep(pauses.next().unwrap_or(last)).await;
        }
    }

    /// Asks whether the order still stands.
    pub(super) async fn look(&self) -> Result<Standing> {
        let found = match self.objects.get(&self.name).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(Standing::Gone),
            Err(error) => return Err(failed("read an order", &self.name, error)),
        };
        if !self.is_ours(&found) {
            return Ok(Standing::Gone);
        }
        let stop = found.data["status"]["order"]["stop"].as_str();
        Ok(stop.map_or(Standing::Wanted, |why| Standing::Stopped(why.to_owned())))
    }

    fn is_ours(&self, found: &DynamicObject) -> bool {
        let status = &found.data["status"];
        found.metadata.uid.as_deref() == Some(self.uid.as_str())
            && status["order"]["attempt"].as_i64() == Some(self.attempt)
            && status["node"].as_str() == Some(self.node.as_str())
    }
}

/// Now, as answers say it.
pub(super) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

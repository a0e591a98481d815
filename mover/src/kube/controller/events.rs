//! Events on backups, restores and repositories: what `kubectl describe` shows beside the status.
//!
//! Owns: how they are sent. Must not: fail anything: an event that cannot be written is only logged.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use crate::kube::api::conditions::Reason;

/// Longest note that the API server takes, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Something that people should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it needs attention.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// In words, without secrets.
    pub message: String,
}

impl Note {
    /// Something went as it should.
    pub fn normal(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason,
            message: message.into(),
        }
    }

    /// Something needs attention.
    pub fn warning(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason,
            message: message.into(),
        }
    }
}

/// Sends events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Events of the process `identity`.
    #[must_use]
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "snaphaul.dev/controller".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Sends one about an object.
    pub async fn send(&self, about: &impl Resource<DynamicType = ()>, note: &Note) {
        self.send_to(&about.object_ref(&()), note).await;
    }

    async fn send_to(&self, about: &ObjectReference, note: &Note) {
        let mut message = note.message.clone();
        let end = (0..=MAX_NOTE_BYTES.min(message.len()))
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        let event = Event {
            type_: if note.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.as_str().to_owned(),
            note: Some(message),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::info!(%error, "an event could not be written");
        }
    }
}

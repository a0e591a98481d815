//! `SnapshotRepository` in the controller: whether it can be used.
//!
//! Owns: its `Ready` condition, id, location and number of points; it makes a repository where there is none. Must not: delete data, ever.
//!
//! A key or credentials that were rotated are read anew with each look; nothing has to be started again.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::api::Api;

use super::conditions::{self, Is};
use super::events::Note;
use super::maintenance::outcome;
use super::queue::Again;
use super::watches::{Key, Kind};
use super::{Context, apply};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::{Bandwidth, RepositoryAccess};
use crate::kube::answer;
use crate::kube::api::conditions::{READY, Reason};
use crate::kube::api::{SnapshotRepository, SnapshotRepositoryStatus};
use crate::repository::access::{self, InitOptions, Repository};
use crate::repository::format::crypto::Cipher;
use crate::repository::session::points;
use crate::repository::store::probe::{ProbeOptions, probe};

/// Bytes of a chunk of a new repository: the default of `init`.
const CHUNK_SIZE: u32 = 128 << 10;
/// Bytes of a segment of a new repository: the default of `init`.
const SEGMENT_SIZE: u32 = 32 << 20;
/// Time until a repository that is not ready is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// What a look at the place found.
struct Found {
    id: String,
    location: String,
    points: i64,
}

/// Looks at one repository.
///
/// # Errors
/// What the API server answers; what the store answers is in the status.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Again> {
    let api = Api::<SnapshotRepository>::all(context.client.clone());
    let found = api
        .get_opt(&key.name)
        .await
        .map_err(|error| answer::failed("read the SnapshotRepository", &key.name, error))?;
    let Some(repository) = found else {
        context.telemetry.forget_repository(&key.name);
        return Ok(Again::OnChange);
    };
    if repository.metadata.deletion_timestamp.is_some() || is_fresh(context, &repository) {
        return Ok(Again::After(context.settings.repository_every));
    }
    let old = repository.status.clone().unwrap_or_default();
    let looked = look(context, &repository).await;
    let now = Timestamp::now();
    let mut status = judged(&repository, &old, &looked, now);
    if context.settings.maintains {
        let created = repository.metadata.creation_timestamp.as_ref();
        let settings = &repository.spec.maintenance;
        outcome::schedule(
            &mut status,
            settings,
            created.map_or(now, |time| time.0),
            now,
        );
    }
    let ready = looked.is_ok();
    context.telemetry.repository(&key.name, ready, &status);
    let was = conditions::is(&old.conditions, READY, Is::True);
    apply::status(&api, repository.meta(), &old, &status).await?;
    if was != ready {
        let message = status.message.clone().unwrap_or_default();
        let note = if ready {
            Note::normal(Reason::Valid, message)
        } else {
            Note::warning(Reason::RepositoryNotReady, message)
        };
        context.events.send(&repository, &note).await;
        wake_users(context, &key.name);
    }
    Ok(Again::After(if ready {
        context.settings.repository_every
    } else {
        TRY_AGAIN
    }))
}

/// Whether the last look is so young that its own status write must be what woke us.
fn is_fresh(context: &Context, repository: &SnapshotRepository) -> bool {
    let key = repository.metadata.name.clone().unwrap_or_default();
    let version = (
        repository.metadata.uid.clone(),
        repository.metadata.generation,
    );
    let every = if ready(repository) {
        context.settings.repository_every
    } else {
        TRY_AGAIN
    };
    !context.looks.due(&key, &version, every)
}

fn ready(repository: &SnapshotRepository) -> bool {
    let conditions = repository.status.as_ref().map(|status| &status.conditions);
    conditions.is_some_and(|conditions| conditions::is(conditions, READY, Is::True))
}

/// Backups that wait for the repository look again.
fn wake_users(context: &Context, name: &str) {
    let waiting = context.stores.backups.state_filter(|backup| {
        backup.spec.repository_ref.name == name
            && !backup
                .status
                .as_ref()
                .and_then(|status| status.phase)
                .unwrap_or_default()
                .is_terminal()
    });
    for backup in waiting {
        context.queue.add(Key {
            kind: Kind::Backup,
            namespace: backup.metadata.namespace.clone().unwrap_or_default(),
            name: backup.metadata.name.clone().unwrap_or_default(),
        });
    }
}

async fn look(context: &Context, repository: &SnapshotRepository) -> Result<Found> {
    let system = &context.settings.namespace;
    let access = RepositoryAccess::read(&context.client, system, repository).await?;
    let work = move || opened(&access);
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome
        .map_err(|error| Error::new(ErrorKind::Internal, "look at a repository").source(error))?
}

/// Opens the repository, and makes it where the place is empty and none was ever recorded.
fn opened(access: &RepositoryAccess) -> Result<Found> {
    let repository = if access.expected_id().is_some() {
        access.open(Bandwidth::default())?
    } else {
        first_contact(access)?
    };
    let listing = points::candidates(&repository)?;
    Ok(Found {
        id: repository.config.repository.to_string(),
        location: repository.store.url(),
        points: i64::try_from(listing.len()).unwrap_or(i64::MAX),
    })
}

/// As `init --if-missing`.
fn first_contact(access: &RepositoryAccess) -> Result<Repository> {
    let store = access.connect(Bandwidth::default(), true)?;
    match access::read_config(store.as_ref()) {
        Ok(_) => return Ok(access::open(store, access.secret())?.0),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let profile = probe(
        store.as_ref(),
        ProbeOptions {
            conditional_writes: true,
        },
    )?;
    let options = InitOptions {
        cipher: if access.secret().is_some() {
            Cipher::Aes256Gcm
        } else {
            Cipher::None
        },
        chunk_size: CHUNK_SIZE,
        segment_size: SEGMENT_SIZE,
        profile,
        created_unix_secs: Timestamp::now().as_second(),
    };
    match access::init(std::sync::Arc::clone(&store), &options, access.secret()) {
        Err(error) if access::read_config(store.as_ref()).is_ok() => {
            // Another controller was faster between our look and our create.
            tracing::info!(%error, "somebody else made the repository");
            Ok(access::open(store, access.secret())?.0)
        }
        outcome => outcome,
    }
}

fn judged(
    repository: &SnapshotRepository,
    old: &SnapshotRepositoryStatus,
    looked: &Result<Found>,
    now: Timestamp,
) -> SnapshotRepositoryStatus {
    let mut status = old.clone();
    let generation = repository.metadata.generation;
    status.observed_generation = generation;
    let (is, reason, message) = match looked {
        Ok(found) => {
            status.repository_id = Some(found.id.clone());
            status.location = Some(found.location.clone());
            status.points = Some(found.points);
            (Is::True, Reason::Valid, "the repository opens".to_owned())
        }
        Err(error) => (Is::False, Reason::RepositoryNotReady, explained(error)),
    };
    status.message = Some(message.clone());
    conditions::set(
        &mut status.conditions,
        READY,
        (is, reason),
        &message,
        (now, generation),
    );
    status
}

/// An error with its causes and what to do, in one line.
#[must_use]
pub fn explained(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    match error.hint_text() {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}

/// Whether a label selector takes these labels. Without one everything is taken, as the field is documented.
#[must_use]
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.into_iter().all(|expression| {
            let value = labels.get(&expression.key);
            let values = expression.values.as_deref().unwrap_or_default();
            let named = value.is_some_and(|value| values.contains(value));
            match expression.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn a_selector_takes_the_namespaces_that_kubernetes_would() {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        assert!(selects(None, &labels));
        assert!(selects(Some(&LabelSelector::default()), &labels));
        let with = |operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "team".to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|&value| value.to_owned()).collect()),
            }]),
            match_labels: None,
        };
        assert!(selects(Some(&with("In", &["a", "b"])), &labels));
        assert!(!selects(Some(&with("NotIn", &["a"])), &labels));
        assert!(selects(Some(&with("NotIn", &["a"])), &BTreeMap::new()));
        assert!(!selects(Some(&with("DoesNotExist", &[])), &labels));
        assert!(!selects(Some(&with("Like", &["a"])), &labels));
    }

    #[test]
    fn an_error_is_told_once_with_its_cause_and_advice() {
        let error = Error::new(ErrorKind::AccessDenied, "list objects")
            .hint("check the key")
            .source("denied by policy");
        assert_eq!(
            explained(&error),
            "list objects: denied by policy; check the key"
        );
    }
}

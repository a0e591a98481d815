//! Which definitions of our own resources the API server lacks.
//!
//! Owns: that a kind without a definition is an empty kind, and is named once. Must not: keep the kinds that there are from being served, or
//! give up on the one that is missing: its watch goes on asking.
//!
//! A definition can be gone while resources of another kind still have a finalizer of ours: whoever removes everything at once, and the
//! controller first, would wait for a controller that waits for a definition.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};

use super::watches::Kind;
use crate::kube::answer;

/// Before a watch begins anew: a server that lists a kind and does not watch it is not asked all the time.
const PAUSE: Duration = Duration::from_secs(1);

/// The kinds without a definition, as the watches saw it last.
#[derive(Debug, Default)]
pub struct Definitions {
    missing: Mutex<BTreeSet<Kind>>,
}

impl Definitions {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeSet<Kind>) -> T) -> T {
        change(&mut self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the API server has no such kind.
    #[must_use]
    pub fn lacks(&self, kind: Kind) -> bool {
        self.with(|missing| missing.contains(&kind))
    }

    /// What a person should know, if anything is missing.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let missing: Vec<_> =
            self.with(|missing| missing.iter().map(|kind| kind.as_str()).collect());
        (!missing.is_empty()).then(|| {
            format!(
                "the API server has no definition of {}: apply the manifests; the other kinds are served",
                missing.join(", ")
            )
        })
    }

    fn listed(&self, kind: Kind) {
        if self.with(|missing| missing.remove(&kind)) {
            tracing::info!(kind = kind.as_str(), "the definition is there again");
        }
    }

    fn refused(&self, kind: Kind) {
        if self.with(|missing| missing.insert(kind)) {
            tracing::warn!(
                kind = kind.as_str(),
                "the API server has no definition of this kind: it is served when one is applied"
            );
        }
    }

    /// The events of the watches that `begin` gives, in which a kind that is not there is one that has no objects.
    ///
    /// A watch that cannot go on for want of the definition begins anew with a list: it would go on from where it was, and keep what
    /// went with the definition.
    pub fn known<K, S>(
        self: Arc<Self>,
        kind: Kind,
        begin: impl Fn() -> S + Send + 'static,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
    where
        K: Send + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    {
        let first = Box::pin(begin());
        let events = stream::unfold(
            (self, begin, first),
            move |(this, begin, mut watch)| async move {
                let seen = match watch.next().await? {
                    Err(watcher::Error::InitialListFailed(error)) if answer::is_missing(&error) => {
                        this.refused(kind);
                        vec![Ok(Event::Init), Ok(Event::InitDone)]
                    }
                    Err(error) => {
                        if is_undefined(&error) {
                            tokio::time::sleep(PAUSE).await;
                            watch.set(begin());
                        }
                        vec![Err(error)]
                    }
                    Ok(Event::InitDone) => {
                        this.listed(kind);
                        vec![Ok(Event::InitDone)]
                    }
                    Ok(event) => vec![Ok(event)],
                };
                Some((seen, (this, begin, watch)))
            },
        );
        events.flat_map(stream::iter)
    }
}

/// Whether a watch was refused because there is no such kind any more.
fn is_undefined(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            answer::is_missing(error)
        }
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::runtime::reflector;

    use super::*;
    use crate::kube::api::SnapshotRepository;

    fn refusal(code: u16) -> watcher::Error {
        let status = Status::failure("not found", "NotFound").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    fn repository(name: &str) -> SnapshotRepository {
        let mut object: SnapshotRepository = serde_json::from_value(serde_json::json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "SnapshotRepository",
            "metadata": {"name": name}, "spec": {"directory": {"path": "/x"}, "encryptionSecretRef": {"name": "k"}},
        }))
        .unwrap();
        object.metadata.uid = Some(name.to_owned());
        object
    }

    type Events = Vec<watcher::Result<Event<SnapshotRepository>>>;

    /// What a store has after the events of one watch.
    fn stored(definitions: &Arc<Definitions>, events: Events) -> Option<usize> {
        stored_of(definitions, vec![events])
    }

    /// The same of watches, one after the other; nothing while it is not complete.
    fn stored_of(definitions: &Arc<Definitions>, watches: Vec<Events>) -> Option<usize> {
        let (store, writer) = reflector::store();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watches = Mutex::new(watches.into_iter());
            let begin = move || stream::iter(watches.lock().unwrap().next().unwrap_or_default());
            let events = Arc::clone(definitions).known(Kind::Repository, begin);
            let mut events = Box::pin(reflector(writer, events));
            while events.next().await.is_some() {}
            let ready = tokio::time::timeout(Duration::ZERO, store.wait_until_ready());
            let is_complete = matches!(ready.await, Ok(Ok(())));
            is_complete.then(|| store.state().len())
        })
    }

    #[test]
    fn a_kind_without_a_definition_has_no_objects_and_is_named_until_it_comes() {
        let definitions = Arc::<Definitions>::default();
        let begins = || Ok(Event::Init);
        let count = stored(&definitions, vec![begins(), Err(refusal(404))]);
        assert_eq!(count, Some(0), "nobody waits for it");
        assert!(definitions.lacks(Kind::Repository));
        assert!(!definitions.lacks(Kind::Backup));
        let said = definitions.complaint().unwrap();
        assert!(said.contains("SnapshotRepository"), "{said}");
        let comes = vec![
            begins(),
            Err(refusal(404)),
            begins(),
            Ok(Event::InitApply(repository("a"))),
            Ok(Event::InitDone),
        ];
        assert_eq!(stored(&definitions, comes), Some(1));
        assert_eq!(definitions.complaint(), None);
    }

    #[test]
    fn what_was_known_of_a_kind_goes_with_its_definition() {
        let definitions = Arc::<Definitions>::default();
        let goes = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(repository("a"))),
            Ok(Event::InitDone),
            Ok(Event::Init),
            Err(refusal(404)),
        ];
        assert_eq!(stored(&definitions, goes), Some(0));
    }

    #[test]
    fn a_watch_without_a_definition_begins_anew() {
        let definitions = Arc::<Definitions>::default();
        let status = Status::failure("not found", "NotFound").with_code(404);
        let undefined = watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)));
        let ends = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(repository("a"))),
            Ok(Event::InitDone),
            Err(undefined),
        ];
        let gone = vec![Ok(Event::Init), Err(refusal(404))];
        assert_eq!(stored_of(&definitions, vec![ends, gone]), Some(0));
        assert!(definitions.lacks(Kind::Repository));
    }

    #[test]
    fn a_server_that_is_away_says_nothing_of_definitions() {
        let definitions = Arc::<Definitions>::default();
        let away = vec![Ok(Event::Init), Err(refusal(503))];
        assert_eq!(stored(&definitions, away), None, "not listed yet");
        assert_eq!(definitions.complaint(), None);
    }
}

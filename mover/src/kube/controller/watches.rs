//! What is watched, and whose work a change is.
//!
//! ```text
//!   backups, restores, repositories ─────────────► key of the object
//!   pods, claims, snapshots, contents of ours ───► key of the owner that their labels name
//!   pods of agents, nodes ───────────────────────► everybody who waits for a node
//! ```
//!
//! Owns: the streams and their stores. Must not: decide. Stores may be a moment old: whoever changes something reads it again first.
//!
//! Lists come as pages and not as streams: etcd before 3.4.31 and 3.5.13 answers streamed lists with an error.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::definitions::Definitions;
use super::nodes::{self, Nodes};
use super::ordered::Ordered;
use super::owner::Owner;
use super::queue::Queue;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::api::{PodVolumeBackup, PodVolumeRestore, SnapshotRepository, names};
use crate::kube::foreign::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

/// What kind of object is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `SnapshotRepository`.
    Repository,
    /// `PodVolumeBackup`.
    Backup,
    /// `PodVolumeRestore`.
    Restore,
}

impl Kind {
    /// Its name in the API, and a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "SnapshotRepository",
            Self::Backup => "PodVolumeBackup",
            Self::Restore => "PodVolumeRestore",
        }
    }
}

/// One object that is worked on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for repositories.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an owner of intermediates.
    #[must_use]
    pub fn of_owner(owner: &Owner) -> Option<Self> {
        let kind = [Kind::Backup, Kind::Restore]
            .into_iter()
            .find(|kind| kind.as_str() == owner.kind)?;
        Some(Self {
            kind,
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
        })
    }

    fn of(kind: Kind, object: &impl kube::ResourceExt) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// What is known of the cluster without asking.
#[derive(Clone, Debug)]
pub struct Stores {
    /// All backups.
    pub backups: Store<PodVolumeBackup>,
    /// All restores.
    pub restores: Store<PodVolumeRestore>,
    /// All repositories.
    pub repositories: Store<SnapshotRepository>,
    /// Pods of the system namespace: agents and holders.
    pub pods: Store<Pod>,
    /// Names, labels and taints of the nodes.
    pub nodes: Store<Node>,
    /// Which of our kinds there are at all.
    pub definitions: Arc<Definitions>,
    /// Since when a node is without a ready agent, as far as this process saw it.
    lost: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Stores {
    /// Nodes with a ready agent.
    #[must_use]
    pub fn agents(&self) -> BTreeSet<String> {
        self.pods
            .state_filter(|pod| nodes::is_agent(pod) && nodes::is_ready(pod))
            .iter()
            .filter_map(|pod| nodes::node_of(pod).map(str::to_owned))
            .collect()
    }

    /// What matters of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        Nodes::of(self.nodes.state().iter().map(AsRef::as_ref))
    }

    /// For how long this node has been without a ready agent; nothing while it has one. Counted from when this process noticed.
    #[must_use]
    pub fn agent_lost_for(&self, node: &str) -> Option<Duration> {
        let is_there = self
            .pods
            .find(|pod| {
                nodes::is_agent(pod) && nodes::is_ready(pod) && nodes::node_of(pod) == Some(node)
            })
            .is_some();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            lost.remove(node);
            return None;
        }
        let since = *lost.entry(node.to_owned()).or_insert_with(Instant::now);
        Some(since.elapsed())
    }

    /// Whether the agent of a node moves data for anybody: then an order may wait for a slot of it.
    #[must_use]
    pub fn moves_data(&self, node: &str) -> bool {
        let backup = self.backups.find(|backup| {
            backup.status.as_ref().is_some_and(|status| {
                !status.phase.unwrap_or_default().is_terminal()
                    && Ordered::of(&status.order, &status.transfer, status.node.as_deref())
                        .is_some_and(|order| order.moves_on(node))
            })
        });
        let restore = || {
            self.restores.find(|restore| {
                restore.status.as_ref().is_some_and(|status| {
                    !status.phase.unwrap_or_default().is_terminal()
                        && Ordered::of(&status.order, &status.transfer, status.node.as_deref())
                            .is_some_and(|order| order.moves_on(node))
                })
            })
        };
        backup.is_some() || restore().is_some()
    }

    /// The backup, as last seen.
    #[must_use]
    pub fn backup(&self, key: &Key) -> Option<Arc<PodVolumeBackup>> {
        self.backups
            .get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The restore, as last seen.
    #[must_use]
    pub fn restore(&self, key: &Key) -> Option<Arc<PodVolumeRestore>> {
        self.restores
            .get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The repository, as last seen.
    #[must_use]
    pub fn repository(&self, name: &str) -> Option<Arc<SnapshotRepository>> {
        self.repositories.get(&ObjectRef::new(name))
    }

    /// Keys of the backups and restores with these UIDs.
    #[must_use]
    pub fn keys_of(&self, uids: &[String]) -> Vec<Key> {
        let wanted: BTreeSet<&str> = uids.iter().map(String::as_str).collect();
        let is_wanted = |uid: Option<&str>| uid.is_some_and(|uid| wanted.contains(uid));
        let backups = self
            .backups
            .state_filter(|object| is_wanted(object.metadata.uid.as_deref()));
        let restores = self
            .restores
            .state_filter(|object| is_wanted(object.metadata.uid.as_deref()));
        backups
            .iter()
            .map(|object| Key::of(Kind::Backup, object.as_ref()))
            .chain(
                restores
                    .iter()
                    .map(|object| Key::of(Kind::Restore, object.as_ref())),
            )
            .collect()
    }

    /// Waits until everything was listed once. A kind without a definition is an empty one.
    ///
    /// # Errors
    /// `Unavailable` where a watch ended.
    pub async fn ready(&self) -> Result<()> {
        let ended = |_| Error::new(ErrorKind::Unavailable, "list what is in the cluster");
        self.backups.wait_until_ready().await.map_err(ended)?;
        self.restores.wait_until_ready().await.map_err(ended)?;
        self.repositories.wait_until_ready().await.map_err(ended)?;
        self.pods.wait_until_ready().await.map_err(ended)?;
        self.nodes.wait_until_ready().await.map_err(ended)
    }
}

/// Starts all watches as tasks of `tasks`; changes reach `queue`. They end with the set.
pub fn start(
    (client, namespace): (&Client, &str),
    definitions: &Arc<Definitions>,
    queue: &Arc<Queue<Key>>,
    tasks: &mut JoinSet<()>,
) -> Stores {
    let ours = || Config::default().labels(names::OWNER_UID);
    let (backups, restores, repositories) = (
        own(client, (Kind::Backup, definitions), queue, tasks),
        own(client, (Kind::Restore, definitions), queue, tasks),
        own(client, (Kind::Repository, definitions), queue, tasks),
    );
    let pods = pods(client, namespace, queue, tasks);
    let nodes = nodes_of(client, tasks);
    owned::<PersistentVolumeClaim>(
        Api::namespaced(client.clone(), namespace),
        ours(),
        (namespace, queue),
        tasks,
    );
    let (snapshots, contents) = (Api::all(client.clone()), Api::all(client.clone()));
    owned::<VolumeSnapshot>(snapshots, ours(), (namespace, queue), tasks);
    owned::<VolumeSnapshotContent>(contents, ours(), (namespace, queue), tasks);
    Stores {
        backups,
        restores,
        repositories,
        pods,
        nodes,
        definitions: Arc::clone(definitions),
        lost: Arc::default(),
    }
}

fn own<K>(
    client: &Client,
    (kind, definitions): (Kind, &Arc<Definitions>),
    queue: &Arc<Queue<Key>>,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let queue = Arc::clone(queue);
    let (store, writer) = reflector::store();
    let api = Api::<K>::all(client.clone());
    let begin = move || watcher::watcher(api.clone(), Config::default()).default_backoff();
    let events = Arc::clone(definitions).known(kind, begin);
    follow(events, writer, tasks, move |object: &K| {
        queue.add(Key::of(kind, object));
    });
    store
}

fn pods(
    client: &Client,
    namespace: &str,
    queue: &Arc<Queue<Key>>,
    tasks: &mut JoinSet<()>,
) -> Store<Pod> {
    let queue = Arc::clone(queue);
    let (store, writer) = reflector::store();
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let config = Config::default().labels("app.kubernetes.io/name=snaphaul");
    follow(
        watcher::watcher(api, config).default_backoff(),
        writer,
        tasks,
        move |pod: &Pod| {
            if let Some(key) = Owner::of(&pod.metadata).as_ref().and_then(Key::of_owner) {
                queue.add(key);
            }
        },
    );
    store
}

fn nodes_of(client: &Client, tasks: &mut JoinSet<()>) -> Store<Node> {
    let (store, writer) = reflector::store();
    let api = Api::<Node>::all(client.clone());
    follow(
        watcher::watcher(api, Config::default())
            .default_backoff()
            .modify(nodes::strip),
        writer,
        tasks,
        |_| {},
    );
    store
}

/// Watches objects that are only looked at again when something about them changed: nothing of them is kept.
fn owned<K>(
    api: Api<PartialObjectMeta<K>>,
    config: Config,
    (system, queue): (&str, &Arc<Queue<Key>>),
    tasks: &mut JoinSet<()>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (system, queue) = (system.to_owned(), Arc::clone(queue));
    tasks.spawn(async move {
        let events = watcher::watcher(api, config).default_backoff();
        tokio::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) => {
                    let owner = Owner::of(&object.metadata);
                    let owner = owner.filter(|owner| may_name(owner, &object.metadata, &system));
                    if let Some(key) = owner.as_ref().and_then(Key::of_owner) {
                        queue.add(key);
                    }
                }
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => tracing::warn!(%error, "a watch is interrupted"),
            }
        }
    });
}

/// Whether an object of this place can be of the owner that it names: labels in a namespace of users are of whoever may write there, and
/// make no work for other namespaces.
fn may_name(owner: &Owner, metadata: &ObjectMeta, system: &str) -> bool {
    let place = metadata.namespace.as_deref();
    place.is_none_or(|place| place == system || place == owner.namespace)
}

fn follow<K, S>(
    events: S,
    writer: Writer<K>,
    tasks: &mut JoinSet<()>,
    mut changed: impl FnMut(&K) + Send + 'static,
) where
    K: Lookup + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync + 'static,
    S: futures::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    tasks.spawn(async move {
        let events = reflector(writer, events);
        tokio::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) => {
                    changed(&object);
                }
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => tracing::warn!(%error, "a watch is interrupted"),
            }
        }
    });
}

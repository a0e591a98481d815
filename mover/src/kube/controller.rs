//! `snaphaul controller`: decides what happens, and owns all creation.
//!
//! ```text
//!   lease ─► watches ─► queue ─► worker: observe (ask the cluster) ─► next (pure) ─► act (change the cluster, write the status)
//!                          ▲                                                            │
//!                          └──────────────── change or time ◄──────────────────────────┘
//! ```
//!
//! Owns: the order above, and what all kinds of objects share. Must not: move data, or keep state that a restart would lose: all of it is in
//! the cluster's objects.

pub mod apply;
pub mod attempts;
pub mod backup;
pub mod conditions;
pub mod definitions;
pub mod events;
pub mod holder;
pub mod lease;
pub mod looks;
pub mod maintenance;
pub mod milestones;
pub mod nodes;
pub mod ordered;
pub mod owner;
pub mod quantity;
pub mod queue;
pub mod recorded;
pub mod removal;
pub mod repository;
pub mod restore;
pub mod settings;
pub mod slots;
pub mod sweep;
pub mod sync;
pub mod telemetry;
pub mod volumes;
pub mod watches;
pub mod witness;
pub mod working_copy;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attach::csi::profile::{Profile, Profiles};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;
use crate::kube::connection::Connection;
use crate::kube::http::Listener;
use events::Events;
use lease::Candidate;
use queue::{Again, Queue};
use settings::Settings;
use slots::Slots;
use telemetry::Telemetry;
use watches::{Key, Kind, Stores};

/// What every worker has.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// How this controller behaves.
    pub settings: Settings,
    /// What was seen of the cluster.
    pub stores: Stores,
    /// What is to be looked at.
    pub queue: Arc<Queue<Key>>,
    /// Who may be exposed.
    pub slots: Slots,
    /// For people.
    pub events: Events,
    /// For machines.
    pub telemetry: Arc<Telemetry>,
    /// UID of the namespace kube-system: the identity of the cluster.
    pub cluster_uid: String,
    /// First part of the names of volumes.
    pub cluster_alias: String,
    /// When repositories were looked at.
    pub looks: looks::Looks,
    /// What this process saw hold, and for how long.
    pub witness: witness::Witness,
    profiles: RwLock<Profiles>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// What is known of a driver.
    #[must_use]
    pub fn profile(&self, driver: &str) -> Profile {
        self.profiles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .of(driver)
    }

    /// Everybody who waits for a place looks again.
    pub fn wake_waiting(&self) {
        for key in self.stores.keys_of(&self.slots.waiting()) {
            self.queue.add(key);
        }
    }

    /// Reads the ConfigMap with driver profiles again. One that cannot be read leaves the ones before.
    pub async fn reload_profiles(&self) {
        let name = &self.settings.profiles_config_map;
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.settings.namespace);
        let read = match api.get_opt(name).await {
            Ok(map) => profiles(name, &map.and_then(|map| map.data).unwrap_or_default()),
            Err(error) => Err(answer::failed("read the driver profiles", name, error)),
        };
        match read {
            Ok(profiles) => {
                *self
                    .profiles
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = profiles;
            }
            Err(error) => tracing::warn!(%error, "the driver profiles stay as they were"),
        }
    }
}

/// What the entries of the ConfigMap say.
fn profiles(map: &str, entries: &BTreeMap<String, String>) -> Result<Profiles> {
    Profiles::from_entries(entries).map_err(|error| {
        // The log shows no causes.
        let message = format!("use the driver profiles: {error}");
        Error::new(ErrorKind::InvalidRequest, message)
            .object(map)
            .hint("each entry is named by a driver and holds fields of its profile, e.g. `baseSnapshot: drop`")
            .source(error)
    })
}

/// Runs a controller until `stop` becomes true.
///
/// # Errors
/// `InvalidRequest` where the address cannot be listened on, `Unavailable` where the lease was lost, and what the API server answers at the
/// start.
pub async fn run(
    connection: Connection,
    settings: Settings,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let telemetry = Arc::new(Telemetry::new());
    let listener = Listener::bind(settings.listen).await?;
    tracing::info!(address = %listener.address(), "serving metrics and health");
    let mut background = JoinSet::new();
    let pages = Arc::clone(&telemetry);
    let ended = stopped(stop.clone());
    background.spawn(async move { listener.serve(pages, ended).await });
    let leases = Api::namespaced(connection.requests.clone(), &settings.namespace);
    let mut candidate = Candidate::new(leases, &settings.identity, settings.lease);
    tokio::select! {
        () = candidate.acquire() => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    tracing::info!(identity = settings.identity, "leading");
    telemetry.leads(true);
    let outcome = tokio::select! {
        error = candidate.hold() => Err(error),
        outcome = lead(connection, settings, Arc::clone(&telemetry)) => outcome,
        () = stopped(stop) => Ok(()),
    };
    telemetry.leads(false);
    candidate.release().await;
    outcome
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone can ask for nothing any more; that is a stop, too.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// The work of the leader. Dropping the future stops it; whatever was half done is taken up from the cluster's state.
async fn lead(connection: Connection, settings: Settings, telemetry: Arc<Telemetry>) -> Result<()> {
    let queue = Arc::new(Queue::default());
    let mut tasks = JoinSet::new();
    let definitions = telemetry.definitions();
    let watched = (&connection.watches, &*settings.namespace);
    let stores = watches::start(watched, &definitions, &queue, &mut tasks);
    let client = connection.requests;
    let cluster_uid = cluster_uid(&client).await?;
    let mut settings = settings;
    if settings.holder.image.is_empty() {
        settings.holder.image = own_image(&client, &settings).await?;
    }
    let alias = settings.cluster_alias.clone();
    let context = Arc::new(Context {
        events: Events::new(client.clone(), &settings.identity),
        slots: Slots::new(settings.slots_per_node),
        cluster_alias: alias.unwrap_or_else(|| cluster_uid.chars().take(8).collect()),
        cluster_uid,
        looks: looks::Looks::default(),
        witness: witness::Witness::default(),
        profiles: RwLock::default(),
        client,
        settings,
        stores,
        queue,
        telemetry,
    });
    context.reload_profiles().await;
    context.stores.ready().await?;
    remember_exposures(&context);
    for _ in 0..context.settings.workers.max(1) {
        tasks.spawn(work(Arc::clone(&context)));
    }
    tasks.spawn(sweep::run(Arc::clone(&context)));
    tasks.spawn(sync::run(Arc::clone(&context)));
    if context.settings.maintains {
        tasks.spawn(maintenance::run(Arc::clone(&context)));
    }
    context.telemetry.works(true);
    match tasks.join_next().await {
        Some(Err(error)) => Err(Error::new(
            ErrorKind::Internal,
            "keep a task of the controller running",
        )
        .source(error)),
        _ => Err(Error::new(ErrorKind::Internal, "keep a watch running")),
    }
}

/// Those who are exposed already keep their places before anybody new gets one.
fn remember_exposures(context: &Context) {
    for pod in context.stores.pods.state() {
        if let Some(uid) = owner::owner_uid(&pod.metadata) {
            context.slots.hold(uid, holder::possible_nodes(&pod));
        }
    }
}

/// The image that holders run: that of the controller's own pod.
async fn own_image(client: &Client, settings: &Settings) -> Result<String> {
    let unknown = || {
        Error::new(
            ErrorKind::InvalidRequest,
            "find the image of the pods that open devices",
        )
        .hint("give --holder-image, or POD_NAME where the controller runs in a pod")
    };
    let name = settings.pod.as_deref().ok_or_else(unknown)?;
    let pods = Api::<Pod>::namespaced(client.clone(), &settings.namespace);
    let pod = pods
        .get(name)
        .await
        .map_err(|error| answer::failed("read the controller's own pod", name, error))?;
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let image = containers.into_iter().find_map(|container| container.image);
    image.ok_or_else(unknown)
}

async fn cluster_uid(client: &Client) -> Result<String> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = namespaces
        .get("kube-system")
        .await
        .map_err(|error| answer::failed("read the cluster's identity", "kube-system", error))?;
    namespace
        .uid()
        .ok_or_else(|| Error::new(ErrorKind::Unavailable, "read the cluster's identity"))
}

/// One worker: takes objects and looks at them, one after the other.
async fn work(context: Arc<Context>) {
    loop {
        let key = context.queue.take().await;
        let started = std::time::Instant::now();
        let outcome = match key.kind {
            Kind::Repository => repository::reconcile(&context, &key).await,
            Kind::Backup => backup::reconcile(&context, &key).await,
            Kind::Restore => restore::reconcile(&context, &key).await,
        };
        context
            .telemetry
            .looked(key.kind, outcome.is_ok(), started.elapsed());
        let again = outcome.unwrap_or_else(|error| {
            let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
            tracing::info!(kind, namespace, name, %error, "looked at again after a pause");
            Again::Failed
        });
        context.queue.done(&key, again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_logged_with_those_that_there_are() {
        let entries = |text: &str| BTreeMap::from([("d".to_owned(), text.to_owned())]);
        let error = profiles("map", &entries("baseSnapshots: keep")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(error.object_name(), Some("map"));
        // As `tracing` writes it.
        let said = error.to_string();
        for word in ["profile of d", "baseSnapshots", "`baseSnapshot`"] {
            assert!(said.contains(word), "{said}");
        }
        let good = profiles("map", &entries("cloneAccessMode: ReadOnlyMany\n")).unwrap();
        assert_eq!(good.of("d").clone_access_mode.as_str(), "ReadOnlyMany");
    }
}

//! The runner: when a repository is looked at, and doing what was planned.
//!
//! Owns: one look at a time, its bounds in time and number, and that what came of it is told. Must not: decide what is made (`plan`).
//!
//! It is a task of its own: neither other resources nor maintenance wait for it. A look that is stopped goes on with the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;

use super::held::{self, Held, Known};
use super::outcome::{self, Done};
use super::plan::{self, Existing, MOST, Place, Plan, Seen, Wanted};
use super::record::{self, Holder};
use super::{is_synced, label};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::RepositoryAccess;
use crate::kube::answer;
use crate::kube::api::backup::DeletionPolicy;
use crate::kube::api::conditions::READY;
use crate::kube::api::repository::Sync;
use crate::kube::api::{Phase, PodVolumeBackup, SnapshotRepository, names};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::maintenance::outcome::Moment;
use crate::kube::controller::repository::selects;
use crate::kube::controller::{Context, apply, maintenance};
use crate::pipeline::progress::StopFlag;
use crate::repository::access::Repository;
use crate::repository::ids::SessionKey;
use crate::repository::session::points::Point;

/// Time between two rounds through the repositories; that costs no request.
const PACE: Duration = Duration::from_secs(1);
/// Pause after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// A look that takes longer is stopped: another repository may wait.
const LOOK_LIMIT: Duration = Duration::from_secs(600);
/// Resources are made for so long in one look.
const MAKE_LIMIT: Duration = Duration::from_secs(120);
/// Points that are in memory at once.
const BATCH: usize = 64;
/// Failures after which a look makes no more.
const TOO_MANY: usize = 64;

/// Looks at all repositories that ask for it, again and again. Dropping the future stops a look that goes on.
pub async fn run(context: Arc<Context>) {
    let mut rounds: HashMap<String, Round> = HashMap::new();
    loop {
        let repositories = context.stores.repositories.state();
        rounds.retain(|uid, _| {
            let mut all = repositories.iter();
            all.any(|one| one.metadata.uid.as_deref() == Some(uid))
        });
        for repository in repositories.iter().filter(|one| asks(&context, one)) {
            let round = rounds
                .entry(repository.uid().unwrap_or_default())
                .or_default();
            if round.is_due(repository.metadata.generation) {
                let pause = one(&context, repository, &round.known).await;
                round.next = Some((repository.metadata.generation, Instant::now() + pause));
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// What is kept of a repository between two looks.
#[derive(Debug, Default)]
struct Round {
    known: Arc<Known>,
    /// When the next look is, unless the object is another by then.
    next: Option<(Option<i64>, Instant)>,
}

impl Round {
    fn is_due(&self, generation: Option<i64>) -> bool {
        self.next
            .is_none_or(|(seen, at)| seen != generation || at <= Instant::now())
    }
}

/// Whether there is anything to do for a repository: also where nothing is asked for any more, but something was.
fn asks(context: &Context, repository: &SnapshotRepository) -> bool {
    let status = repository.status.clone().unwrap_or_default();
    if repository.metadata.deletion_timestamp.is_some()
        || !conditions::is(&status.conditions, READY, Is::True)
    {
        return false;
    }
    let Some(id) = status.repository_id else {
        return false;
    };
    let is_ours = |backup: &PodVolumeBackup| is_of(backup, &id);
    repository.spec.sync != Sync::None
        || status.sync.is_some()
        || context.stores.backups.find(is_ours).is_some()
}

/// Whether `sync` made this backup of this repository.
fn is_of(backup: &PodVolumeBackup, repository_id: &str) -> bool {
    is_synced(&backup.metadata)
        && label(&backup.metadata, names::SYNCED_REPOSITORY) == Some(repository_id)
}

/// One look, and word of it; how long to wait for the next.
async fn one(context: &Context, repository: &SnapshotRepository, known: &Arc<Known>) -> Duration {
    let name = repository.name_any();
    let looking = tokio::time::timeout(LOOK_LIMIT, look(context, repository, known)).await;
    let done = looking.unwrap_or_else(|_| {
        let seconds = LOOK_LIMIT.as_secs();
        let what = format!("read all points in {seconds} seconds: the next look goes on");
        Err(Error::new(ErrorKind::Unavailable, what).object(&name))
    });
    match &done {
        Ok(done) if done.created + done.removed > 0 => {
            let (made, removed) = (done.created, done.removed);
            tracing::info!(repository = name, made, removed, "points were synced");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(repository = name, %error, "points could not be synced"),
    }
    context.telemetry.synced(&name, &done);
    let mut note = None;
    let written = maintenance::write(context, &name, |object, status| {
        let at = Moment {
            now: Timestamp::now(),
            generation: object.metadata.generation,
        };
        let (status, told) = outcome::after(status, object.spec.sync, &done, at);
        note = told;
        status
    })
    .await;
    if let Some(note) = note {
        context.events.send(repository, &note).await;
    }
    if let Err(error) = &written {
        tracing::warn!(repository = name, %error, "what was synced could not be written down");
    }
    match done {
        Ok(done) if done.more => PACE,
        // What one namespace refuses it refuses for a while, and a look lists the whole repository.
        Ok(_) if written.is_ok() => context.settings.repository_every,
        _ => TRY_AGAIN.min(context.settings.repository_every),
    }
}

async fn look(
    context: &Context,
    repository: &SnapshotRepository,
    known: &Arc<Known>,
) -> Result<Done> {
    let name = repository.name_any();
    let status = repository.status.clone().unwrap_or_default();
    let id = status.repository_id.unwrap_or_default();
    let store = Store {
        context,
        repository,
    };
    let suspects = ours(context, &id);
    let cache = Arc::clone(known);
    let held = store
        .read(move |repository, stop| held::look(repository, &cache, &suspects, stop))
        .await?;
    let places = places(context, repository, &held).await?;
    // Read last: whoever made a point was there before the point.
    let (existing, backups) = existing(context, &name, &id);
    let offered = status.sync.unwrap_or_default().offered;
    let plan = plan::plan(&Seen {
        mode: repository.spec.sync,
        cluster_uid: &context.cluster_uid,
        grants: &repository.spec.grants,
        offered: &offered.into_iter().collect(),
        held: &held.ids,
        points: &held.points,
        places: &places,
        existing: &existing,
        backups: &backups,
        most: MOST,
    });
    let mut hand = Hand {
        context,
        store,
        holder: Holder {
            name: &name,
            id: &id,
        },
        keys: &held.keys,
        began: Instant::now(),
        failures: 0,
        stuck: BTreeSet::new(),
        done: Done {
            backups: plan.there,
            unserved: plan.unserved,
            omitted: plan.omitted,
            offered: plan.kept.clone(),
            ..Done::default()
        },
    };
    hand.act(plan, &existing).await?;
    Ok(hand.done)
}

/// Points that are believed to exist, because a resource says so.
fn ours(context: &Context, id: &str) -> Vec<String> {
    let all = context
        .stores
        .backups
        .state_filter(|backup| is_of(backup, id));
    all.iter()
        .filter_map(|backup| super::point_of(backup.metadata.name.as_deref()?).map(str::to_owned))
        .collect()
}

/// All backups that name the repository, and the UIDs of all backups.
fn existing(context: &Context, name: &str, id: &str) -> (Vec<Existing>, BTreeSet<String>) {
    let all = context.stores.backups.state();
    let uids = all.iter().filter_map(|backup| backup.metadata.uid.clone());
    let uids = uids.collect();
    let named = all
        .iter()
        .filter(|backup| backup.spec.repository_ref.name == name);
    let existing = named.map(|backup| {
        let status = backup.status.clone().unwrap_or_default();
        let point = status.point.filter(|point| point.repository_id == id);
        Existing {
            namespace: backup.namespace().unwrap_or_default(),
            name: backup.name_any(),
            uid: backup.uid().unwrap_or_default(),
            synced: is_of(backup, id),
            point: point.map(|point| point.id),
            written: status.phase.unwrap_or_default() != Phase::New,
            deletes: backup.spec.deletion_policy == DeletionPolicy::Delete,
            deleting: backup.metadata.deletion_timestamp.is_some(),
        }
    });
    (existing.collect(), uids)
}

/// The namespaces that points name, as far as they exist, stay and are served.
async fn places(
    context: &Context,
    repository: &SnapshotRepository,
    held: &Held,
) -> Result<BTreeMap<String, Place>> {
    let spec = &repository.spec;
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    for point in &held.points {
        let name = &point.origin.namespace;
        let mut grants = spec.grants.iter();
        // Nobody is asked about namespaces that get nothing anyway.
        if point.origin.cluster_uid == context.cluster_uid
            || grants.any(|grant| grant.from.namespace == *name && grant.to.contains(name))
        {
            wanted.insert(name);
        }
    }
    let api = Api::<Namespace>::all(context.client.clone());
    let mut places = BTreeMap::new();
    for name in wanted {
        let found = api.get_opt(name).await;
        let found = found.map_err(|error| answer::failed("read the namespace", name, error))?;
        let Some(found) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            continue;
        };
        if selects(spec.allowed_namespaces.as_ref(), found.labels()) {
            let uid = found.uid().unwrap_or_default();
            places.insert(name.to_owned(), Place { uid });
        }
    }
    Ok(places)
}

/// The repository's store, reached from a thread: its client has a runtime of its own.
#[derive(Clone, Copy)]
struct Store<'a> {
    context: &'a Context,
    repository: &'a SnapshotRepository,
}

/// Stops the thread when nobody waits for it any more.
struct StopWithUs(StopFlag);

impl Drop for StopWithUs {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Store<'_> {
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Repository, &StopFlag) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let settings = &self.context.settings;
        let (client, system) = (&self.context.client, &settings.namespace);
        let access = RepositoryAccess::read(client, system, self.repository).await?;
        let bandwidth = settings.maintenance_bandwidth;
        let stop = StopWithUs(StopFlag::default());
        let flag = stop.0.clone();
        let reading =
            tokio::task::spawn_blocking(move || work(&access.open(bandwidth)?, &flag)).await;
        drop(stop);
        reading.map_err(|error| {
            Error::new(ErrorKind::Internal, "read the points of a repository").source(error)
        })?
    }
}

/// What came of one resource.
enum Made {
    Created,
    /// It was there, and has its status now.
    Written,
    /// Somebody else's has the name, or the API server takes none like it.
    Omitted,
    /// The point is gone meanwhile.
    Gone,
}

/// Removes a resource, unless somebody wanted meanwhile that its point goes with it. Whether it did.
async fn remove(api: &Api<PodVolumeBackup>, gone: &Existing) -> Result<bool> {
    let read = api.get_opt(&gone.name).await;
    let found = read.map_err(|error| answer::failed("read", &gone.name, error))?;
    let is_it = |found: &PodVolumeBackup| {
        found.uid().as_deref() == Some(&gone.uid)
            && found.spec.deletion_policy != DeletionPolicy::Delete
    };
    match found.filter(is_it) {
        Some(found) => apply::delete_seen(api, &found).await,
        None => Ok(false),
    }
}

/// Does what was planned.
struct Hand<'a> {
    context: &'a Context,
    store: Store<'a>,
    holder: Holder<'a>,
    keys: &'a BTreeMap<String, SessionKey>,
    began: Instant,
    failures: usize,
    /// Namespaces that refused something: the others come first.
    stuck: BTreeSet<String>,
    done: Done,
}

impl Hand<'_> {
    async fn act(&mut self, plan: Plan, existing: &[Existing]) -> Result<()> {
        for gone in plan.remove.iter().filter_map(|at| existing.get(*at)) {
            let api = self.backups(&gone.namespace);
            match remove(&api, gone).await {
                Ok(removed) => self.done.removed += usize::from(removed),
                Err(error) => self.failed(&gone.namespace, &error),
            }
        }
        self.make(&plan.write).await?;
        for offer in plan.offers {
            if self.make(&offer.create).await? {
                // What there was no room for is offered when there is.
                if !offer.is_cut {
                    self.done.offered.insert(offer.pair);
                }
            }
        }
        Ok(())
    }

    fn backups(&self, namespace: &str) -> Api<PodVolumeBackup> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn failed(&mut self, namespace: &str, error: &Error) {
        tracing::warn!(repository = self.holder.name, namespace, %error, "a point is synced later");
        self.failures += 1;
        self.stuck.insert(namespace.to_owned());
        let why = crate::kube::controller::repository::explained(error);
        self.done.failure.get_or_insert(why);
    }

    /// Makes these, or writes their status; whether all of it was done.
    async fn make(&mut self, all: &[Wanted]) -> Result<bool> {
        let mut complete = true;
        for batch in all.chunks(BATCH) {
            if self.failures >= TOO_MANY || self.began.elapsed() > MAKE_LIMIT {
                self.done.more |= self.failures < TOO_MANY;
                return Ok(false);
            }
            for (wanted, point) in self.load(batch).await? {
                if self.stuck.contains(&wanted.namespace) {
                    complete = false;
                    continue;
                }
                let made = match point {
                    None => Ok(Made::Gone),
                    Some(point) => self.make_one(&wanted, &point).await,
                };
                match made {
                    Ok(Made::Created) => {
                        self.done.created += 1;
                        self.done.backups += 1;
                    }
                    Ok(Made::Omitted) => self.done.omitted += 1,
                    Ok(Made::Written | Made::Gone) => {}
                    Err(error) => {
                        self.failed(&wanted.namespace, &error);
                        complete = false;
                    }
                }
            }
        }
        Ok(complete)
    }

    async fn load(&self, batch: &[Wanted]) -> Result<Vec<(Wanted, Option<Point>)>> {
        let key = |wanted: &Wanted| self.keys.get(&wanted.point).copied();
        let batch: Vec<_> = batch
            .iter()
            .map(|wanted| (wanted.clone(), key(wanted)))
            .collect();
        self.store
            .read(move |repository, stop| {
                let mut loaded = Vec::new();
                for (wanted, key) in batch {
                    stop.check()?;
                    let point = match key {
                        Some(key) => held::point(repository, &key)?,
                        None => None,
                    };
                    loaded.push((wanted, point));
                }
                Ok(loaded)
            })
            .await
    }

    /// Two requests: what a crash leaves between them is marked, and is found by the next look.
    async fn make_one(&self, wanted: &Wanted, point: &Point) -> Result<Made> {
        let Some(object) = record::object(wanted, point, self.holder) else {
            return Ok(Made::Omitted);
        };
        let api = self.backups(&wanted.namespace);
        let created = match apply::create(&api, &object).await {
            Err(error) if error.kind() == ErrorKind::InvalidRequest => {
                tracing::warn!(repository = self.holder.name, point = wanted.point, %error, "a point has no resource");
                return Ok(Made::Omitted);
            }
            answer => answer?,
        };
        let is_new = created.is_some();
        let name = object.name_any();
        let found = match created {
            Some(created) => Some(created),
            None => api
                .get_opt(&name)
                .await
                .map_err(|error| answer::failed("read", &name, error))?,
        };
        let Some(found) = found else {
            return Ok(Made::Gone);
        };
        if !is_of(&found, self.holder.id) || found.spec != object.spec {
            return Ok(Made::Omitted);
        }
        let old = found.status.clone().unwrap_or_default();
        if old.phase.unwrap_or_default() == Phase::New {
            let at = (Timestamp::now(), found.metadata.generation);
            let Some(status) = record::status(point, self.holder, at) else {
                return Ok(Made::Omitted);
            };
            apply::status(&api, &found.metadata, &old, &status).await?;
        }
        Ok(if is_new { Made::Created } else { Made::Written })
    }
}

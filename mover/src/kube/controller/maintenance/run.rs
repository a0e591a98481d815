//! The one runner of a process.
//!
//! Owns: when it looks, the thread that a run has, its end with the process, and that what came of it is written down. Must not: decide what
//! is due or what a result means.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::{Resource as _, ResourceExt as _};
use tokio::task::JoinHandle;

use super::due::{self, Candidate};
use super::outcome::{self, Moment};
use super::stillness::{self, Ended, Patience};
use super::{Done, Task, Verified};
use crate::error::{ErrorKind, Result};
use crate::kube::access::{Bandwidth, RepositoryAccess};
use crate::kube::answer;
use crate::kube::api::conditions::READY;
use crate::kube::api::repository::{Maintenance, MaintenanceRun, VerifyDepth};
use crate::kube::api::{SnapshotRepository, SnapshotRepositoryStatus};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::events::Note;
use crate::kube::controller::{Context, apply};
use crate::pipeline::budget::DEFAULT_MEMORY_BYTES;
use crate::pipeline::gc::{self, GcRequest};
use crate::pipeline::progress::{Progress, StopFlag};
use crate::pipeline::verify::{self, VerifyLevel, VerifyRequest};
use crate::repository::access::Repository;
use crate::repository::session::points::PointStatus;
use crate::repository::session::resolve::resolve;

/// Longest time until the resources are looked at again; that costs no request.
const LOOK: Duration = Duration::from_secs(5);
/// Pause of a run of which not even the beginning could be written down, or not the end; others have their turn.
const NOT_WRITTEN: Duration = Duration::from_secs(60);
/// Threads of a run: it must leave the node to those who work for somebody.
const JOBS: usize = 2;
/// How often a status is written over a version that somebody else wrote meanwhile.
const WRITES: u32 = 8;
/// Pause between two of these.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// UID of a repository and what is done to it.
type Job = (String, Task);

/// What the runner knows that no status tells.
#[derive(Debug, Default)]
struct Memory {
    /// What a watch did not tell yet: without it a run that has just ended would be due again.
    own: HashMap<Job, MaintenanceRun>,
    /// Not before this moment: it could not be written down.
    postponed: HashMap<(String, Task), Timestamp>,
    /// Runs that hang, by UID of the repository: it has no other before they end.
    hanging: HashMap<String, JoinHandle<Result<Done>>>,
}

impl Memory {
    /// Of repositories that are gone, runs that have ended and pauses that are over nothing need be known.
    fn tidy(&mut self, repositories: &[Arc<SnapshotRepository>], now: Timestamp) {
        self.own.retain(|(uid, _), _| {
            let mut all = repositories.iter();
            all.any(|repository| repository.metadata.uid.as_deref() == Some(uid))
        });
        self.postponed.retain(|_, until| *until > now);
        self.hanging.retain(|_, run| !run.is_finished());
    }

    fn postpone(&mut self, next: &Candidate, now: Timestamp) {
        let until = now.checked_add(NOT_WRITTEN).unwrap_or(Timestamp::MAX);
        self.postponed
            .insert((next.repository.clone(), next.task), until);
    }
}

/// Does what is due, again and again. Dropping the future stops a run that goes on.
pub async fn run(context: Arc<Context>) {
    let mut memory = Memory::default();
    loop {
        let now = Timestamp::now();
        let pause = match next(&context, &mut memory, now) {
            Some(next) if next.due <= now => {
                if let Err(error) = perform(&context, &next, &mut memory).await {
                    let (repository, task) = (&next.repository, next.task.as_str());
                    tracing::warn!(repository, task, %error, "maintenance could not be written down");
                    memory.postpone(&next, Timestamp::now());
                }
                WRITE_PAUSE
            }
            Some(next) => Duration::try_from(next.due.duration_since(now))
                .unwrap_or_default()
                .min(LOOK),
            None => LOOK,
        };
        tokio::time::sleep(pause).await;
    }
}

/// What is due first of all repositories that can be used.
fn next(context: &Context, memory: &mut Memory, now: Timestamp) -> Option<Candidate> {
    let repositories = context.stores.repositories.state();
    memory.tidy(&repositories, now);
    candidate(&repositories, memory, now)
}

fn candidate(
    repositories: &[Arc<SnapshotRepository>],
    memory: &Memory,
    now: Timestamp,
) -> Option<Candidate> {
    let mut candidates = Vec::new();
    let free = |one: &&Arc<SnapshotRepository>| {
        let uid = one.metadata.uid.as_ref();
        uid.is_none_or(|uid| !memory.hanging.contains_key(uid))
    };
    for repository in repositories.iter().filter(|one| usable(one)).filter(free) {
        let status = repository.status.clone().unwrap_or_default();
        for task in Task::ALL {
            let Some(interval) = due::interval(&repository.spec.maintenance, task) else {
                continue;
            };
            let job = (repository.uid().unwrap_or_default(), task);
            let last = newer(outcome::last(&status, task), memory.own.get(&job));
            let due = due::due(interval, created(repository, now), last, now);
            let name = repository.name_any();
            let postponed = memory.postponed.get(&(name.clone(), task)).copied();
            candidates.push(Candidate {
                due: postponed.map_or(due, |until| due.max(until)),
                repository: name,
                task,
            });
        }
    }
    due::first(candidates)
}

fn newer<'a>(
    told: Option<&'a MaintenanceRun>,
    own: Option<&'a MaintenanceRun>,
) -> Option<&'a MaintenanceRun> {
    // Times lose what is below a second, or a microsecond, on their way through the API server.
    match (told, own) {
        (Some(told), Some(own)) if told.started.0.as_second() > own.started.0.as_second() => {
            Some(told)
        }
        (told, own) => own.or(told),
    }
}

fn usable(repository: &SnapshotRepository) -> bool {
    let conditions = repository.status.as_ref().map(|status| &status.conditions);
    repository.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|conditions| conditions::is(conditions, READY, Is::True))
}

fn created(repository: &SnapshotRepository, now: Timestamp) -> Timestamp {
    let created = repository.metadata.creation_timestamp.as_ref();
    created.map_or(now, |time| time.0)
}

/// Runs a task and writes down when it began and how it ended.
async fn perform(context: &Context, next: &Candidate, memory: &mut Memory) -> Result<()> {
    let (name, task) = (next.repository.as_str(), next.task);
    let began = Timestamp::now();
    let begun = write(context, name, |_, status| {
        outcome::begun(status, task, began)
    })
    .await?;
    let Some(repository) = begun else {
        return Ok(());
    };
    tracing::info!(
        repository = name,
        task = task.as_str(),
        "maintenance begins"
    );
    let clock = Instant::now();
    context.telemetry.maintains(task, true);
    let result = match work(context, &repository, task).await {
        Ok(Ended::Itself(result)) => result,
        Ok(Ended::Never(run)) => {
            let uid = repository.uid().unwrap_or_default();
            memory.hanging.insert(uid, run);
            Err(stillness::hangs(Patience::default().still))
        }
        Err(error) => Err(error),
    };
    context.telemetry.maintains(task, false);
    context
        .telemetry
        .maintained(name, task, &result, clock.elapsed());
    let mut note = None;
    let ended = write(context, name, |object, status| {
        let at = Moment {
            now: Timestamp::now(),
            generation: object.metadata.generation,
        };
        let (mut status, told) = outcome::ended(status, task, &result, at);
        note = told;
        outcome::schedule(
            &mut status,
            &object.spec.maintenance,
            created(object, at.now),
            at.now,
        );
        status
    })
    .await;
    remember(&mut memory.own, &repository, task, &result);
    tell(context, &repository, note, &result).await;
    ended.map(drop)
}

/// Keeps the end of a run for the time until a watch tells of it, also where it could not be written down.
fn remember(
    own: &mut HashMap<Job, MaintenanceRun>,
    repository: &SnapshotRepository,
    task: Task,
    result: &Result<Done>,
) {
    let status = repository.status.clone().unwrap_or_default();
    let at = Moment {
        now: Timestamp::now(),
        generation: None,
    };
    let (status, _) = outcome::ended(&status, task, result, at);
    if let Some(run) = outcome::last(&status, task) {
        let uid = repository.uid().unwrap_or_default();
        own.insert((uid, task), run.clone());
    }
}

async fn tell(
    context: &Context,
    repository: &SnapshotRepository,
    note: Option<Note>,
    result: &Result<Done>,
) {
    let name = repository.name_any();
    match result {
        Ok(_) => tracing::info!(repository = name, "maintenance has ended"),
        Err(error) => tracing::warn!(repository = name, %error, "maintenance failed"),
    }
    if let Some(note) = note {
        context.events.send(repository, &note).await;
    }
}

/// Changes the status of a repository, over whatever version it has; nothing where it is gone.
pub(in crate::kube::controller) async fn write(
    context: &Context,
    name: &str,
    mut change: impl FnMut(&SnapshotRepository, &SnapshotRepositoryStatus) -> SnapshotRepositoryStatus,
) -> Result<Option<SnapshotRepository>> {
    let api = Api::<SnapshotRepository>::all(context.client.clone());
    let mut tries = 1;
    loop {
        let found = api
            .get_opt(name)
            .await
            .map_err(|error| answer::failed("read the SnapshotRepository", name, error))?;
        let Some(object) = found else {
            return Ok(None);
        };
        let old = object.status.clone().unwrap_or_default();
        let new = change(&object, &old);
        match apply::status(&api, object.meta(), &old, &new).await {
            Ok(written) => {
                context.telemetry.repository_health(name, &new);
                return Ok(Some(written.unwrap_or(object)));
            }
            // Somebody else's write came between, or the server is away for a moment.
            Err(error) if error.kind() == ErrorKind::Unavailable && tries < WRITES => {
                tracing::debug!(%error, "the status is written again");
                tokio::time::sleep(WRITE_PAUSE * tries).await;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks a run to stop when nobody waits for it any more; the runtime waits for its thread.
struct StopWithUs(StopFlag);

impl Drop for StopWithUs {
    fn drop(&mut self) {
        self.0.stop();
    }
}

async fn work(
    context: &Context,
    repository: &SnapshotRepository,
    task: Task,
) -> Result<Ended<Done>> {
    let system = &context.settings.namespace;
    let access = RepositoryAccess::read(&context.client, system, repository).await?;
    let stop = StopWithUs(StopFlag::default());
    let flag = stop.0.clone();
    let settings = repository.spec.maintenance.clone();
    let status = repository.status.as_ref();
    let known = status.map(|status| status.damaged_points.clone());
    let bandwidth = context.settings.maintenance_bandwidth;
    let moved: Arc<OnceLock<(Arc<Repository>, Arc<Progress>)>> = Arc::default();
    let moves = Arc::clone(&moved);
    let work = move || {
        let opened = opened(&access, bandwidth, flag)?;
        // Set once: this is the only run that has it.
        let _ = moves.set((Arc::clone(&opened.repository), Arc::clone(&opened.progress)));
        match task {
            Task::Gc => gc::run(&opened, &GcRequest::default()).map(Done::Gc),
            Task::Verify => {
                verified(&opened, &settings, &known.unwrap_or_default()).map(Done::Verify)
            }
        }
    };
    let run = tokio::task::spawn_blocking(work);
    let signs = || moved.get().map_or(0, signs);
    Ok(stillness::watched(run, signs, &stop.0, Patience::default()).await)
}

/// Counts up with every request and every byte.
fn signs(moved: &(Arc<Repository>, Arc<Progress>)) -> u64 {
    let (repository, progress) = moved;
    let counts = repository.store.counts();
    [
        counts.put,
        counts.get,
        counts.head,
        counts.list,
        counts.delete,
        counts.get_bytes,
        counts.put_bytes,
        Progress::read_of(&progress.done),
        Progress::read_of(&progress.read),
    ]
    .into_iter()
    .fold(0, u64::wrapping_add)
}

fn opened(
    access: &RepositoryAccess,
    bandwidth: Bandwidth,
    stop: StopFlag,
) -> Result<crate::pipeline::Context> {
    Ok(crate::pipeline::Context {
        repository: Arc::new(access.open_for(bandwidth, &stop)?),
        progress: Arc::new(Progress::default()),
        stop,
        jobs: JOBS,
        memory: DEFAULT_MEMORY_BYTES,
    })
}

fn verified(
    context: &crate::pipeline::Context,
    settings: &Maintenance,
    known: &[String],
) -> Result<Verified> {
    let request = VerifyRequest {
        points: Vec::new(),
        level: match settings.verify_level {
            VerifyDepth::Metadata => VerifyLevel::Metadata,
            VerifyDepth::Sample => VerifyLevel::Sample,
            VerifyDepth::Data => VerifyLevel::Data,
        },
        sample_percent: f64::from(settings.verify_sample_percent.clamp(1, 100)),
    };
    let report = verify::run(context, &request)?;
    let all_data = match request.level {
        VerifyLevel::Data => true,
        VerifyLevel::Sample => settings.verify_sample_percent >= 100,
        VerifyLevel::Metadata => false,
    };
    let mut still_there = Vec::new();
    for point in known {
        context.stop.check()?;
        if is_there(&context.repository, point)? {
            still_there.push(point.clone());
        }
    }
    Ok(Verified {
        report,
        all_data,
        still_there,
    })
}

/// Whether a point is there and nobody forgot it; one whose records are damaged is.
fn is_there(repository: &Repository, point: &str) -> Result<bool> {
    match resolve(repository, point) {
        Ok(point) => Ok(point.status != PointStatus::Forgotten),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(false),
            ErrorKind::Corrupt | ErrorKind::InvalidRequest => Ok(true),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Arc<SnapshotRepository> {
        let object = serde_json::json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "SnapshotRepository",
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "directory": {"path": "/x"}, "encryptionSecretRef": {"name": "k"},
                "maintenance": {"gcInterval": "1h", "verifyInterval": "0s"},
            },
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "Opened", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn one_that_cannot_be_written_down_and_one_that_hangs_hold_up_no_other() {
        let all = ["a", "b", "c"].map(repository);
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut memory = Memory::default();
        let first = |memory: &Memory| candidate(&all, memory, now).unwrap();
        assert_eq!(first(&memory).repository, "a");
        memory.postpone(&first(&memory), now);
        assert_eq!(first(&memory).repository, "b");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let hangs = runtime.spawn(std::future::pending());
        memory.hanging.insert("b".to_owned(), hangs);
        memory.tidy(&all, now);
        assert_eq!(first(&memory).repository, "c");
        // Its turn comes again.
        let later = now.checked_add(NOT_WRITTEN).unwrap();
        memory.tidy(&all, later);
        assert_eq!(candidate(&all, &memory, later).unwrap().repository, "a");
        drop(runtime);
        memory.tidy(&all, later);
        memory.postpone(&first(&memory), later);
        assert_eq!(candidate(&all, &memory, later).unwrap().repository, "b");
    }
}

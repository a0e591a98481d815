//! The one runner of a process.
//!
//! Owns: when it looks, the thread that a run has, its end with the process, and that what came of it is written down. Must not: decide what
//! is due or what a result means.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::{Resource as _, ResourceExt as _};

use super::due::{self, Candidate};
use super::outcome::{self, Moment};
use super::{Done, Task, Verified};
use crate::error::{Error, ErrorKind, Result};
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
/// Pause where not even the beginning of a run could be written down.
const NOT_WRITTEN: Duration = Duration::from_secs(15);
/// Threads of a run: it must leave the node to those who work for somebody.
const JOBS: usize = 2;
/// How often a status is written over a version that somebody else wrote meanwhile.
const WRITES: u32 = 8;
/// Pause between two of these.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// UID of a repository and what is done to it.
type Job = (String, Task);

/// Does what is due, again and again. Dropping the future stops a run that goes on.
pub async fn run(context: Arc<Context>) {
    // What a watch did not tell yet: without it a run that has just ended would be due again.
    let mut own: HashMap<Job, MaintenanceRun> = HashMap::new();
    loop {
        let now = Timestamp::now();
        let pause = match next(&context, &mut own, now) {
            Some(next) if next.due <= now => match perform(&context, &next, &mut own).await {
                Ok(()) => WRITE_PAUSE,
                Err(error) => {
                    let (repository, task) = (&next.repository, next.task.as_str());
                    tracing::warn!(repository, task, %error, "maintenance could not be written down");
                    NOT_WRITTEN
                }
            },
            Some(next) => Duration::try_from(next.due.duration_since(now))
                .unwrap_or_default()
                .min(LOOK),
            None => LOOK,
        };
        tokio::time::sleep(pause).await;
    }
}

/// What is due first of all repositories that can be used.
fn next(
    context: &Context,
    own: &mut HashMap<Job, MaintenanceRun>,
    now: Timestamp,
) -> Option<Candidate> {
    let repositories = context.stores.repositories.state();
    own.retain(|(uid, _), _| {
        let mut all = repositories.iter();
        all.any(|repository| repository.metadata.uid.as_deref() == Some(uid))
    });
    let mut candidates = Vec::new();
    for repository in repositories.iter().filter(|one| usable(one)) {
        let status = repository.status.clone().unwrap_or_default();
        for task in Task::ALL {
            let Some(interval) = due::interval(&repository.spec.maintenance, task) else {
                continue;
            };
            let job = (repository.uid().unwrap_or_default(), task);
            let last = newer(outcome::last(&status, task), own.get(&job));
            candidates.push(Candidate {
                due: due::due(interval, created(repository, now), last, now),
                repository: repository.name_any(),
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
async fn perform(
    context: &Context,
    next: &Candidate,
    own: &mut HashMap<Job, MaintenanceRun>,
) -> Result<()> {
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
    let result = work(context, &repository, task).await;
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
    remember(own, &repository, task, &result);
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

async fn work(context: &Context, repository: &SnapshotRepository, task: Task) -> Result<Done> {
    let system = &context.settings.namespace;
    let access = RepositoryAccess::read(&context.client, system, repository).await?;
    let stop = StopWithUs(StopFlag::default());
    let flag = stop.0.clone();
    let settings = repository.spec.maintenance.clone();
    let status = repository.status.as_ref();
    let known = status.map(|status| status.damaged_points.clone());
    let bandwidth = context.settings.maintenance_bandwidth;
    let work = move || {
        let opened = opened(&access, bandwidth, flag)?;
        match task {
            Task::Gc => gc::run(&opened, &GcRequest::default()).map(Done::Gc),
            Task::Verify => {
                verified(&opened, &settings, &known.unwrap_or_default()).map(Done::Verify)
            }
        }
    };
    let outcome = tokio::task::spawn_blocking(work).await;
    drop(stop);
    outcome
        .map_err(|error| Error::new(ErrorKind::Internal, "maintain a repository").source(error))?
}

fn opened(
    access: &RepositoryAccess,
    bandwidth: Bandwidth,
    stop: StopFlag,
) -> Result<crate::pipeline::Context> {
    Ok(crate::pipeline::Context {
        repository: Arc::new(access.open(bandwidth)?),
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

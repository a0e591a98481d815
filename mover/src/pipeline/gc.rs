//! One run of the garbage collector: what the planner decides (`repository::gc`), done on a store.
//!
//! ```text
//!   admission ─► listings in order ─► records of sessions in flight ─► liveness of roots ─► plan ─► brake
//!                    ▲ again, where another run is ahead or a silent session was fenced       │
//!                                                                                            ▼
//!   rewriting of sparse segments ◄─ leftovers ◄─ dead data ◄─ control objects, in rounds ◄─ second copies
//! ```
//!
//! Owns: the I/O of a run and its bounds. Must not: decide what is dead. Any number of runs may go on at once, on any machines; each may
//! be killed at any moment: what it did not do, the next run does. A full store is no obstacle, since deletions come first.
//! Memory: the planner's tables, `gate` for liveness, and two buffers of a segment for each one being rewritten.

mod admission;
mod crew;
mod fence;
mod gate;
mod listing;
mod mend;
mod purge;
mod records;
mod rewrite;
mod roots;
mod tally;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::report::GcReport;
use crate::repository::gc::fencing::SILENT_AFTER;
use crate::repository::gc::{Compaction, CompactionPolicy, DecidedBy, Plan, StartOver};
use crate::repository::ids::{SessionId, name};
use crate::repository::store::Store;
use fence::Fencing;
use tally::Tally;

/// How often a run begins again before it gives up. Each time another run was ahead, which passes, or an object is lost, which
/// does not.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(200);
const REQUESTS: usize = 32;

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct GcRequest {
    /// Only find out and report; nothing is written.
    pub dry_run: bool,
    /// Silence after which an unfinished session of another machine is given up.
    pub fence_after: Duration,
    /// Unfinished sessions whose process is known to be dead.
    pub abort: Vec<SessionId>,
    /// Collect a directory on a network file system from another host than the one that made the repository.
    pub any_host: bool,
    /// Rewrite sparse segments too.
    pub rewrite: bool,
    /// Rewrite them also where that writes more than it frees.
    pub thorough: bool,
    /// Requests in flight at once: enough to hide a store's latency, few enough for one that throttles.
    pub requests: usize,
    /// Pause before the second attempt; each further one waits as much longer.
    pub pause: Duration,
}

impl Default for GcRequest {
    fn default() -> Self {
        Self {
            dry_run: false,
            fence_after: SILENT_AFTER,
            abort: Vec::new(),
            any_host: false,
            rewrite: true,
            thorough: false,
            requests: REQUESTS,
            pause: PAUSE,
        }
    }
}

/// Collects garbage.
///
/// # Errors
/// `InvalidRequest` where this host may not collect or a session to abort is alive or unknown; `Corrupt` where so much is lost that a
/// person must look first; `AccessDenied` where every deletion was refused; `Interrupted`; and what the store answers. Whatever the error:
/// what was deleted was dead, and the next run goes on.
pub fn run(context: &Context, request: &GcRequest) -> Result<GcReport> {
    let started = Instant::now();
    admission::check(&context.repository, request)?;
    let tally = Tally::default();
    let job = Job {
        context,
        request,
        tally: &tally,
    };
    let plan = observe(&job)?;
    check_brake(&plan)?;
    tally.note_view(&plan);
    let policy = CompactionPolicy {
        at_any_cost: request.thorough,
        ..CompactionPolicy::new(context.repository.config.chunk_size + 16)
    };
    plan_progress(context, &plan, &policy);
    if request.dry_run {
        purge::preview(&plan, &tally);
    } else {
        mend::copies(&job, &plan)?;
        purge::control(&job, &plan)?;
        purge::data(&job, &plan)?;
    }
    if request.rewrite {
        rewrite::sparse(&job, &plan, &policy)?;
    } else {
        tally.stays(plan.dead_bytes(&policy));
    }
    if !request.dry_run {
        context.repository.store.sync()?;
    }
    let mut report = tally.into_report(request.dry_run);
    report.duration_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What all steps of a run share.
#[derive(Clone, Copy)]
struct Job<'a> {
    context: &'a Context,
    request: &'a GcRequest,
    tally: &'a Tally,
}

impl Job<'_> {
    fn store(&self) -> &dyn Store {
        &*self.context.repository.store
    }

    /// Runs `work` on every item, with as many requests in flight as the run may have.
    fn for_each<T: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(T) -> Result<()> + Sync,
    ) -> Result<()> {
        crew::for_each(items, self.request.requests, &self.context.stop, work)
    }
}

/// Lists and reads until a view holds together.
fn observe(job: &Job<'_>) -> Result<Plan> {
    let mut fencing = Fencing::new(job.request);
    let mut attempt = 1;
    loop {
        match observe_once(job, &mut fencing) {
            Ok(plan) => return Ok(plan),
            Err(Unsettled::Fenced) => {}
            Err(Unsettled::Failed(error)) => return Err(error),
            Err(Unsettled::Moved(moved)) if attempt < ATTEMPTS => {
                tracing::info!(%moved, "begin again");
                job.tally.started_over();
                pause(job.context, job.request.pause * attempt)?;
                attempt += 1;
            }
            Err(Unsettled::Moved(moved)) => return Err(give_up(job.store(), &moved)),
        }
    }
}

/// Why one look at the store was not enough.
enum Unsettled {
    /// Silent sessions were fenced: a new look sees them decided.
    Fenced,
    /// The store changed under the look.
    Moved(StartOver),
    /// It failed.
    Failed(Error),
}

impl From<Error> for Unsettled {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<StartOver> for Unsettled {
    fn from(moved: StartOver) -> Self {
        Self::Moved(moved)
    }
}

fn observe_once(job: &Job<'_>, fencing: &mut Fencing<'_>) -> Result<Plan, Unsettled> {
    let mut view = listing::view(job)?;
    fencing.pretend(&mut view);
    let mut census = view.finish(DecidedBy::Slot);
    let flights = fencing.flights(job, &census)?;
    if fencing.fence(job, &flights, &census.fenceable())? {
        return Err(Unsettled::Fenced);
    }
    for (key, open) in &flights {
        let body = open.as_ref();
        census.hold(*key, body.map(|open| (&open.pins[..], &open.adopts[..])))?;
    }
    for (key, found) in records::look_again(job, census.suspects())? {
        census.examine(&key, found)?;
    }
    let without_slot = census.without_slot();
    let plan = roots::mark(job, census.finish()?)?;
    job.tally.note_flights(&flights);
    job.tally.note_without_slot(&without_slot);
    Ok(plan)
}

fn pause(context: &Context, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        context.stop.check()?;
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    Ok(())
}

/// Nobody is ahead of this run for so long: either the repository never rests, or what it needs is lost.
fn give_up(store: &dyn Store, moved: &StartOver) -> Error {
    let lost = moved.object.starts_with(name::LIVE);
    if lost && matches!(store.head(&moved.object), Ok(None)) {
        return Error::new(
            ErrorKind::Corrupt,
            "find the liveness of a point: without it nothing may be called dead",
        )
        .object(&moved.object)
        .hint("`snaphaul verify` says which point it belongs to; repair or forget that point, then run gc again");
    }
    let message =
        format!("get a view of the repository that holds together: {moved}, {ATTEMPTS} times");
    Error::new(ErrorKind::Unavailable, message)
        .object(&moved.object)
        .hint("run gc again when fewer other collectors are at work; nothing was deleted")
}

fn check_brake(plan: &Plan) -> Result<()> {
    let Some(brake) = plan.brake() else {
        return Ok(());
    };
    let message = format!(
        "delete nothing: {} of {} manifests have no start record, as if the store had lost them",
        brake.without_open, brake.manifests
    );
    Err(Error::new(ErrorKind::Corrupt, message)
        .object(name::OPEN)
        .hint("look at `snaphaul points` and at the store's own history first; a lost prefix must not be read as an order to forget"))
}

/// What a person sees move: bytes deleted and rewritten.
fn plan_progress(context: &Context, plan: &Plan, policy: &CompactionPolicy) {
    let dead: u64 = plan
        .dead_data()
        .chain(plan.superseded())
        .map(|dead| dead.size())
        .sum();
    let sparse = plan.compactions(policy, dead);
    let rewritten: u64 = sparse
        .iter()
        .map(|found: &Compaction<'_>| u64::from(found.size))
        .sum();
    context
        .progress
        .total
        .store(dead + rewritten, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;

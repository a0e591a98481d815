//! Gives up sessions that are surely or presumably dead, before they are collected.
//!
//! Owns: the facts that the planner's policy judges, and the abort markers. Must not: carry safety: a session fenced by mistake is
//! refused its commit and starts again.
//!
//! A backup that ended without a commit is left to its silence even if its process is known to be gone: until then the next backup of
//! the volume resumes from what it stored.

use std::time::{Duration, SystemTime};

use super::records::{self, Flight};
use super::{GcRequest, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::repository::format::Class;
use crate::repository::gc::fencing::{Fence, FencePolicy, Owner, Signs};
use crate::repository::gc::{Census, DecidedBy, OpenKey, View};
use crate::repository::ids::{SessionId, random};
use crate::repository::session::origin::Origin;
use crate::repository::session::records::{Abort, MAX_ABORT_LEN, Open, seal};
use crate::repository::session::silence;
use crate::repository::store::{Created, ObjectInfo};

/// Readers send no heartbeat and may take days: they are presumed dead after so many times the silence of a writer.
const READER_PATIENCE: u32 = 7;

/// Fences the sessions of one run.
pub(super) struct Fencing<'a> {
    request: &'a GcRequest,
    here: Origin,
    run: SessionId,
    /// Sessions that a person called dead and that are not fenced yet.
    named: Vec<SessionId>,
    /// Slots that a dry run treats as if they held its abort marker.
    pretended: Vec<String>,
    done: bool,
}

impl<'a> Fencing<'a> {
    pub(super) fn new(request: &'a GcRequest) -> Self {
        Self {
            request,
            here: Origin::current(),
            run: SessionId(random()),
            named: request.abort.clone(),
            pretended: Vec::new(),
            done: false,
        }
    }

    /// Shows a dry run what it would have fenced.
    pub(super) fn pretend(&self, view: &mut View) {
        for slot in &self.pretended {
            view.note(&ObjectInfo {
                name: slot.clone(),
                size: MAX_ABORT_LEN,
                modified: None,
            });
        }
    }

    /// Reads the start records of all sessions in flight. One that a person called dead may have one that cannot be read.
    pub(super) fn flights(&self, job: &Job<'_>, census: &Census) -> Result<Vec<Flight>> {
        let flights = census.in_flight();
        let is_in_flight = |named: &&SessionId| flights.iter().any(|key| key.session() == **named);
        if let Some(unknown) = self.named.iter().find(|named| !is_in_flight(named)) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "abort the session: no unfinished one has this id",
            )
            .object(unknown)
            .hint("`snaphaul gc --dry-run` lists unfinished sessions"));
        }
        records::read(job, flights, &self.named)
    }

    /// Fences who is dead; whether anybody was, so that a new look is needed. Done once a run.
    ///
    /// Only those in `fenceable`, unless a person named them: a point that lost its slot is no unfinished session.
    pub(super) fn fence(
        &mut self,
        job: &Job<'_>,
        flights: &[Flight],
        fenceable: &[OpenKey],
    ) -> Result<bool> {
        let context = job.context;
        if std::mem::replace(&mut self.done, true) || flights.is_empty() {
            return Ok(false);
        }
        let mut dead = self.dead(job, flights)?;
        dead.retain(|key| fenceable.contains(key) || self.named.contains(&key.session()));
        self.named.clear();
        if self.request.dry_run {
            dead.iter().for_each(|key| job.tally.fenced(key));
            self.pretended = dead.iter().map(OpenKey::slot_name).collect();
        } else {
            job.for_each(dead.iter(), |key| {
                if self.abort(context, key)? {
                    job.tally.fenced(key);
                }
                Ok(())
            })?;
            context.repository.store.sync()?;
        }
        Ok(!dead.is_empty())
    }

    fn dead(&self, job: &Job<'_>, flights: &[Flight]) -> Result<Vec<OpenKey>> {
        let context = job.context;
        let now = self.now(job);
        let mut dead = Vec::new();
        for (key, open) in flights {
            context.stop.check()?;
            let named = self.named.contains(&key.session());
            let owner = open
                .as_ref()
                .map_or(Owner::Unknown, |open| self.owner(open));
            if named && owner == Owner::Running {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "abort the session: its process is running on this machine",
                )
                .object(key.session())
                .hint("stop that process first"));
            }
            if named || (open.is_some() && self.is_dead(context, key, owner, now)?) {
                dead.push(*key);
            }
        }
        Ok(dead)
    }

    fn owner(&self, open: &Open) -> Owner {
        let origin = &open.origin;
        let here = origin.boot_id == self.here.boot_id
            && origin.pid_namespace == self.here.pid_namespace
            && !origin.boot_id.is_empty();
        match (here, origin.is_gone(&self.here)) {
            (_, true) => Owner::Ended,
            (true, false) => Owner::Running,
            (false, false) => Owner::Unknown,
        }
    }

    fn is_dead(
        &self,
        context: &Context,
        key: &OpenKey,
        owner: Owner,
        now: Option<SystemTime>,
    ) -> Result<bool> {
        let (owner, silent_after) = match (key, owner) {
            (OpenKey::Writer(_), Owner::Ended) => (Owner::Unknown, self.request.fence_after),
            (OpenKey::Writer(_), owner) => (owner, self.request.fence_after),
            (OpenKey::Reader(_), owner) => (owner, self.request.fence_after * READER_PATIENCE),
        };
        let decided_by = context
            .repository
            .config
            .profile
            .conditional_writes
            .then_some(DecidedBy::Slot);
        let policy = FencePolicy {
            silent_after,
            decided_by,
        };
        let last_change = match (owner, decided_by) {
            (Owner::Unknown, Some(_)) => last_change(context, key, now, silent_after)?,
            _ => None,
        };
        let signs = Signs {
            owner,
            last_change,
            now,
        };
        Ok(policy.judge(&signs) == Fence::Abort)
    }

    /// The store's clock. Asking it takes a PUT, which a dry run does not send and a full store does not take.
    fn now(&self, job: &Job<'_>) -> Option<SystemTime> {
        if self.request.dry_run {
            return Some(SystemTime::now());
        }
        match silence::store_now(job.store()) {
            Ok(now) => now,
            Err(error) => {
                job.tally.warn(format!("silent sessions are left alone, because the store does not tell its time: {error}"));
                None
            }
        }
    }

    /// Decides a silent session; whether it was this run that did.
    fn abort(&self, context: &Context, key: &OpenKey) -> Result<bool> {
        let repository = &context.repository;
        let slot = key.slot_name();
        // Without create-only PUT only sessions that a person called dead get here: nobody else writes this key any more.
        if repository.store.head(&slot)?.is_some() {
            return Ok(false);
        }
        let marker = Abort { by: self.run };
        let body = seal(repository, Class::Abort, key.session(), &slot, &marker)?;
        // "Exists" is as good: it was decided in time, and the next look says how.
        match repository.store.create(&slot, body) {
            Ok(created) => Ok(created == Created::Won),
            // Nothing is lost by leaving it undecided, and deletions must go on.
            Err(error) if matches!(error.kind(), ErrorKind::NoSpace) => {
                tracing::warn!(%error, "fence a silent session");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn last_change(
    context: &Context,
    key: &OpenKey,
    now: Option<SystemTime>,
    silent_after: Duration,
) -> Result<Option<SystemTime>> {
    let recent = now.and_then(|now| now.checked_sub(silent_after));
    silence::last_change(
        &*context.repository.store,
        &key.open_name(),
        key.session(),
        recent,
    )
}

//! Rewrites sparse segments: the next generation holds the living chunks only.
//!
//! ```text
//!   directory ─► worth it? paid for? ─► read living bodies ─► check each ─► create-only PUT ─► sync ─► delete the old generation
//! ```
//!
//! Owns: those steps. Must not: choose segments, decrypt more than a check needs, or delete before the new generation is on disk.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};

use super::{Job, crew, purge};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::Progress;
use crate::repository::access::Repository;
use crate::repository::format::{
    BodyEntry, Class, ContainerBuilder, Decoder, Directory, HEAD_LEN, Head, parse_head,
};
use crate::repository::gc::{Compaction, CompactionPolicy, Plan};
use crate::repository::ids::name;
use crate::repository::store::Created;

/// Bodies that are so close are read together with what lies between them.
const JOINED_GAP: u64 = 256 << 10;

/// What was freed and written, and whether there is room.
#[derive(Debug)]
struct Ledger {
    freed: u64,
    written: u64,
    full: bool,
}

/// Rewrites what the plan proposes, as far as that never writes more than the run has freed, unless that is wanted at any cost. A
/// dry run reads directories and counts.
pub(super) fn sparse(job: &Job<'_>, plan: &Plan, policy: &CompactionPolicy) -> Result<()> {
    let context = job.context;
    if !context.repository.config.profile.conditional_writes {
        // Two runs could put different bytes under one name, and a reader would meet both.
        job.tally.warn(
            "sparse segments stay as they are: this store has no create-only writes".to_owned(),
        );
        job.tally.stays(plan.dead_bytes(policy));
        return Ok(());
    }
    let freed = job.tally.freed();
    let ledger = Mutex::new(Ledger {
        freed,
        written: 0,
        full: false,
    });
    let (proposed, stays) = plan.choose(policy, freed);
    job.tally.stays(stays);
    let proposed = proposed.into_iter();
    // Each has the old bodies and the new object in memory.
    let each = 3 * u64::from(context.repository.config.segment_size);
    let room = usize::try_from(context.memory / each.max(1)).unwrap_or(usize::MAX);
    let threads = context.jobs.min(room).min(job.request.requests);
    crew::for_each(proposed, threads, &context.stop, |found| {
        let rewrite = Rewrite {
            job,
            policy,
            ledger: &ledger,
        };
        rewrite.run(&found)?;
        Progress::add(&context.progress.done, u64::from(found.size));
        Ok(())
    })
}

struct Rewrite<'a> {
    job: &'a Job<'a>,
    policy: &'a CompactionPolicy,
    ledger: &'a Mutex<Ledger>,
}

impl Rewrite<'_> {
    fn run(&self, found: &Compaction<'_>) -> Result<()> {
        if self.ledger().full {
            return Ok(());
        }
        let old = name::segment(found.id, found.generation);
        match self.rewrite(found, &old) {
            Ok(()) => Ok(()),
            // Another run was faster, or the session's owner is gone by now.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                if !std::mem::replace(&mut self.ledger().full, true) {
                    self.job.tally.warn(format!("the store is too full to rewrite sparse segments ({error}); free some space and run gc again"));
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.job.tally.warn(format!("segment `{old}` is damaged and stays as it is ({error}); `snaphaul verify` says whom that hurts"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn rewrite(&self, found: &Compaction<'_>, old: &str) -> Result<()> {
        let repository = &self.job.context.repository;
        let directory = read_directory(repository, found, old)?;
        let live: Vec<BodyEntry> = directory
            .entries()
            .iter()
            .filter(|entry| found.live.contains(entry.ordinal))
            .copied()
            .collect();
        let bytes: u64 = live.iter().map(|entry| u64::from(entry.stored_len)).sum();
        let entries = directory.entries().iter();
        let stored: u64 = entries.map(|entry| u64::from(entry.stored_len)).sum();
        if live.is_empty() || !self.policy.is_worth(stored, bytes) || !self.pay(stored, bytes) {
            return Ok(());
        }
        if self.job.request.dry_run {
            self.job.tally.rewritten(found, bytes);
            return Ok(());
        }
        if let Some(until) = repository.store.locked_until(old)? {
            // A new generation would only take more room: this one cannot go yet.
            self.job.tally.locked(old, until);
            return Ok(());
        }
        let next = name::segment(found.id, found.generation + 1);
        let object = build(repository, &directory, &live, &next)?;
        let written = object.len() as u64;
        // It may be there already, from another run: what that one kept is all that is needed, or more.
        let written = match repository.store.create(&next, object)? {
            Created::Won => written,
            Created::Exists => 0,
        };
        repository
            .store
            .rely_on(name::segments_of(found.id.session).trim_end_matches('/'));
        repository.store.sync()?;
        if purge::delete(self.job, old)? {
            self.job.tally.rewritten(found, written);
        } else {
            self.job.tally.written(written);
        }
        Ok(())
    }

    /// Takes the cost from what was freed; false where it is not covered.
    fn pay(&self, stored: u64, live: u64) -> bool {
        let mut ledger = self.ledger();
        let freed = ledger.freed + stored.saturating_sub(live);
        if ledger.written + live > freed && !self.policy.at_any_cost {
            return false;
        }
        ledger.freed = freed;
        ledger.written += live;
        true
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_directory(
    repository: &Repository,
    found: &Compaction<'_>,
    object: &str,
) -> Result<Directory> {
    let mut head = BytesMut::new();
    let mut want = HEAD_LEN;
    loop {
        let have = head.len() as u64;
        let more = repository.store.get_range(object, have..want)?;
        if more.is_empty() {
            let message = format!("read the directory: the object ends after {have} bytes");
            return Err(Error::new(ErrorKind::Corrupt, message).object(object));
        }
        head.extend_from_slice(&more);
        match parse_head(&repository.keys, Class::Data, found.id, object, &head)? {
            Head::Ready(directory) => return Ok(directory),
            Head::NeedMore(len) => want = len.max(head.len() as u64 + 1),
        }
    }
}

/// Reads the living bodies, checks each, and puts them under the next generation's directory.
fn build(
    repository: &Repository,
    directory: &Directory,
    live: &[BodyEntry],
    next: &str,
) -> Result<Bytes> {
    let capacity = live.iter().map(|entry| entry.stored_len as usize).sum();
    let keys = std::sync::Arc::clone(&repository.keys);
    let mut builder = ContainerBuilder::compaction(keys, directory, capacity);
    let mut decoder = Decoder::new();
    for run in runs(live) {
        let start = run[0].offset;
        let end = body_range(&run[run.len() - 1]).end;
        let bytes = repository.store.get_range(directory.object(), start..end)?;
        if bytes.len() as u64 != end - start {
            let message = format!("read bodies: the object ends before byte {end}");
            return Err(Error::new(ErrorKind::Corrupt, message).object(directory.object()));
        }
        for entry in run {
            let range = body_range(entry);
            let at = |offset: u64| usize::try_from(offset - start).expect("inside what was read");
            builder.copy_body(entry, &bytes[at(range.start)..at(range.end)])?;
            // What was misread must not replace what is right.
            builder
                .verify_body(&mut decoder, entry.ordinal)
                .map_err(|error| {
                    let message = format!("copy chunk {} of a segment", entry.ordinal);
                    Error::new(ErrorKind::Corrupt, message)
                        .object(directory.object())
                        .source(error)
                })?;
        }
    }
    builder.finish(next)
}

/// Bodies to be read with one request each.
fn runs(live: &[BodyEntry]) -> impl Iterator<Item = &[BodyEntry]> {
    live.chunk_by(|one, next| next.offset.saturating_sub(body_range(one).end) <= JOINED_GAP)
}

fn body_range(entry: &BodyEntry) -> Range<u64> {
    entry.offset..entry.offset + u64::from(entry.stored_len)
}

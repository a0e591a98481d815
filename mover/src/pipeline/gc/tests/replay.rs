//! The model's own traces, repeated by the code that ships.
//!
//! ```text
//!   trace ─► move ─► the actor's requests up to the one that the model names ─► the store holds what the model's store holds
//!               └► environment: fences, forget orders, late requests, losses           at the end: kill all, judge, collect twice
//! ```
//!
//! Owns: who goes next and the comparison. A request that the model does not expect fails a trace, as does any difference between the two
//! stores after any move. A session that a trace leaves standing was killed there.
//!
//! A listing of several pages shows each session as it was when the model listed it (`paged`).
//!
//! With `SNAPHAUL_TEST_LONG` set, ten times as many traces. Left to the model: the register of a cluster, which no code asks yet.

mod actors;
mod bent;
mod caught;
mod judge;
mod paged;
mod requests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::world::{self, World};
use crate::repository::format::{Class, Manifest};
use crate::repository::gc::OpenKey;
use crate::repository::gc::model::traces::{self, Move, Object, Trace, Who};
use crate::repository::ids::{ReaderKey, SessionId, SessionKey, name, ordered, random};
use crate::repository::session::points::{Point, PointStatus};
use crate::repository::session::records::{Abort, seal};
use crate::repository::store::Store;
use crate::repository::store::faulty::Operation;
use crate::repository::store::stepped::{Schedule, Waiting};
use actors::{Actor, Shared};
use bent::{Bend, BentStore};
use judge::Owners;
use paged::PagedStore;
use requests::{Wanted, is_about_silence, is_extra};

/// Every listing fits one page.
const PAGE: usize = 1000;

struct Replay<'a> {
    trace: &'a Trace,
    world: &'a World,
    schedule: &'a Schedule,
    shared: &'a Mutex<Shared>,
    /// What each collector lists.
    paged: Vec<Arc<PagedStore>>,
    /// Manifests that were stored, for the requests that come late.
    manifests: HashMap<usize, Bytes>,
    log: Vec<String>,
}

/// Tells the schedule that an actor has ended, also by a panic.
struct Done<'a>(&'a Schedule, usize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}

/// Repeats one trace; gives the number of requests.
fn play(trace: &Trace, bend: Bend) -> Result<usize, String> {
    let world = World::with_profile(PAGE, |profile| {
        profile.conditional_writes = trace.cast.create_only;
    });
    let shared: Mutex<Shared> = Mutex::default();
    if trace.founded {
        found(trace, &world, &shared);
    }
    let schedule = Schedule::new(trace.cast.sessions + trace.cast.collectors);
    let mut replay = Replay {
        trace,
        world: &world,
        schedule: &schedule,
        shared: &shared,
        paged: (0..trace.cast.collectors)
            .map(|_| Arc::new(PagedStore::new(Arc::clone(&world.store))))
            .collect(),
        manifests: HashMap::new(),
        log: Vec::new(),
    };
    let ended = std::thread::scope(|scope| {
        for number in 0..trace.cast.sessions + trace.cast.collectors {
            let collector = number.checked_sub(trace.cast.sessions);
            let inner: Arc<dyn Store> = match collector {
                Some(collector) => Arc::clone(&replay.paged[collector]) as _,
                None => Arc::clone(&world.store) as _,
            };
            let stepped = Arc::new(schedule.store(number, inner));
            let is_collector = collector.is_some();
            let bent = BentStore::new(stepped, bend, is_collector).with_mends(trace.cast.mends);
            let actor = Actor {
                repository: world.repository_over(Arc::new(bent)),
                trace,
                shared: &shared,
            };
            let schedule = &schedule;
            scope.spawn(move || {
                let _done = Done(schedule, number);
                if is_collector {
                    actor.collect();
                } else {
                    actor.session(number);
                }
            });
        }
        let ended = replay.run();
        loop {
            let waiting = schedule.waiting();
            if waiting.is_empty() {
                return ended;
            }
            waiting.iter().for_each(|next| schedule.crash(next.actor));
        }
    });
    let requests = replay.log.len();
    ended
        .and_then(|()| replay.judge())
        .map_err(|failure| format!("{failure}\n{}", replay.log.join("\n")))?;
    Ok(requests)
}

/// The first session has committed before the trace begins.
fn found(trace: &Trace, world: &World, shared: &Mutex<Shared>) {
    let repository = &world.repository;
    let key = {
        ordered::begin_with(Some(0));
        let session = world::begin(
            repository,
            None,
            &world::elsewhere(0),
            std::time::Duration::MAX,
        )
        .unwrap();
        ordered::begin_with(None);
        let key = session.key();
        let mut known = shared.lock().unwrap();
        known.keys.insert(0, OpenKey::Writer(key));
        let chunks = known.chunks(&trace.scripts[0].references);
        assert!(!trace.cast.compaction, "one chunk is enough");
        world::put_segments(repository, key.session, &[trace.cast.stored]).unwrap();
        let point = world::commit(repository, session, None, &chunks).unwrap();
        known.points.insert(0, point);
        known.acknowledged.insert(0);
        key
    };
    if !trace.cast.copies {
        world.store.delete(&name::copy(&key)).unwrap();
    }
}

impl Replay<'_> {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&mut self) -> Result<(), String> {
        let trace = self.trace;
        for step in &trace.moves {
            self.log.push(format!("{:?}: {}", step.who, step.what));
            match step.who {
                Who::Environment(session) => self.environment(step.what, session),
                Who::Session(session) if step.what == "begins" => self.begin(session, step)?,
                Who::Collector(collector)
                    if trace.cast.pages > 1 && step.what.starts_with("LIST") =>
                {
                    self.list_page(collector, step.what)?;
                }
                who => self.advance(who, Wanted::of(who, step.what))?,
            }
            let _ = self.schedule.waiting();
            self.after(step)?;
        }
        trace.ended.iter().try_for_each(|at| self.has_ended(*at))
    }

    /// A session that the model calls ended asks for nothing more, but perhaps for a copy that the model leaves out.
    fn has_ended(&mut self, session: usize) -> Result<(), String> {
        match self.next(Who::Session(session)) {
            Some(next) if self.trace.cast.copies || !next.name.starts_with(name::COPY) => Err(
                format!("{session} goes on: {:?} {}", next.operation, next.name),
            ),
            _ => Ok(()),
        }
    }

    fn actor(&self, who: Who) -> usize {
        match who {
            Who::Session(session) => session,
            Who::Collector(collector) => self.trace.cast.sessions + collector,
            Who::Environment(_) => unreachable!("it has no requests that wait"),
        }
    }

    fn next(&self, who: Who) -> Option<Waiting> {
        let actor = self.actor(who);
        let mut waiting = self.schedule.waiting().into_iter();
        waiting.find(|next| next.actor == actor)
    }

    fn step(&mut self, next: &Waiting) {
        self.log.push(format!(
            "    {} {:?} {}",
            next.actor, next.operation, next.name
        ));
        self.schedule.step(next.actor);
    }

    /// Lets an actor go on until the requests of a step of the model are done.
    fn advance(&mut self, who: Who, wanted: Wanted) -> Result<(), String> {
        let mut last = self.reach(who, wanted)?;
        self.step(&last);
        while let Some(next) = self.next(who).filter(|next| wanted.goes_on(&last, next)) {
            self.step(&next);
            last = next;
        }
        Ok(())
    }

    /// Lets an actor go on until it asks for what a step of the model begins with.
    fn reach(&mut self, who: Who, wanted: Wanted) -> Result<Waiting, String> {
        loop {
            let next = self.next(who);
            let next = next.ok_or_else(|| format!("{who:?} has ended"))?;
            if Wanted::is(wanted.first, &next) && !is_about_silence(who, &next) {
                return Ok(next);
            }
            if !is_extra(who, &next, self.trace.cast.copies) {
                return Err(format!(
                    "{who:?} asks for {:?} {}",
                    next.operation, next.name
                ));
            }
            self.step(&next);
        }
    }

    /// One page of the model's listing: its sessions are noted as they are now. With the last one the code gets its answers.
    fn list_page(&mut self, collector: usize, what: &'static str) -> Result<(), String> {
        let who = Who::Collector(collector);
        let wanted = Wanted::of(who, what);
        self.reach(who, wanted)?;
        let (sessions, pages) = (self.trace.cast.sessions, self.trace.cast.pages);
        let owners = Owners::new(&self.shared());
        let paged = Arc::clone(&self.paged[collector]);
        let page = paged.next_page();
        let keys = page * sessions / pages..(page + 1) * sessions / pages;
        paged.note(wanted.prefixes(), |object| {
            owners.of(object).is_some_and(|owner| keys.contains(&owner))
        });
        if page + 1 == pages {
            paged.answer(true);
            self.advance(who, wanted)?;
            let _ = self.schedule.waiting();
            paged.answer(false);
        }
        Ok(())
    }

    /// All that comes before the start record, and that one too where the model takes both for one step.
    fn begin(&mut self, session: usize, step: &Move) -> Result<(), String> {
        let who = Who::Session(session);
        loop {
            let next = self.next(who);
            let next = next.ok_or_else(|| format!("{who:?} has ended before it began"))?;
            if next.operation == Operation::PutOnce {
                let rest = next.name.strip_prefix(name::OPEN).unwrap();
                let key = match SessionKey::parse(rest) {
                    Some(key) => OpenKey::Writer(key),
                    None => OpenKey::Reader(ReaderKey::parse(rest).unwrap()),
                };
                self.shared().keys.insert(session, key);
                if step.after.contains(&Object::Open(session)) {
                    self.step(&next);
                }
                return Ok(());
            }
            self.step(&next);
        }
    }

    fn environment(&mut self, what: &str, session: usize) {
        let key = self.shared().keys[&session];
        let store = &self.world.store;
        match what {
            "fence" => self.fence(&key),
            "PUT tomb" => {
                let tomb = name::tomb(&self.shared().writer(session));
                store.create(&tomb, world::forget_order()).unwrap();
            }
            "late PUT manifest" => {
                let manifest = self.manifests[&session].clone();
                store.create(&key.slot_name(), manifest).unwrap();
            }
            "lose open" => store.delete(&key.open_name()).unwrap(),
            "lose manifest" => store.delete(&key.slot_name()).unwrap(),
            other => panic!("the environment does not know how to `{other}`"),
        }
    }

    fn fence(&self, key: &OpenKey) {
        let by = Abort {
            by: SessionId(random()),
        };
        let (session, slot) = (key.session(), key.slot_name());
        let marker = seal(&self.world.repository, Class::Abort, session, &slot, &by).unwrap();
        self.world.store.create(&slot, marker).unwrap();
    }

    /// Notes what a move brought, and compares.
    fn after(&mut self, step: &Move) -> Result<(), String> {
        if let (Who::Session(session), "PUT manifest" | "PUT manifest, twice") =
            (step.who, step.what)
        {
            self.committed(session)?;
        }
        if let (Who::Session(session), "DELETE open", false) = (step.who, step.what, step.fenced)
            && let Some(Err(error)) = self.shared().reads.get(&session)
        {
            return Err(format!("reader {session} cannot read: {error:?}"));
        }
        if let Some(failure) = self.shared().failures.first() {
            return Err(failure.clone());
        }
        let settled = |object: &Object| match object {
            Object::Data(session, _) => !step.unsettled.contains(session),
            _ => true,
        };
        let (real, modelled) = (self.objects()?, step.after.clone());
        let differ: Vec<_> = real.symmetric_difference(&modelled).collect();
        match differ.into_iter().find(|object| settled(object)) {
            Some(object) if real.contains(object) => Err(format!("{object:?} is there")),
            Some(object) => Err(format!("{object:?} is not there")),
            None => Ok(()),
        }
    }

    fn committed(&mut self, session: usize) -> Result<(), String> {
        let key = self.shared().writer(session);
        let slot = name::slot(&key);
        let object = self.world.store.peek(&slot);
        let object = object.ok_or_else(|| format!("{slot} is not there"))?;
        let manifest = Manifest::open(&self.world.repository.keys, &key, &slot, &object)
            .map_err(|error| error.to_string())?;
        self.manifests.insert(session, object);
        let status = PointStatus::Complete;
        let point = Point {
            key,
            manifest,
            status,
        };
        self.shared().points.insert(session, point);
        Ok(())
    }
}

/// Ten times as many in long tests.
fn times(short: u64) -> u64 {
    match std::env::var_os("SNAPHAUL_TEST_LONG") {
        Some(_) => short * 10,
        None => short,
    }
}

fn play_all(name: &str, traces: impl Iterator<Item = Trace>) {
    let started = std::time::Instant::now();
    let (mut count, mut moves, mut requests) = (0, 0, 0);
    for (number, trace) in traces.enumerate() {
        requests += play(&trace, Bend::Sound)
            .unwrap_or_else(|failure| panic!("trace {number} of `{name}`: {failure}"));
        moves += trace.moves.len();
        count += 1;
    }
    let time = started.elapsed();
    eprintln!("{name}: {count} traces, {moves} moves, {requests} requests, {time:.1?}");
    assert!(count > 0);
}

#[test]
fn the_code_repeats_what_a_search_found() {
    for name in traces::GIVEN {
        let nth = usize::try_from(500 / times(1)).unwrap();
        play_all(name, traces::searched(name, nth).into_iter());
    }
}

#[test]
fn the_code_repeats_long_ways_through_wide_bounds() {
    for name in [
        "everything",
        "everything, in pages",
        "everything, with losses",
    ] {
        play_all(
            name,
            (1..=times(150)).map(|seed| traces::walked(name, seed)),
        );
    }
}

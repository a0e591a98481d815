//! Random interleavings of real sessions, readers, forget orders, wrong fences and collectors, one request at a time, with crashes.
//!
//! The seed of a schedule is printed with its failure: `SNAPHAUL_TEST_SEED=n` runs that one alone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::{self, Judge, World};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::gc::{self, GcRequest};
use crate::pipeline::restore::sample::Random;
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{ReaderKey, SessionId, SessionKey, name, random};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::{self, Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::{Abort, Kind, MAX_ABORT_LEN, seal};
use crate::repository::store::Store;
use crate::repository::store::faulty::Operation;
use crate::repository::store::stepped::{Schedule, SteppedStore, Waiting};

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
    Forgetter,
    Fencer,
    Collector,
}

const CASTS: [&[Role]; 5] = {
    use Role::{Collector, Fencer, Forgetter, Reader, Writer};
    [
        &[Writer, Collector, Forgetter],
        &[Writer, Writer, Collector, Collector, Forgetter],
        &[Writer, Writer, Collector, Collector, Forgetter, Fencer],
        &[Reader, Collector, Collector, Forgetter, Forgetter],
        &[Writer, Reader, Collector, Collector, Forgetter, Fencer],
    ]
};

/// What is known to all actors, because somebody was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<SessionKey>,
    failures: Vec<String>,
}

struct Actor<'a> {
    world: &'a World,
    repository: Arc<Repository>,
    store: Arc<SteppedStore>,
    number: usize,
    random: Random,
    told: &'a Mutex<Told>,
}

impl Actor<'_> {
    fn run(&mut self, role: Role) {
        for _ in 0..=self.random.below(2) {
            let result = match role {
                Role::Writer => self.backup(),
                Role::Reader => self.read(),
                Role::Forgetter => self.forget(),
                Role::Fencer => self.fence(),
                Role::Collector => self.collect(),
            };
            match result {
                Err(error) if world::is_crash(&error) => return,
                Err(error) => {
                    let failure = format!("{role:?} {}: {error:?}", self.number);
                    self.told.lock().unwrap().failures.push(failure);
                }
                Ok(()) => {}
            }
        }
    }

    /// Any point there is, by a view of any age.
    fn any_point(&mut self) -> Result<Option<Point>> {
        let valid = self.world.valid();
        if valid.is_empty() {
            return Ok(None);
        }
        let at = self.random.below(valid.len() as u64);
        let key = valid[usize::try_from(at).unwrap()];
        let point = points::load(&self.repository, &key)?;
        Ok(point.filter(|point| point.status == PointStatus::Complete))
    }

    fn backup(&mut self) -> Result<()> {
        let parent = match self.random.below(4) {
            0 => None,
            _ => self.any_point()?,
        };
        let takeover = match self.random.below(2) {
            0 => Duration::ZERO,
            _ => Duration::MAX,
        };
        let here = world::elsewhere(self.number);
        let session = match world::begin(&self.repository, parent.as_ref(), &here, takeover) {
            // The parent was forgotten meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            begun => begun?,
        };
        let key = session.key();
        match self.write(session, parent.as_ref()) {
            Ok(point) => {
                self.told.lock().unwrap().acknowledged.push(point.key);
                Ok(())
            }
            Err(error) if world::is_crash(&error) => Err(error),
            Err(_) if self.is_fenced(&name::open(&key), &name::slot(&key)) => Ok(()),
            Err(error) => Err(error.context("write a point without being fenced")),
        }
    }

    fn write(
        &mut self,
        session: crate::repository::session::writer::WriterSession,
        parent: Option<&Point>,
    ) -> Result<Point> {
        let key = session.key();
        let mut chunks = Vec::new();
        if let Some(parent) = parent {
            let object = self.repository.store.get(&name::live(&parent.key))?;
            let keys = &self.repository.keys;
            let expected = &parent.manifest.liveness;
            let liveness =
                crate::repository::map::Liveness::open(keys, &parent.key, expected, &object)?;
            chunks.extend(world::some(&mut self.random, &world::chunks_of(&liveness)));
        }
        for dead in &session.adoption().sessions {
            chunks.extend(world::stored_chunks(&self.repository, dead.session)?);
        }
        let counts: Vec<u16> = (0..=self.random.below(2))
            .map(|_| u16::try_from(1 + self.random.below(6)).unwrap())
            .collect();
        chunks.extend(world::put_segments(&self.repository, key.session, &counts)?);
        world::commit(&self.repository, session, parent, &chunks)
    }

    fn is_fenced(&self, open: &str, slot: &str) -> bool {
        let slot = self.world.store.peek(slot);
        slot.is_some_and(|slot| slot.len() as u64 <= MAX_ABORT_LEN) || !self.world.has(open)
    }

    fn read(&mut self) -> Result<()> {
        let Some(point) = self.any_point()? else {
            return Ok(());
        };
        let lease = match ReaderLease::take(&self.repository, Kind::Restore, &[&point]) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            lease => lease?,
        };
        let read = self.read_all(&point);
        let open = self.store.opened().pop().unwrap();
        let slot = open.replacen(name::OPEN, name::SNAP, 1);
        let fenced = self.is_fenced(&open, &slot);
        drop(lease);
        match read {
            Err(error) if !world::is_crash(&error) && fenced => Ok(()),
            read => read,
        }
    }

    fn read_all(&self, point: &Point) -> Result<()> {
        let object = self.repository.store.get(&name::live(&point.key))?;
        let liveness = crate::repository::map::liveness::open_unmatched(
            &self.repository.keys,
            &point.key,
            object,
        )?;
        let segments = SegmentReader::new(&self.repository);
        for chunk in world::chunks_of(&liveness) {
            segments.retrying(Class::Data, chunk.segment, |directory| {
                let wrong = |text: String| Error::new(ErrorKind::Corrupt, text);
                let entry = directory.entry(chunk.ordinal).ok_or_else(|| {
                    wrong(format!("{} lacks {}", directory.object(), chunk.ordinal))
                })?;
                let range = entry.offset..entry.offset + u64::from(entry.stored_len);
                let stored = segments.read(directory, range)?;
                world::check_body(&self.repository, directory, chunk.ordinal, &stored)
                    .map_err(wrong)
            })?;
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<()> {
        if let Some(point) = self.any_point()? {
            let tomb = name::tomb(&point.key);
            self.repository.store.create(&tomb, world::forget_order())?;
        }
        Ok(())
    }

    /// Fences anybody at any time, as a clock that jumps would.
    fn fence(&mut self) -> Result<()> {
        let names = self.world.store.names();
        let opens: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix(name::OPEN))
            .collect();
        if opens.is_empty() {
            return Ok(());
        }
        let at = self.random.below(opens.len() as u64);
        let victim = opens[usize::try_from(at).unwrap()];
        let session = match SessionKey::parse(victim) {
            Some(key) => key.session,
            None => ReaderKey::parse(victim).unwrap().session,
        };
        let slot = format!("{}{victim}", name::SNAP);
        let by = SessionId(random());
        let marker = seal(
            &self.repository,
            Class::Abort,
            session,
            &slot,
            &Abort { by },
        )?;
        self.repository.store.create(&slot, marker).map(drop)
    }

    fn collect(&mut self) -> Result<()> {
        let request = GcRequest {
            fence_after: match self.random.below(2) {
                0 => Duration::ZERO,
                _ => Duration::from_secs(1),
            },
            ..stepwise()
        };
        match gc::run(&world::context(&self.repository), &request) {
            // Others were ahead each time.
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
            ended => ended.map(drop),
        }
    }
}

/// One request after the other, on the thread of the actor.
fn stepwise() -> GcRequest {
    GcRequest {
        requests: 1,
        pause: Duration::ZERO,
        fence_after: Duration::ZERO,
        ..GcRequest::default()
    }
}

/// What must hold at every moment.
#[derive(Default)]
struct Watch {
    judge: Judge,
    forgotten: HashSet<String>,
    opened: HashSet<String>,
}

impl Watch {
    /// Before a request: the order of a purge, and that no start record comes twice.
    fn before(&mut self, world: &World, next: &Waiting) -> Result<(), String> {
        let name = &next.name;
        let open_of = |kind: &str| {
            name.strip_prefix(kind)
                .map(|rest| format!("{}{rest}", name::OPEN))
        };
        match next.operation {
            Operation::Delete => {
                let open = open_of(name::SNAP).or_else(|| open_of(name::TOMB));
                match open.filter(|open| world.has(open)) {
                    Some(open) => Err(format!("I3: {name} is deleted before {open}")),
                    None => Ok(()),
                }
            }
            Operation::PutOnce if !self.opened.insert(name.clone()) => {
                Err(format!("I4: {name} is sent twice"))
            }
            Operation::Create if name.starts_with(name::TOMB) => {
                self.forgotten.insert(name.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// After a request: nothing that anybody may use is lost.
    fn after(&mut self, world: &World, told: &Mutex<Told>) -> Result<(), String> {
        for key in world.valid() {
            self.judge
                .check(world, &key)
                .map_err(|lost| format!("I2: {lost}"))?;
        }
        let told = told.lock().unwrap();
        for key in &told.acknowledged {
            if !self.forgotten.contains(&name::tomb(key)) && !world.is_point(key) {
                return Err(format!(
                    "I1: the acknowledged point {} is gone",
                    key.point()
                ));
            }
        }
        match told.failures.first() {
            Some(failure) => Err(format!("I5: {failure}")),
            None => Ok(()),
        }
    }
}

/// Who goes next: bursts of one actor, cut at random.
struct Chooser {
    random: Random,
    last: usize,
    patience: u64,
}

impl Chooser {
    fn next<'a>(&mut self, waiting: &'a [Waiting]) -> &'a Waiting {
        let same = waiting.iter().find(|next| next.actor == self.last);
        if let Some(same) = same.filter(|_| self.random.below(self.patience) != 0) {
            return same;
        }
        let at = self.random.below(waiting.len() as u64);
        let next = &waiting[usize::try_from(at).unwrap()];
        self.last = next.actor;
        next
    }
}

/// Tells the schedule that an actor has ended, also by a panic.
struct Done<'a>(&'a Schedule, usize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}

/// Plays one schedule; gives its number of requests.
fn play(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let world = World::new(usize::try_from(1 + random.below(4)).unwrap());
    let told: Mutex<Told> = Mutex::default();
    let mut parent: Option<Point> = None;
    for _ in 0..1 + random.below(2) {
        let inherited = match &parent {
            Some(Point { key, .. }) => world::some(
                &mut random,
                &world::chunks_of(&world.liveness(key).unwrap()),
            ),
            None => Vec::new(),
        };
        let point = world.point(&[4, 3], parent.as_ref(), &inherited);
        told.lock().unwrap().acknowledged.push(point.key);
        parent = Some(point);
    }
    let cast = CASTS[usize::try_from(random.below(CASTS.len() as u64)).unwrap()];
    let schedule = Schedule::new(cast.len());
    let mut watch = Watch::default();
    let crashes = random.below(3);
    let outcome = std::thread::scope(|scope| {
        for (number, role) in cast.iter().enumerate() {
            let store =
                Arc::new(schedule.store(number, Arc::clone(&world.store) as Arc<dyn Store>));
            let mut actor = Actor {
                repository: world.repository_over(Arc::clone(&store) as Arc<dyn Store>),
                world: &world,
                store,
                number,
                random: Random::new(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9)),
                told: &told,
            };
            let schedule = &schedule;
            scope.spawn(move || {
                let _done = Done(schedule, number);
                actor.run(*role);
            });
        }
        let steps = direct(
            &world,
            &schedule,
            (cast, crashes),
            &mut watch,
            (&told, &mut random),
        );
        if steps.is_err() {
            let abandon = |schedule: &Schedule| {
                let waiting = schedule.waiting();
                waiting.iter().for_each(|next| schedule.crash(next.actor));
                !waiting.is_empty()
            };
            while abandon(&schedule) {}
        }
        steps
    })?;
    settle(&world, &mut watch, &told)?;
    Ok(outcome)
}

fn direct(
    world: &World,
    schedule: &Schedule,
    (cast, mut crashes): (&[Role], u64),
    watch: &mut Watch,
    (told, random): (&Mutex<Told>, &mut Random),
) -> Result<usize, String> {
    let mut chooser = Chooser {
        random: Random::new(random.below(u64::MAX)),
        last: 0,
        patience: 1 + random.below(12),
    };
    let mut log = Vec::new();
    loop {
        let waiting = schedule.waiting();
        if waiting.is_empty() {
            return Ok(log.len());
        }
        let next = chooser.next(&waiting);
        log.push(format!(
            "{:?} {} {:?} {}",
            cast[next.actor], next.actor, next.operation, next.name
        ));
        // Readers belong to this very process, which nobody would take for dead.
        if crashes > 0 && cast[next.actor] != Role::Reader && random.below(100) == 0 {
            crashes -= 1;
            log.push("  crashed".to_owned());
            schedule.crash(next.actor);
        } else {
            watch
                .before(world, next)
                .map_err(|failure| failure_with(&failure, &log))?;
            schedule.step(next.actor);
        }
        let _ = schedule.waiting();
        watch
            .after(world, told)
            .map_err(|failure| failure_with(&failure, &log))?;
    }
}

fn failure_with(failure: &str, log: &[String]) -> String {
    let last = log.len().saturating_sub(400);
    format!("{failure}\n{}", log[last..].join("\n"))
}

/// When all sessions have ended, two runs leave the living points and nothing else.
fn settle(world: &World, watch: &mut Watch, told: &Mutex<Told>) -> Result<(), String> {
    for _ in 0..2 {
        gc::run(&world.context(), &stepwise())
            .map_err(|error| format!("I6: gc fails: {error:?}"))?;
        watch.after(world, told)?;
    }
    let mut expected = HashSet::new();
    for key in world.valid() {
        expected.extend([
            name::open(&key),
            name::slot(&key),
            name::copy(&key),
            name::live(&key),
        ]);
        let liveness = world.liveness(&key)?;
        let segments = liveness.segments().map(|(id, _)| name::segment(id, 0));
        expected.extend(segments.map(|name| name.trim_end_matches("00").to_owned()));
        expected.extend(liveness.map_segments().map(|(id, _)| name::map_segment(id)));
    }
    let mut left = HashSet::new();
    for name in world.objects() {
        let known = match name.starts_with(name::SEG) {
            true => name[..name.len() - 2].to_owned(),
            false => name.clone(),
        };
        if !expected.contains(&known) {
            return Err(format!("I6: {name} is left"));
        }
        if !left.insert(known) {
            return Err(format!("I6: {name} is there in two generations"));
        }
    }
    match expected.difference(&left).next() {
        Some(missing) => Err(format!("I6: {missing} is gone")),
        None => Ok(()),
    }
}

fn play_all(first: u64, count: u64) {
    let mut steps = 0;
    let (first, count) = match std::env::var("SNAPHAUL_TEST_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (first, count),
    };
    for seed in first..first + count {
        match play(seed) {
            Ok(taken) => steps += taken,
            Err(failure) => panic!("SNAPHAUL_TEST_SEED={seed}: {failure}"),
        }
    }
    eprintln!("{count} schedules from seed {first}, {steps} requests");
}

/// Schedules of one test: thousands, or with SNAPHAUL_TEST_LONG so many that it takes minutes.
fn count(short: u64) -> u64 {
    match std::env::var_os("SNAPHAUL_TEST_LONG") {
        Some(_) => short * 20,
        None => short,
    }
}

#[test]
fn no_interleaving_loses_or_leaks_anything() {
    play_all(1, count(1500));
}

#[test]
fn no_other_interleaving_loses_or_leaks_anything() {
    play_all(1_000_000, count(1500));
}

//! Random interleavings of real sessions, readers, forget orders, wrong fences and collectors, one request at a time, with crashes.
//!
//! The seed of a schedule is printed with its failure: `SNAPHAUL_TEST_SEED=n` runs that one alone.

mod actors;
mod watch;

use std::sync::{Arc, Mutex};

use super::world::{self, World};
use crate::pipeline::restore::sample::Random;
use crate::repository::session::points::Point;
use crate::repository::store::Store;
use crate::repository::store::stepped::{Schedule, Waiting};
use actors::{Actor, Role, Told};
use watch::{Watch, settle};

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
        if crashes > 0 && random.below(100) == 0 {
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

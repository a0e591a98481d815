//! When a repository is collected and verified next.
//!
//! Owns: intervals, pauses after failures, and which of all repositories is first. Must not: read a clock, or start anything.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::Task;
use crate::kube::api::repository::{Maintenance, MaintenanceRun};

/// A repository that was just added is not waited for longer: it may be an old one that nobody looks after.
const FIRST: Duration = Duration::from_secs(3600);
/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// The interval of a task; nothing where it is turned off.
#[must_use]
pub fn interval(settings: &Maintenance, task: Task) -> Option<Duration> {
    let text = match task {
        Task::Gc => &settings.gc_interval,
        Task::Verify => &settings.verify_interval,
    };
    parsed(text).filter(|interval| !interval.is_zero())
}

/// A time as the resource definition admits it: a number and a unit.
fn parsed(text: &str) -> Option<Duration> {
    let unit = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?.parse::<u64>().ok()?;
    number.checked_mul(unit).map(Duration::from_secs)
}

/// When a task is due that has this interval, of a repository that was added at `created`. Never later than an interval from now,
/// whatever clocks said before. Asked only while the task does not run.
#[must_use]
pub fn due(
    interval: Duration,
    created: Timestamp,
    last: Option<&MaintenanceRun>,
    now: Timestamp,
) -> Timestamp {
    let at = match last {
        None => after(created, interval.min(FIRST)),
        Some(run) => match &run.finished {
            Some(end) if run.failures <= 0 => after(end.0, interval),
            Some(end) => after(end.0, interval.min(pause(run.failures))),
            // Its process ended before it did.
            None => after(run.started.0, interval.min(pause(run.failures + 1))),
        },
    };
    at.min(after(now, interval))
}

fn pause(failures: i64) -> Duration {
    let doublings = u32::try_from((failures - 1).clamp(0, 16)).unwrap_or(0);
    FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE)
}

fn after(time: Timestamp, pause: Duration) -> Timestamp {
    time.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Something that may be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// When.
    pub due: Timestamp,
    /// The repository.
    pub repository: String,
    /// What.
    pub task: Task,
}

/// The one that is due first, so that none is passed over for ever by others.
#[must_use]
pub fn first(candidates: impl IntoIterator<Item = Candidate>) -> Option<Candidate> {
    candidates.into_iter().min()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(start: i64, end: Option<i64>, failures: i64) -> MaintenanceRun {
        MaintenanceRun {
            failures,
            finished: end.map(|end| Time(at(end))),
            ..MaintenanceRun::began(at(start))
        }
    }

    #[test]
    fn intervals_are_read_as_they_are_admitted() {
        for (text, seconds) in [
            ("0s", 0),
            ("5s", 5),
            ("90m", 5400),
            ("24h", 86400),
            ("7d", 604_800),
            ("99999d", 8_639_913_600),
        ] {
            assert_eq!(parsed(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "1w",
            "-1h",
            "1.5h",
            "99999999999999999999s",
            "é",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        let off = Maintenance {
            gc_interval: "0h".to_owned(),
            ..Maintenance::default()
        };
        assert_eq!(interval(&off, Task::Gc), None);
        assert_eq!(
            interval(&off, Task::Verify),
            Some(Duration::from_secs(86400))
        );
    }

    #[test]
    fn pauses_double_and_end() {
        let minutes = |failures| pause(failures).as_secs() / 60;
        assert_eq!([1, 2, 3, 4].map(minutes), [1, 2, 4, 8]);
        assert_eq!(pause(i64::MAX), LONGEST_PAUSE);
        assert_eq!(pause(i64::MIN + 1), FIRST_PAUSE);
    }

    /// The same by cases in plain seconds.
    fn naive(interval: i64, created: i64, last: Option<(i64, Option<i64>, i64)>, now: i64) -> i64 {
        let wait = |failures: i64| {
            let mut pause = 60;
            for _ in 1..failures {
                pause = (pause * 2).min(21600);
            }
            pause.min(interval)
        };
        let time = match last {
            None => created + interval.min(3600),
            Some((_, Some(end), 0)) => end + interval,
            Some((_, Some(end), failures)) => end + wait(failures),
            Some((start, None, failures)) => start + wait(failures + 1),
        };
        time.min(now + interval)
    }

    proptest! {
        #[test]
        fn what_is_due_is_what_the_plain_rules_say(
            interval in 1_i64..2_000_000,
            created in 0_i64..1_000_000,
            start in 0_i64..3_000_000,
            took in proptest::option::of(0_i64..100_000),
            failures in 0_i64..40,
            has_run in any::<bool>(),
            now in 0_i64..3_000_000,
        ) {
            let end = took.map(|took| start + took);
            let last = has_run.then(|| ended(start, end, failures));
            let length = Duration::from_secs(u64::try_from(interval).unwrap());
            let found = due(length, at(created), last.as_ref(), at(now));
            let expected = naive(interval, created, has_run.then_some((start, end, failures)), now);
            prop_assert_eq!(found, at(expected));
            // Whatever a clock said: never later than an interval from now, and never at once after the end of a run.
            prop_assert!(found <= at(now + interval));
            if let (true, Some(end)) = (has_run, end) && end <= now {
                prop_assert!(found > at(end));
            }
        }

        /// Taking the first again and again does everything as often as its interval says: nothing starves.
        #[test]
        fn nobody_is_passed_over(intervals in proptest::collection::vec(1_i64..20, 1..8), took in 0_i64..4) {
            let mut runs: Vec<Option<MaintenanceRun>> = vec![None; intervals.len()];
            let mut counts = vec![0_i64; intervals.len()];
            let mut now = 0;
            while now < 2_000 {
                let candidates = intervals.iter().enumerate().map(|(index, interval)| Candidate {
                    due: due(Duration::from_secs(interval.unsigned_abs()), at(0), runs[index].as_ref(), at(now)),
                    repository: index.to_string(),
                    task: Task::Gc,
                });
                let next = first(candidates).unwrap();
                now = now.max(next.due.as_second());
                let index: usize = next.repository.parse().unwrap();
                runs[index] = Some(ended(now, Some(now + took), 0));
                counts[index] += 1;
                now += took;
            }
            let all = i64::try_from(intervals.len()).unwrap();
            for (interval, count) in intervals.iter().zip(&counts) {
                // At worst every other one runs in between.
                let longest = interval + took * (all + 1) + 1;
                prop_assert!(*count >= 2_000 / longest - 1, "{intervals:?}: {counts:?}");
            }
        }
    }
}

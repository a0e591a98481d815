//! Which process on which machine a session belongs to, and whether that process is gone for certain.
//!
//! Owns: the recorded origin and the test against `/proc`. Must not: guess: only "surely gone" lets a session be taken over
//! at once; everything else waits for silence by the store's clock (`adopt`).

use std::fs;

use minicbor::{Decode, Encode};

/// What the host is called of a process that works for an order.
const ORDER: &str = "order ";

/// An order that somebody gave, and the how manieth attempt at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedAttempt {
    /// The order's own id, without blanks.
    pub order: String,
    /// From 1 on. Whoever has the highest was told last.
    pub attempt: u64,
}

/// Where a session runs. Process ids mean something only inside one boot and one pid namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Origin {
    /// Host name, for people.
    #[n(0)]
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    #[n(1)]
    pub boot_id: String,
    /// `/proc/self/ns/pid`, e.g. `pid:[4026531836]`: two containers of one node do not see each other's processes.
    #[n(2)]
    pub pid_namespace: String,
    /// Process id inside that namespace.
    #[n(3)]
    pub pid: u32,
    /// Start time of the process in clock ticks since boot (`proc(5)`, stat field 22): ids are used again.
    #[n(4)]
    pub started_ticks: u64,
}

impl Origin {
    /// The running process.
    #[must_use]
    pub fn current() -> Self {
        let text = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let pid = std::process::id();
        Self {
            host: text("/proc/sys/kernel/hostname"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            pid_namespace: fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid,
            started_ticks: started_ticks(pid).unwrap_or(0),
        }
    }

    /// The same process, working for an order that only one attempt at a time may carry out. Both stand where the host name would: no
    /// host name has a blank in it.
    #[must_use]
    pub fn working_for(self, attempt: &OrderedAttempt) -> Self {
        let host = format!("{ORDER}{} {}", attempt.order, attempt.attempt);
        Self { host, ..self }
    }

    /// Whether the recorded process worked for the same order, in this attempt or an earlier one: whoever has the order now was given it
    /// because that one may not go on, wherever it runs. One that was frozen and wakes does not supersede its successor.
    #[must_use]
    pub fn is_superseded_by(&self, here: &Self) -> bool {
        match (self.ordered(), here.ordered()) {
            (Some((theirs, before)), Some((ours, now))) => theirs == ours && before <= now,
            _ => false,
        }
    }

    fn ordered(&self) -> Option<(&str, u64)> {
        let rest = self.host.strip_prefix(ORDER)?;
        let (order, attempt) = rest.rsplit_once(' ')?;
        Some((order, attempt.parse().ok()?))
    }

    /// Whether the recorded process has surely ended: `here` sees the same boot and pid namespace, and no process with
    /// that id and start time is there.
    #[must_use]
    pub fn is_gone(&self, here: &Self) -> bool {
        let comparable = !self.boot_id.is_empty()
            && !self.pid_namespace.is_empty()
            && self.started_ticks != 0
            && self.boot_id == here.boot_id
            && self.pid_namespace == here.pid_namespace;
        comparable && started_ticks(self.pid) != Some(self.started_ticks)
    }
}

/// Field 22 of `/proc/<pid>/stat`; the second field, in parentheses, may itself hold spaces and parentheses. A process that
/// has ended and that nobody waited for yet (state Z or X, field 3) runs no more code: it is none.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_process_is_not_gone() {
        let here = Origin::current();
        assert!(here.started_ticks > 0);
        assert!(!here.is_gone(&here));
    }

    #[test]
    fn an_order_supersedes_its_earlier_attempts_only() {
        let plain = Origin::current();
        let attempt = |order: &str, attempt| {
            let order = order.to_owned();
            plain
                .clone()
                .working_for(&OrderedAttempt { order, attempt })
        };
        let here = attempt("a", 2);
        let elsewhere = Origin {
            boot_id: "another".into(),
            ..here.clone()
        };
        assert!(elsewhere.is_superseded_by(&here));
        assert!(elsewhere.is_superseded_by(&attempt("a", 11)));
        assert!(!elsewhere.is_superseded_by(&attempt("a", 1)));
        assert!(!elsewhere.is_superseded_by(&attempt("b", 3)));
        assert!(!elsewhere.is_superseded_by(&plain));
        assert!(!plain.is_superseded_by(&plain));
    }

    #[test]
    fn an_ended_process_is_gone_and_a_reused_id_too() {
        let here = Origin::current();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let ticks = started_ticks(pid).unwrap_or(1);
        child.wait().unwrap();
        let ended = Origin {
            pid,
            started_ticks: ticks,
            ..here.clone()
        };
        assert!(ended.is_gone(&here));
        let reused = Origin {
            started_ticks: here.started_ticks + 1,
            ..here.clone()
        };
        assert!(reused.is_gone(&here));
    }

    #[test]
    fn a_process_that_ended_and_was_not_waited_for_is_gone() {
        let here = Origin::current();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let started_ticks = started_ticks(pid).unwrap();
        let running = Origin {
            pid,
            started_ticks,
            ..here.clone()
        };
        assert!(!running.is_gone(&here));
        child.kill().unwrap();
        let ended = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            running.is_gone(&here)
        });
        child.wait().unwrap();
        assert!(ended);
    }

    #[test]
    fn another_boot_or_namespace_is_never_surely_gone() {
        let here = Origin::current();
        let elsewhere = Origin {
            pid: 0,
            boot_id: "another".into(),
            ..here.clone()
        };
        assert!(!elsewhere.is_gone(&here));
        let contained = Origin {
            pid: 0,
            pid_namespace: "pid:[1]".into(),
            ..here.clone()
        };
        assert!(!contained.is_gone(&here));
    }
}

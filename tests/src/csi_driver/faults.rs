//! What the driver is ordered to do wrong, and when.
//!
//! Owns: orders, matching and counting. Must not: carry faults out; `core`, `node`, `snapshots` and `tamper` do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::describe::Subject;

/// The file in the state folder that holds the orders.
pub const FILE: &str = "faults.json";

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// A name of its own; the record tells by it which call was hit, and counts are kept by it.
    pub id: String,
    /// The call, e.g. `CreateSnapshot`; `*` for all.
    pub call: String,
    /// Part of a name, handle or path that the call must be about.
    #[serde(default)]
    pub about: Option<String>,
    /// How many matching calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// How many are hit then; 0 for all.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens to them.
    pub fault: Fault,
}

fn once() -> u32 {
    1
}

impl Order {
    /// The next call of this name.
    #[must_use]
    pub fn next(call: &str, fault: Fault) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Counts are kept by the id: the same order given again later must count anew.
        Self {
            id: format!("{call}-{}-{number}", std::process::id()),
            call: call.to_owned(),
            about: None,
            skip: 0,
            times: 1,
            fault,
        }
    }

    /// The same for `times` calls, 0 for all.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The same after `skip` matching calls.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// The same for calls about something.
    #[must_use]
    pub fn about(self, about: &str) -> Self {
        Self {
            about: Some(about.to_owned()),
            ..self
        }
    }

    fn matches(&self, call: &str, subject: &Subject) -> bool {
        let about = self.about.as_deref();
        (self.call == call || self.call == "*")
            && about.is_none_or(|part| subject.words().any(|word| word.contains(part)))
    }
}

/// Before or after the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing is done yet.
    Before,
    /// Everything is done, or has failed, and only the answer is missing.
    After,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is done; the answer is this gRPC code.
    Refuse {
        /// Number of the code, e.g. 10 for ABORTED.
        code: i32,
    },
    /// Everything is done; the answer is this gRPC code all the same.
    Lose {
        /// Number of the code, e.g. 14 for UNAVAILABLE.
        code: i32,
    },
    /// The work begins late. A deadline of the caller passes meanwhile, the work is done nevertheless.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// No answer until the order is taken out of the file.
    Stall {
        /// Whether the work is done first.
        when: When,
    },
    /// The driver ends, without a word.
    Die {
        /// Whether the work is done first.
        when: When,
    },
    /// CreateSnapshot: the snapshot is taken and reported as not ready to use.
    NotReady,
    /// NodePublishVolume: answers at once; the target appears later.
    LateDevice {
        /// Milliseconds.
        ms: u64,
    },
    /// NodeStageVolume, or NodePublishVolume without staging: the device ends earlier than the volume.
    ShortDevice {
        /// By how many bytes.
        bytes: u64,
    },
    /// NodeStageVolume: leaves a file in the staging folder, of which it never knows again.
    Litter,
    /// CreateSnapshot, CreateVolume, ControllerGetVolume, ListVolumes: the size in the answer is 0, which means unknown.
    UnknownSize,
    /// CreateSnapshot, ControllerGetVolume: the size in the answer is this one.
    OtherSize {
        /// Bytes.
        bytes: u64,
    },
    /// CreateVolume: the volume is empty, whatever it was to be made of.
    IgnoreSource,
    /// CreateSnapshot: the answer names another volume as the source. CreateVolume: it has the id of the volume that the snapshot
    /// is one of.
    OtherSource,
    /// ListSnapshots: every snapshot was taken an hour later than it was.
    OtherTime,
    /// ListSnapshots: the token of a page is not valid any more. Calls without a token are answered.
    StaleToken,
    /// Nothing is done; the answer is this gRPC code, with the secrets of the request in its text, as careless drivers put them there.
    Echo {
        /// Number of the code, e.g. 16 for UNAUTHENTICATED.
        code: i32,
    },
    /// A stream of metadata is spoilt. One that ends before is not, and its record names no fault.
    Stream {
        /// How.
        wrong: Wrong,
        /// How many good messages come first.
        after: usize,
    },
}

/// What is wrong with a stream, at the message that follows the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It ends there with OK.
    Truncated,
    /// It ends there with UNAVAILABLE.
    Broken,
    /// It goes on only when the order is taken out of the file.
    Silent,
    /// The ranges of the message come in reverse.
    Disorder,
    /// The first range comes twice.
    Overlap,
    /// The first range begins before the volume.
    NegativeOffset,
    /// The first range has a size below zero.
    NegativeSize,
    /// The first range has a size of zero.
    ZeroSize,
    /// A range that lies wholly beyond the end is added, and the stream ends.
    PastEnd,
    /// The last range of the message is made to reach beyond the end, and the stream ends.
    AcrossEnd,
    /// The message names another capacity.
    OtherCapacity,
    /// The message names the other block type.
    OtherType,
    /// The message names a capacity below zero.
    NegativeCapacity,
    /// The first range has another size than the rest (which only FIXED_LENGTH forbids).
    OtherSize,
    /// The first range is left out: a lie that nobody can see in the stream.
    Missing,
}

/// Orders in force, and how often each was matched.
#[derive(Debug)]
pub(super) struct Faults {
    file: PathBuf,
    matched: Mutex<BTreeMap<String, u32>>,
}

/// What the orders say of one call.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Orders that the call matched, hit or not.
    pub(super) matched: Vec<String>,
    /// The first one that hits it.
    pub(super) hit: Option<Order>,
}

impl Faults {
    /// Orders of a folder; `matched` are the counts of earlier runs.
    pub(super) fn new(state: &Path, matched: BTreeMap<String, u32>) -> Self {
        Self {
            file: state.join(FILE),
            matched: Mutex::new(matched),
        }
    }

    fn orders(&self) -> Result<Vec<Order>> {
        match std::fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("read {}", self.file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Matches and counts.
    pub(super) fn judge(&self, call: &str, subject: &Subject) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut counts = self
            .matched
            .lock()
            .map_err(|_| anyhow!("a call panicked while it counted"))?;
        for order in self.orders()? {
            if !order.matches(call, subject) {
                continue;
            }
            let count = counts.entry(order.id.clone()).or_default();
            *count += 1;
            verdict.matched.push(order.id.clone());
            let hits =
                *count > order.skip && (order.times == 0 || *count <= order.skip + order.times);
            if hits && verdict.hit.is_none() {
                verdict.hit = Some(order);
            }
        }
        Ok(verdict)
    }

    /// Whether an order is still there.
    pub(super) fn stands(&self, id: &str) -> bool {
        self.orders()
            .is_ok_and(|orders| orders.iter().any(|order| order.id == id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(orders: &[Order]) -> (Faults, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(FILE),
            serde_json::to_vec(orders).unwrap(),
        )
        .unwrap();
        (Faults::new(folder.path(), BTreeMap::new()), folder)
    }

    #[test]
    fn hits_the_calls_that_are_ordered_and_no_others() {
        let order = Order::next("CreateVolume", Fault::Refuse { code: 10 })
            .after(1)
            .times(2)
            .about("one");
        let (faults, _folder) = faults(std::slice::from_ref(&order));
        let one = Subject {
            name: "number one".to_owned(),
            ..Subject::default()
        };
        let hit =
            |call: &str, subject: &Subject| faults.judge(call, subject).unwrap().hit.is_some();
        assert!(!hit("CreateVolume", &Subject::default()));
        assert!(!hit("DeleteVolume", &one));
        assert!(!hit("CreateVolume", &one), "one passes");
        assert!(
            hit("CreateVolume", &one) && hit("CreateVolume", &one),
            "two are hit"
        );
        assert!(!hit("CreateVolume", &one), "the rest pass");
        assert!(faults.stands(&order.id) && !faults.stands("another"));
    }

    #[test]
    fn orders_can_be_written_by_hand() {
        let text = r#"{"id": "a", "call": "NodeStageVolume", "fault": {"kind": "stall", "when": "after"}}"#;
        let order: Order = serde_json::from_str(text).unwrap();
        assert_eq!(
            (order.times, order.fault),
            (1, Fault::Stall { when: When::After })
        );
        let text = r#"{"kind": "stream", "wrong": "across_end", "after": 0}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(
            fault,
            Fault::Stream {
                wrong: Wrong::AcrossEnd,
                after: 0
            }
        );
    }
}

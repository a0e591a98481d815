//! What the processes of a trace do: real sessions, readers and collectors that follow the model's choices.
//!
//! Owns: their programs. Must not: decide when: each waits at every request, the first of which means "begin".

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::world;
use crate::error::Result;
use crate::pipeline::gc::{self, GcRequest};
use crate::repository::access::Repository;
use crate::repository::gc::OpenKey;
use crate::repository::gc::model::traces::{Script, Trace};
use crate::repository::ids::{SegmentId, Sequence, SessionId, SessionKey, name, ordered};
use crate::repository::map::Location;
use crate::repository::session::adopt::Takeover;
use crate::repository::session::points::{Catalog, Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::writer::{Begin, WriterSession};
use crate::repository::store::Store;
use crate::repository::store::memory::MemoryStore;

/// Chunks that stand for a session's second ordinal: so many that a segment without them is worth rewriting.
const SECOND: u16 = 270;

/// What all actors and the driver know.
#[derive(Default)]
pub(super) struct Shared {
    /// By session, from its first PUT on.
    pub(super) keys: HashMap<usize, OpenKey>,
    /// By session, from its commit on, acknowledged or not.
    pub(super) points: HashMap<usize, Point>,
    pub(super) acknowledged: BTreeSet<usize>,
    /// What came of a reader's reading.
    pub(super) reads: HashMap<usize, Result<()>>,
    pub(super) failures: Vec<String>,
}

impl Shared {
    pub(super) fn writer(&self, session: usize) -> SessionKey {
        match self.keys.get(&session) {
            Some(OpenKey::Writer(key)) => *key,
            other => panic!("session {session} is no writer that has begun: {other:?}"),
        }
    }

    /// The real chunks that the model's chunks stand for.
    pub(super) fn chunks(&self, references: &[(usize, u16)]) -> Vec<Location> {
        let expand = |(owner, ordinal): &(usize, u16)| {
            let segment = SegmentId {
                session: self.writer(*owner).session,
                number: 0,
            };
            let ordinals = if *ordinal == 0 { 0..=0 } else { 1..=SECOND };
            ordinals.map(move |ordinal| Location { segment, ordinal })
        };
        references.iter().flat_map(expand).collect()
    }
}

/// One process.
pub(super) struct Actor<'a> {
    pub(super) repository: Arc<Repository>,
    pub(super) trace: &'a Trace,
    pub(super) shared: &'a Mutex<Shared>,
}

impl Actor<'_> {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self, number: usize) {
        if self.repository.store.head(name::CONFIG).is_err() {
            return;
        }
        // A collector takes sessions in the order of their ids, the model in that of their numbers.
        ordered::begin_with(u8::try_from(number).ok());
        let script = &self.trace.scripts[number];
        if number >= self.trace.cast.writers {
            let read = self.read(number, script);
            if let Err(error) = read.as_ref().map_err(|error| error.kind()) {
                tracing::debug!(?error, number, "a reader gave up");
            }
        } else if let Ok(point) = self.write(number, script) {
            let mut shared = self.shared();
            shared.acknowledged.insert(number);
            shared.points.insert(number, point);
        }
    }

    pub(super) fn write(&self, number: usize, script: &Script) -> Result<Point> {
        let session = self.begin(number, script)?;
        let own = session.key().session;
        let mut adopted: Vec<_> = session.adoption().sessions.clone();
        adopted.sort_unstable();
        let mut found = Vec::new();
        for dead in &adopted {
            found.extend(world::stored_chunks(&self.repository, dead.session)?);
        }
        let chunks = self.shared().chunks(&script.references);
        self.check_adopted(&adopted, &found, &chunks);
        let stored = if self.trace.cast.compaction {
            1 + SECOND
        } else {
            1
        };
        world::put_segments(&self.repository, own, &[stored])?;
        world::commit(&self.repository, session, None, &chunks)
    }

    /// The model says what a session owns; the code must have found the same.
    fn check_adopted(&self, adopted: &[SessionKey], found: &[Location], chunks: &[Location]) {
        let is_adopted = |session: SessionId| adopted.iter().any(|key| key.session == session);
        let needed = chunks
            .iter()
            .filter(|chunk| is_adopted(chunk.segment.session));
        let (needed, found): (BTreeSet<_>, BTreeSet<_>) =
            (needed.collect(), found.iter().collect());
        if needed != found {
            let failure = format!("adopted {found:?} where the model has {needed:?}");
            self.shared().failures.push(failure);
        }
    }

    fn begin(&self, number: usize, script: &Script) -> Result<WriterSession> {
        let volume = self.repository.keys.volume_id("disk");
        // A listing of any age will do: this one shows the session that the model chose and nothing else.
        let listing = MemoryStore::new(10);
        if let Some(dead) = script.dead {
            let open = name::open(&self.shared().writer(dead));
            listing.put(&open, bytes::Bytes::from_static(b"listed"))?;
        }
        let catalog = Catalog::list(&listing, volume)?;
        let pins: Vec<SessionKey> = {
            let shared = self.shared();
            script
                .pin
                .into_iter()
                .map(|pin| shared.writer(pin))
                .collect()
        };
        let begin = Begin {
            volume: "disk",
            pins: &pins,
            sequence: Sequence(u32::try_from(number).expect("few")),
            takeover: Takeover {
                after: Duration::ZERO,
                here: world::elsewhere(number),
                given_up: None,
            },
        };
        WriterSession::begin(&self.repository, &begin, &catalog)
    }

    fn read(&self, number: usize, script: &Script) -> Result<()> {
        let pin = script.pin.expect("a reader reads something");
        let mut point = self.shared().points[&pin].clone();
        point.status = match script.by_copy {
            true => PointStatus::Damaged("the model says so".to_owned()),
            false => PointStatus::Complete,
        };
        let lease = ReaderLease::take(&self.repository, Kind::Restore, &[&point])?;
        let read = world::read_all(&self.repository, &point.key);
        self.shared().reads.insert(number, read);
        drop(lease);
        Ok(())
    }

    /// One run after the other, as often as the model begins one.
    pub(super) fn collect(&self) {
        loop {
            match gc::run(&world::context(&self.repository), &stepwise()) {
                Err(error) if world::is_crash(&error) => return,
                Ok(_) => {}
                Err(error) => {
                    self.shared().failures.push(format!("gc: {error:?}"));
                    return;
                }
            }
        }
    }
}

/// One request after the other, on the thread of the actor; nobody is fenced but by the model.
pub(super) fn stepwise() -> GcRequest {
    GcRequest {
        requests: 1,
        pause: Duration::ZERO,
        ..GcRequest::default()
    }
}

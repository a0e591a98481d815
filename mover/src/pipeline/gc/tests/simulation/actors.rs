//! What the actors of a schedule do, each by its own dice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::world::{self, World};
use crate::error::{ErrorKind, Result};
use crate::pipeline::gc::{self, GcRequest};
use crate::pipeline::restore::sample::Random;
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{ReaderKey, SessionId, SessionKey, name, random};
use crate::repository::session::points::{self, Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::{Abort, Kind, MAX_ABORT_LEN, seal};
use crate::repository::session::writer::WriterSession;
use crate::repository::store::stepped::SteppedStore;

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
    Forgetter,
    Fencer,
    Collector,
}

/// What is known to all actors, because somebody was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) acknowledged: Vec<SessionKey>,
    pub(super) failures: Vec<String>,
}

pub(super) struct Actor<'a> {
    pub(super) world: &'a World,
    pub(super) repository: Arc<Repository>,
    pub(super) store: Arc<SteppedStore>,
    pub(super) number: usize,
    pub(super) random: Random,
    pub(super) told: &'a Mutex<Told>,
}

impl Actor<'_> {
    pub(super) fn run(&mut self, role: Role) {
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

    fn write(&mut self, session: WriterSession, parent: Option<&Point>) -> Result<Point> {
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
        // Of a process elsewhere nobody knows whether it lives: its record stays if it was killed, until it is fenced for its silence.
        let here = world::elsewhere(self.number);
        let taken = ReaderLease::take_elsewhere(&self.repository, Kind::Restore, &[&point], here);
        let lease = match taken {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            lease => lease?,
        };
        let read = world::read_all(&self.repository, &point.key);
        let open = self.store.opened().pop().unwrap();
        let slot = open.replacen(name::OPEN, name::SNAP, 1);
        let fenced = self.is_fenced(&open, &slot);
        drop(lease);
        match read {
            Err(error) if !world::is_crash(&error) && fenced => Ok(()),
            read => read,
        }
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
pub(super) fn stepwise() -> GcRequest {
    GcRequest {
        requests: 1,
        pause: Duration::ZERO,
        fence_after: Duration::ZERO,
        ..GcRequest::default()
    }
}

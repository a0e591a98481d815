//! A store that stops before each request until a scheduler lets it go: for tests that decide the order of everything.
//!
//! ```text
//!   actor threads ─► SteppedStore ─ waits ─► Schedule::waiting ─► step │ crash ─► the request runs │ fails, as all later ones
//! ```
//!
//! Owns: the turns. Must not: be part of a release, or choose. At most one actor runs at any time, so a schedule that is chosen by a
//! seed is the same each time. A page of a listing is a request of its own.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::faulty::Operation;
use super::profile::StoreProfile;
use super::{Created, ObjectInfo, RequestCounts, Store};
use crate::error::{Error, ErrorKind, Result};

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose it is.
    pub actor: usize,
    /// Kind of call.
    pub operation: Operation,
    /// Name or prefix.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Waiting(Operation, String),
    Crashed,
    Done,
}

/// Who may go on.
#[derive(Debug)]
pub struct Schedule {
    actors: Mutex<Vec<Phase>>,
    changed: Condvar,
}

impl Schedule {
    /// For actors numbered from 0, all of which run until their first request.
    #[must_use]
    pub fn new(actors: usize) -> Arc<Self> {
        Arc::new(Self {
            actors: Mutex::new(vec![Phase::Running; actors]),
            changed: Condvar::new(),
        })
    }

    /// The store as one actor sees it.
    #[must_use]
    pub fn store(self: &Arc<Self>, actor: usize, inner: Arc<dyn Store>) -> SteppedStore {
        SteppedStore {
            schedule: Arc::clone(self),
            actor,
            inner,
            opened: Mutex::default(),
        }
    }

    /// Waits until nobody runs, and gives the requests that wait. None means that all have ended.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let is_running = |actors: &mut Vec<Phase>| actors.contains(&Phase::Running);
        let actors = self
            .changed
            .wait_while(self.lock(), is_running)
            .unwrap_or_else(PoisonError::into_inner);
        let waiting = actors.iter().enumerate().filter_map(|(actor, phase)| {
            let Phase::Waiting(operation, name) = phase else {
                return None;
            };
            Some(Waiting {
                actor,
                operation: *operation,
                name: name.clone(),
            })
        });
        waiting.collect()
    }

    /// Lets the request of an actor go.
    pub fn step(&self, actor: usize) {
        self.set(actor, Phase::Running);
    }

    /// Ends an actor as a kill would: nothing it asks for is done any more.
    pub fn crash(&self, actor: usize) {
        self.set(actor, Phase::Crashed);
    }

    /// To be called by each actor at its end.
    pub fn done(&self, actor: usize) {
        self.set(actor, Phase::Done);
    }

    fn set(&self, actor: usize, phase: Phase) {
        self.lock()[actor] = phase;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, actor: usize, operation: Operation, name: &str) -> Result<()> {
        let mut actors = self.lock();
        if actors[actor] == Phase::Running {
            actors[actor] = Phase::Waiting(operation, name.to_owned());
            self.changed.notify_all();
            actors = self
                .changed
                .wait_while(actors, |actors| matches!(actors[actor], Phase::Waiting(..)))
                .unwrap_or_else(PoisonError::into_inner);
        }
        match actors[actor] {
            Phase::Running => Ok(()),
            _ => Err(Error::new(ErrorKind::Interrupted, "crashed").object(name)),
        }
    }
}

/// The store of one actor.
#[derive(Debug)]
pub struct SteppedStore {
    schedule: Arc<Schedule>,
    actor: usize,
    inner: Arc<dyn Store>,
    opened: Mutex<Vec<String>>,
}

impl SteppedStore {
    /// Names that this actor sent once, in order.
    #[must_use]
    pub fn opened(&self) -> Vec<String> {
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn turn(&self, operation: Operation, name: &str) -> Result<()> {
        self.schedule.turn(self.actor, operation, name)
    }
}

impl Store for SteppedStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.turn(Operation::Put, name)?;
        self.inner.put(name, body)
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.to_owned());
        self.turn(Operation::PutOnce, name)?;
        self.inner.put_once(name, body)
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.turn(Operation::Create, name)?;
        self.inner.create(name, body)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.turn(Operation::Get, name)?;
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.turn(Operation::Get, name)?;
        self.inner.get_range(name, range)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        self.turn(Operation::Head, name)?;
        self.inner.head(name)
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        self.turn(Operation::List, prefix)?;
        self.inner.list(prefix, &mut |found| {
            page(found)?;
            self.turn(Operation::List, prefix)
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.turn(Operation::Delete, name)?;
        self.inner.delete(name)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> RequestCounts {
        self.inner.counts()
    }

    fn explore(&self, scratch: &str) -> Result<StoreProfile> {
        self.inner.explore(scratch)
    }
}

//! A store that fails on purpose: for tests of everything above it.
//!
//! Owns: which call meets which fault. Must not: be part of a release.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::lock::{Purged, Version};
use super::profile::StoreProfile;
use super::{Created, ObjectInfo, RequestCounts, Store};
use crate::error::{Error, ErrorKind, Result};

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Store::put`].
    Put,
    /// [`Store::put_once`].
    PutOnce,
    /// [`Store::create`].
    Create,
    /// [`Store::get`] and [`Store::get_range`].
    Get,
    /// [`Store::head`].
    Head,
    /// [`Store::list`]; its name is the prefix.
    List,
    /// [`Store::delete`] and [`Store::purge`].
    Delete,
    /// [`Store::lock`].
    Lock,
    /// [`Store::sync`]; its name is empty.
    Sync,
}

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done, and the error is of this kind.
    Fail(ErrorKind),
    /// It is done, but the answer is an error of this kind.
    LostAnswer(ErrorKind),
    /// It waits at the gate, then goes on.
    Stall(Arc<Gate>),
    /// A read brings only the first bytes; a write is cut off: nothing is stored, and the error is `Unavailable`.
    Cut(usize),
    /// A read brings this byte (counted from what it returns, modulo its length) with all bits flipped.
    Corrupt(usize),
}

/// Which calls meet a fault.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Kind of call; `None` is any.
    pub operation: Option<Operation>,
    /// What the name contains.
    pub name: String,
    /// Which of the matching calls, counted from 0.
    pub calls: Range<u64>,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// Every call of one kind on names that contain `name`.
    #[must_use]
    pub fn always(operation: Operation, name: &str, fault: Fault) -> Self {
        Self {
            operation: Some(operation),
            name: name.to_owned(),
            calls: 0..u64::MAX,
            fault,
        }
    }

    /// Only the matching call number `call`, counted from 0.
    #[must_use]
    pub fn nth(operation: Operation, name: &str, call: u64, fault: Fault) -> Self {
        Self {
            calls: call..call + 1,
            ..Self::always(operation, name, fault)
        }
    }
}

/// Holds calls back until a test lets them go.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    waiting: usize,
    open: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.state().open = true;
        self.changed.notify_all();
    }

    /// Waits until `count` calls stand at the gate.
    pub fn wait_for(&self, count: usize) {
        let state = self.state();
        drop(
            self.changed
                .wait_while(state, |state| state.waiting < count),
        );
    }

    fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open));
    }
}

/// Wraps a store and applies [`Rule`]s; the first one that matches a call decides.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    rules: Mutex<Vec<(Rule, u64)>>,
}

impl FaultyStore {
    /// Wraps `inner`; without rules nothing fails.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            rules: Mutex::default(),
        }
    }

    /// Adds a rule behind those there are.
    pub fn add(&self, rule: Rule) {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((rule, 0));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn fault(&self, operation: Operation, name: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for (rule, calls) in rules.iter_mut() {
            if rule.operation.is_none_or(|only| only == operation) && name.contains(&rule.name) {
                let call = *calls;
                *calls += 1;
                if found.is_none() && rule.calls.contains(&call) {
                    found = Some(rule.fault.clone());
                }
            }
        }
        found
    }

    fn apply<T>(
        &self,
        operation: Operation,
        name: &str,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.fault(operation, name) {
            None | Some(Fault::Corrupt(_)) => run(),
            Some(Fault::Fail(kind)) => Err(injected(kind, name)),
            Some(Fault::Cut(_)) => Err(injected(ErrorKind::Unavailable, name)),
            Some(Fault::LostAnswer(kind)) => {
                run()?;
                Err(injected(kind, name))
            }
            Some(Fault::Stall(gate)) => {
                gate.pass();
                run()
            }
        }
    }

    fn apply_read(&self, name: &str, run: impl FnOnce() -> Result<Bytes>) -> Result<Bytes> {
        match self.fault(Operation::Get, name) {
            None => run(),
            Some(Fault::Fail(kind) | Fault::LostAnswer(kind)) => Err(injected(kind, name)),
            Some(Fault::Stall(gate)) => {
                gate.pass();
                run()
            }
            Some(Fault::Cut(len)) => run().map(|bytes| bytes.slice(..len.min(bytes.len()))),
            Some(Fault::Corrupt(at)) => run().map(|bytes| {
                let mut bytes = bytes.to_vec();
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] ^= 0xff;
                }
                Bytes::from(bytes)
            }),
        }
    }
}

fn injected(kind: ErrorKind, name: &str) -> Error {
    Error::new(kind, "meet an injected fault").object(name)
}

impl Store for FaultyStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.apply(Operation::Put, name, || self.inner.put(name, body))
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.apply(Operation::PutOnce, name, || self.inner.put_once(name, body))
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.apply(Operation::Create, name, || self.inner.create(name, body))
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.apply_read(name, || self.inner.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.apply_read(name, || self.inner.get_range(name, range))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        self.apply(Operation::Head, name, || self.inner.head(name))
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        self.apply(Operation::List, prefix, || self.inner.list(prefix, page))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.apply(Operation::Delete, name, || self.inner.delete(name))
    }

    fn purge(&self, name: &str) -> Result<Purged> {
        self.apply(Operation::Delete, name, || self.inner.purge(name))
    }

    fn lock(&self, name: &str, until: SystemTime) -> Result<()> {
        self.apply(Operation::Lock, name, || self.inner.lock(name, until))
    }

    fn locked_until(&self, name: &str) -> Result<Option<SystemTime>> {
        self.apply(Operation::Head, name, || self.inner.locked_until(name))
    }

    fn require_locks(&self) -> Result<()> {
        self.inner.require_locks()
    }

    fn versions(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<Version>) -> Result<()>,
    ) -> Result<()> {
        self.apply(Operation::List, prefix, || {
            self.inner.versions(prefix, page)
        })
    }

    fn delete_version(&self, name: &str, version: &str) -> Result<()> {
        self.apply(Operation::Delete, name, || {
            self.inner.delete_version(name, version)
        })
    }

    fn get_version(&self, name: &str, version: &str) -> Result<Bytes> {
        self.apply_read(name, || self.inner.get_version(name, version))
    }

    fn rely_on(&self, folder: &str) {
        self.inner.rely_on(folder);
    }

    fn sync(&self) -> Result<()> {
        self.apply(Operation::Sync, "", || self.inner.sync())
    }

    fn counts(&self) -> RequestCounts {
        self.inner.counts()
    }

    fn explore(&self, scratch: &str) -> Result<StoreProfile> {
        self.inner.explore(scratch)
    }

    fn adopt_profile(&self, profile: &StoreProfile) {
        self.inner.adopt_profile(profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::store::contract;
    use crate::repository::store::directory::DirectoryStore;

    fn store() -> (tempfile::TempDir, FaultyStore) {
        let folder = tempfile::tempdir().unwrap();
        let inner = DirectoryStore::open(folder.path(), false).unwrap();
        (folder, FaultyStore::new(Arc::new(inner)))
    }

    #[test]
    fn without_rules_it_is_a_store_like_any() {
        let folder = tempfile::tempdir().unwrap();
        let made = std::cell::Cell::new(0);
        contract::run(&|| {
            made.set(made.get() + 1);
            let path = folder.path().join(made.get().to_string());
            Arc::new(FaultyStore::new(Arc::new(
                DirectoryStore::open(&path, true).unwrap(),
            )))
        });
    }

    #[test]
    fn rules_hit_the_calls_they_name() {
        let (_folder, store) = store();
        store.add(Rule::nth(
            Operation::Put,
            "seg/",
            1,
            Fault::Fail(ErrorKind::NoSpace),
        ));
        store.put("seg/a", Bytes::from_static(b"a")).unwrap();
        store.put("map/b", Bytes::from_static(b"b")).unwrap();
        let error = store.put("seg/b", Bytes::from_static(b"b")).unwrap_err();
        assert_eq!(
            (error.kind(), error.object_name()),
            (ErrorKind::NoSpace, Some("seg/b"))
        );
        store.put("seg/c", Bytes::from_static(b"c")).unwrap();
        assert_eq!(store.head("seg/b").unwrap(), None);
    }

    #[test]
    fn a_lost_answer_leaves_the_object_and_reads_are_cut_and_corrupted() {
        let (_folder, store) = store();
        store.add(Rule::always(
            Operation::Put,
            "lost",
            Fault::LostAnswer(ErrorKind::Unavailable),
        ));
        assert!(store.put("lost", Bytes::from_static(b"abc")).is_err());
        assert_eq!(store.get("lost").unwrap(), "abc");
        store.add(Rule::nth(Operation::Get, "lost", 0, Fault::Cut(2)));
        assert_eq!(store.get("lost").unwrap(), "ab");
        store.add(Rule::nth(Operation::Get, "lost", 0, Fault::Corrupt(4)));
        assert_eq!(
            store.get_range("lost", 0..3).unwrap(),
            [b'a', b'b' ^ 0xff, b'c'][..]
        );
        store.heal();
        assert_eq!(store.get("lost").unwrap(), "abc");
    }

    #[test]
    fn a_stalled_call_waits_for_its_gate() {
        let (_folder, store) = store();
        let gate = Arc::new(Gate::default());
        store.add(Rule::always(
            Operation::Put,
            "slow",
            Fault::Stall(Arc::clone(&gate)),
        ));
        std::thread::scope(|scope| {
            let put = scope.spawn(|| store.put("slow", Bytes::from_static(b"x")));
            gate.wait_for(1);
            assert_eq!(store.head("slow").unwrap(), None);
            gate.open();
            put.join().unwrap().unwrap();
        });
        assert_eq!(store.get("slow").unwrap(), "x");
    }
}

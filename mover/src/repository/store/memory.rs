//! A store in memory with a clock of its own: for tests that need many of them, or moments that a disk cannot give.
//!
//! Owns: objects, small pages, and the time. Must not: be part of a release.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::counters::Counters;
use super::object_name::{check_name, split_prefix};
use super::profile::StoreProfile;
use super::{Created, ObjectInfo, RequestCounts, Store};
use crate::error::{Error, ErrorKind, Result};

/// Objects in memory.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    page: usize,
    counters: Counters,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, (Bytes, SystemTime)>,
    now: SystemTime,
    profile: Option<StoreProfile>,
}

impl Default for MemoryStore {
    /// Pages as large as those of S3.
    fn default() -> Self {
        Self::new(1000)
    }
}

impl MemoryStore {
    /// An empty store that lists `page` objects at a time. Its clock stands still in 2001.
    #[must_use]
    pub fn new(page: usize) -> Self {
        Self {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
                profile: None,
            }),
            page,
            counters: Counters::default(),
        }
    }

    /// Moves the clock, forwards or backwards.
    pub fn set_time(&self, now: SystemTime) {
        self.state().now = now;
    }

    /// The clock.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.state().now
    }

    /// Names of all objects, ascending.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// An object, without a request.
    #[must_use]
    pub fn peek(&self, name: &str) -> Option<Bytes> {
        self.state().objects.get(name).map(|(body, _)| body.clone())
    }

    /// The profile that it was told to use.
    #[must_use]
    pub fn adopted(&self) -> Option<StoreProfile> {
        self.state().profile.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, name: &str, body: Bytes) -> Result<Created> {
        check_name(name)?;
        self.counters.put(body.len());
        let mut state = self.state();
        let now = state.now;
        if let Some((_, modified)) = state.objects.get_mut(name).filter(|(old, _)| *old == body) {
            *modified = now;
            return Ok(Created::Won);
        }
        if state.objects.contains_key(name) {
            return Ok(Created::Exists);
        }
        state.objects.insert(name.to_owned(), (body, now));
        Ok(Created::Won)
    }

    /// The next page behind `after`.
    fn page(&self, prefix: &str, after: Option<&str>) -> Vec<ObjectInfo> {
        self.counters.list();
        let state = self.state();
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let found = state.objects.range::<str, _>((start, Bound::Unbounded));
        found
            .take_while(|(name, _)| name.starts_with(prefix))
            .take(self.page)
            .map(|(name, (body, modified))| ObjectInfo {
                name: name.clone(),
                size: body.len() as u64,
                modified: Some(*modified),
            })
            .collect()
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "read the object").object(name)
}

impl Store for MemoryStore {
    fn url(&self) -> String {
        "memory:".to_owned()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        match self.insert(name, body)? {
            Created::Won => Ok(()),
            Created::Exists => Err(Error::new(
                ErrorKind::Internal,
                "store an object under a name that holds other bytes",
            )
            .object(name)),
        }
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.put(name, body)
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.insert(name, body)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.get_range(name, 0..u64::MAX)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        check_name(name)?;
        let body = self.peek(name).ok_or_else(|| missing(name))?;
        let at = |offset: u64| usize::try_from(offset).map_or(body.len(), |at| at.min(body.len()));
        let part = body.slice(at(range.start)..at(range.end).max(at(range.start)));
        self.counters.get(part.len());
        Ok(part)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        check_name(name)?;
        self.counters.head();
        let state = self.state();
        Ok(state.objects.get(name).map(|(body, modified)| ObjectInfo {
            name: name.to_owned(),
            size: body.len() as u64,
            modified: Some(*modified),
        }))
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        split_prefix(prefix)?;
        let mut after: Option<String> = None;
        loop {
            let found = self.page(prefix, after.as_deref());
            let is_last = found.len() < self.page;
            after = found.last().map(|info| info.name.clone());
            if !found.is_empty() {
                page(found)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.counters.delete();
        self.state().objects.remove(name);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> RequestCounts {
        self.counters.snapshot()
    }

    fn explore(&self, _scratch: &str) -> Result<StoreProfile> {
        Ok(StoreProfile {
            conditional_writes: true,
            kind: "directory".to_owned(),
            ..StoreProfile::default()
        })
    }

    fn adopt_profile(&self, profile: &StoreProfile) {
        self.state().profile = Some(profile.clone());
    }
}

#[cfg(test)]
mod altered;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_holds() {
        crate::repository::store::contract::run(&|| std::sync::Arc::new(MemoryStore::new(1000)));
    }

    #[test]
    fn pages_are_small_and_see_what_comes_meanwhile() {
        let store = MemoryStore::new(2);
        for name in ["a/1", "a/2", "a/3", "b/1"] {
            store.put(name, Bytes::from_static(b"x")).unwrap();
        }
        let mut pages = Vec::new();
        store
            .list("a/", &mut |page| {
                if pages.is_empty() {
                    store.delete("a/3")?;
                    store.put("a/4", Bytes::from_static(b"x"))?;
                }
                pages.push(page.into_iter().map(|info| info.name).collect::<Vec<_>>());
                Ok(())
            })
            .unwrap();
        assert_eq!(pages, [vec!["a/1", "a/2"], vec!["a/4"]]);
    }
}

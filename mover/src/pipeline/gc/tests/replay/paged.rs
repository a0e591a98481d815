//! What a collector lists where the model splits its listings into pages.
//!
//! ```text
//!   page of the model ─► its sessions' objects, noted as they are ─► … ─► last page ─► all that was noted, in pages of one object
//! ```
//!
//! Owns: listings that show each object as it was at some moment between their begin and their end, which is all that a store
//! promises (gc-protocol A2). The model decides the moments, by session; the code gets as many pages as there can be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::Result;
use crate::repository::store::memory::MemoryStore;
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::{Created, ObjectInfo, RequestCounts, Store};

/// The store of one collector.
#[derive(Debug)]
pub(super) struct PagedStore {
    inner: Arc<MemoryStore>,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// The page of the model that comes next.
    page: usize,
    objects: BTreeMap<String, ObjectInfo>,
    /// What is listed now, if this answers.
    prefixes: Vec<&'static str>,
    answers: bool,
}

impl PagedStore {
    pub(super) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            noted: Mutex::default(),
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which page of its listing the model takes.
    pub(super) fn next_page(&self) -> usize {
        let mut noted = self.noted();
        noted.page += 1;
        noted.page - 1
    }

    /// Notes the objects under `prefixes` that belong to the page.
    pub(super) fn note(
        &self,
        prefixes: impl Iterator<Item = &'static str>,
        is_on_page: impl Fn(&str) -> bool,
    ) {
        let mut noted = self.noted();
        noted.prefixes = prefixes.collect();
        for object in self.inner.names() {
            let is_listed = noted
                .prefixes
                .iter()
                .any(|prefix| object.starts_with(prefix));
            if is_listed && is_on_page(&object) {
                let found = self.inner.head(&object).expect("the name is right");
                noted.objects.insert(object, found.expect("it is there"));
            }
        }
    }

    /// Listings are answered by what was noted, or no more: then the next one begins.
    pub(super) fn answer(&self, answers: bool) {
        let mut noted = self.noted();
        noted.answers = answers;
        if !answers {
            noted.page = 0;
            noted.objects.clear();
        }
    }
}

impl Store for PagedStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.inner.put(name, body)
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.inner.put_once(name, body)
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.inner.create(name, body)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(name, range)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        self.inner.head(name)
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        let found: Vec<ObjectInfo> = {
            let noted = self.noted();
            let is_listed =
                |kind: &&str| prefix.starts_with(*kind) && prefix.len() <= kind.len() + 1;
            if !(noted.answers && noted.prefixes.iter().any(is_listed)) {
                drop(noted);
                return self.inner.list(prefix, page);
            }
            let objects = noted.objects.values();
            objects
                .filter(|info| info.name.starts_with(prefix))
                .cloned()
                .collect()
        };
        found.into_iter().try_for_each(|info| page(vec![info]))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn counts(&self) -> RequestCounts {
        self.inner.counts()
    }

    fn explore(&self, scratch: &str) -> Result<StoreProfile> {
        self.inner.explore(scratch)
    }
}

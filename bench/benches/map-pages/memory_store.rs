//! A store in memory, so that the benches measure pages and not a disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mover::repository::store::profile::StoreProfile;
use mover::repository::store::{Created, ObjectInfo, RequestCounts, Store};
use mover::{Error, ErrorKind, Result};

/// Objects by name. Puts replace: a bench writes the same segments again and again.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<BTreeMap<String, Bytes>>);

impl MemoryStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn url(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.objects().insert(name.to_owned(), body);
        Ok(())
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.put(name, body)
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        if self.objects().contains_key(name) {
            return Ok(Created::Exists);
        }
        self.put(name, body).map(|()| Created::Won)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let found = self.objects().get(name).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "get an object").object(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let body = self.get(name)?;
        let place = |at: u64| usize::try_from(at).map_or(body.len(), |at| at.min(body.len()));
        Ok(body.slice(place(range.start)..place(range.end)))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        let info = |body: &Bytes| ObjectInfo {
            name: name.to_owned(),
            size: body.len() as u64,
            modified: None,
        };
        Ok(self.objects().get(name).map(info))
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        let names: Vec<String> = self.objects().keys().cloned().collect();
        let infos = names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| self.head(name));
        page(infos.filter_map(Result::transpose).collect::<Result<_>>()?)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.objects().remove(name);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> RequestCounts {
        RequestCounts::default()
    }

    fn explore(&self, _scratch: &str) -> Result<StoreProfile> {
        Ok(StoreProfile::default())
    }
}

//! The store of one actor, as it is and as a mistake in the code would make it look.
//!
//! Owns: planted mistakes, each one of the model's mutations in the order or the answers of real requests. Where the model's bounds leave
//! out that collectors add missing copies, they are kept from it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::name;
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::{Created, ObjectInfo, RequestCounts, Store};

/// A mistake, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bend {
    Sound,
    /// Nobody looks for forget orders before building on a point: M1.
    TombUnseen,
    /// A commit is acknowledged without a look at the start record: M3.
    NoConfirm,
    /// A purge deletes the slot before the start record: M4.
    SlotFirst,
    /// A commit overwrites the slot: M6.
    CommitOverwrites,
    /// Sessions in flight are not seen: M9.
    NoRecords,
    /// The second listing of start records is left out: M21.
    OneListing,
    /// The first page of a listing is taken for all of it.
    FirstPage,
    /// Missing copies are not stored.
    NoMends,
    /// An old generation is deleted before the new one is there: M18.
    DeleteFirst,
}

/// One actor's store.
#[derive(Debug)]
pub(super) struct BentStore {
    inner: Arc<dyn Store>,
    bend: Bend,
    collector: bool,
    mends: bool,
    /// Requests held back, and listings so far.
    held: Mutex<(Vec<String>, usize)>,
}

impl BentStore {
    pub(super) fn new(inner: Arc<dyn Store>, bend: Bend, collector: bool) -> Self {
        Self {
            inner,
            bend,
            collector,
            mends: false,
            held: Mutex::default(),
        }
    }

    /// The same for a collector that may add copies.
    pub(super) fn with_mends(self, mends: bool) -> Self {
        Self { mends, ..self }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, (Vec<String>, usize)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for BentStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put(&self, object: &str, body: Bytes) -> Result<()> {
        let mends = self.mends && self.bend != Bend::NoMends;
        if self.collector && !mends && object.starts_with(name::COPY) {
            return Err(Error::new(ErrorKind::AccessDenied, "not here").object(object));
        }
        self.inner.put(object, body)
    }

    fn put_once(&self, object: &str, body: Bytes) -> Result<()> {
        self.inner.put_once(object, body)
    }

    fn create(&self, object: &str, body: Bytes) -> Result<Created> {
        match self.bend {
            Bend::CommitOverwrites if body.len() > 256 && object.starts_with(name::SNAP) => {
                let won = self.inner.create(object, body.clone())?;
                if won == Created::Exists {
                    self.inner.delete(object)?;
                    self.inner.create(object, body)?;
                }
                Ok(Created::Won)
            }
            Bend::DeleteFirst if object.starts_with(name::SEG) => {
                let (stem, generation) = object.rsplit_once('g').expect("a segment");
                let before: u8 = generation.parse::<u8>().expect("two digits") - 1;
                self.inner.delete(&format!("{stem}g{before:02}"))?;
                self.inner.create(object, body)
            }
            _ => self.inner.create(object, body),
        }
    }

    fn get(&self, object: &str) -> Result<Bytes> {
        self.inner.get(object)
    }

    fn get_range(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(object, range)
    }

    fn head(&self, object: &str) -> Result<Option<ObjectInfo>> {
        let found = self.inner.head(object)?;
        let seems = |size| ObjectInfo {
            name: object.to_owned(),
            size,
            modified: None,
        };
        Ok(match self.bend {
            Bend::TombUnseen if !self.collector && object.starts_with(name::TOMB) => None,
            Bend::NoConfirm if !self.collector && object.starts_with(name::OPEN) => {
                Some(found.unwrap_or_else(|| seems(1000)))
            }
            _ => found,
        })
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        let opens = self.collector && prefix.starts_with(name::OPEN);
        let again = opens && {
            self.held().1 += 1;
            self.held().1.is_multiple_of(2)
        };
        let mut is_first = true;
        self.inner.list(prefix, &mut |mut found| {
            let is_more = self.collector && !std::mem::take(&mut is_first);
            if self.bend == Bend::FirstPage && is_more {
                return Ok(());
            }
            let hidden = match self.bend {
                Bend::OneListing => again,
                Bend::NoRecords => opens,
                _ => false,
            };
            if hidden {
                found.clear();
            }
            page(found)
        })
    }

    fn delete(&self, object: &str) -> Result<()> {
        if self.bend == Bend::SlotFirst && self.collector {
            if object.starts_with(name::OPEN) {
                self.held().0.push(object.to_owned());
                return Ok(());
            }
            if let Some(rest) = object.strip_prefix(name::SNAP) {
                self.inner.delete(object)?;
                let open = format!("{}{rest}", name::OPEN);
                let held = std::mem::take(&mut self.held().0);
                let (now, later): (Vec<_>, Vec<_>) = held.into_iter().partition(|one| *one == open);
                self.held().0 = later;
                return now.iter().try_for_each(|open| self.inner.delete(open));
            }
        }
        self.inner.delete(object)
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

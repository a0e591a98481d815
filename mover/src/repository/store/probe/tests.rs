use super::*;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::repository::store::directory::DirectoryStore;
use crate::repository::store::{ObjectInfo, RequestCounts};

/// A directory that lies in one way.
#[derive(Debug)]
struct Liar {
    inner: DirectoryStore,
    lie: Lie,
    lied: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Every create succeeds, and the last one's bytes stay.
    EveryoneWins,
    /// Right the first time, but a deleted name never comes free.
    NameStaysTaken,
    /// The winner is told so, but its bytes are not the object.
    WrongBytes,
    /// A listing shows all but the last object.
    ListsLate,
    /// A listing comes in the wrong order.
    ListsBackwards,
    /// Deletes fail.
    KeepsAll,
}

impl Store for Liar {
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
        match self.lie {
            Lie::EveryoneWins => {
                self.inner.delete(name)?;
                self.inner.create(name, body)?;
                Ok(Created::Won)
            }
            Lie::NameStaysTaken if self.lied.load(Ordering::SeqCst) => Ok(Created::Exists),
            Lie::WrongBytes => self
                .inner
                .create(name, Bytes::from_static(b"nobody's bytes, same")),
            _ => self.inner.create(name, body),
        }
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
        self.inner.list(prefix, &mut |mut objects| {
            match self.lie {
                Lie::ListsLate => drop(objects.pop()),
                Lie::ListsBackwards => objects.reverse(),
                _ => {}
            }
            page(objects)
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        if self.lie == Lie::KeepsAll {
            return Err(Error::new(ErrorKind::AccessDenied, "delete the object").object(name));
        }
        if name.contains("contended") {
            self.lied.store(true, Ordering::SeqCst);
        }
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

/// What the probe says, and how many objects it left.
fn probed(lie: Lie) -> (Result<StoreProfile>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let inner = DirectoryStore::open(folder.path(), false).unwrap();
    let liar = Liar {
        inner,
        lie,
        lied: AtomicBool::new(false),
    };
    let profile = probe(&liar, ProbeOptions::default());
    (profile, list_all(&liar.inner, "").unwrap().len())
}

#[test]
fn an_honest_store_passes() {
    let (profile, left) = probed(Lie::None);
    assert!(profile.unwrap().conditional_writes);
    assert_eq!(left, 0);
}

#[test]
fn creates_without_one_winner_are_noticed() {
    for lie in [Lie::EveryoneWins, Lie::NameStaysTaken, Lie::WrongBytes] {
        let (profile, left) = probed(lie);
        assert!(!profile.unwrap().conditional_writes, "{lie:?}");
        assert_eq!(left, 0, "{lie:?}");
    }
}

#[test]
fn a_store_that_lists_wrongly_is_refused_with_advice() {
    for lie in [Lie::ListsLate, Lie::ListsBackwards] {
        let (profile, left) = probed(lie);
        let error = profile.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{lie:?}");
        assert!(error.hint_text().is_some());
        assert_eq!(left, 0, "{lie:?}");
    }
}

/// What needs no delete is probed all the same; the objects stay, for nobody here may remove them.
#[test]
fn the_right_to_delete_is_not_needed() {
    let (profile, left) = probed(Lie::KeepsAll);
    assert!(profile.unwrap().conditional_writes);
    assert_eq!(left, LISTED.len() + 1);
}

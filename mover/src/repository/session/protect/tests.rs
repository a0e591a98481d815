//! Which locks follow from times, and what is done about the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::repository::access::{InitOptions, init};
use crate::repository::format::Cipher;
use crate::repository::map::LivePages;
use crate::repository::map::entry::Location;
use crate::repository::map::liveness::LivenessBuilder;
use crate::repository::store::directory::DirectoryStore;
use crate::repository::store::lock::LockMode;
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::{Created, RequestCounts, Store};

const DAY: Duration = Duration::from_secs(86_400);

const POLICY: ObjectLock = ObjectLock {
    mode: LockMode::Governance,
    keep_secs: 30 * 86_400,
    window_secs: 7 * 86_400,
};

/// A directory that remembers which objects were locked until when.
#[derive(Debug)]
struct Locking {
    inner: DirectoryStore,
    locks: Mutex<BTreeMap<String, SystemTime>>,
}

impl Store for Locking {
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
    fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
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
        self.inner.list(prefix, page)
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
    fn lock(&self, name: &str, until: SystemTime) -> Result<()> {
        if self.head(name)?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "lock").object(name));
        }
        self.locks.lock().unwrap().insert(name.to_owned(), until);
        Ok(())
    }
    /// `init` looks whether the config is locked.
    fn locked_until(&self, _name: &str) -> Result<Option<SystemTime>> {
        Ok(Some(moment(i64::MAX / 4)))
    }
}

struct Rig {
    _folder: tempfile::TempDir,
    store: Arc<Locking>,
    repository: Repository,
}

fn rig(lock: Option<ObjectLock>) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Locking {
        inner: DirectoryStore::open(folder.path(), false).unwrap(),
        locks: Mutex::default(),
    });
    let options = InitOptions {
        cipher: Cipher::None,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile: StoreProfile {
            conditional_writes: true,
            lock,
            ..StoreProfile::default()
        },
        created_unix_secs: 0,
    };
    let repository = init(Arc::<Locking>::clone(&store), &options, None).unwrap();
    Rig {
        _folder: folder,
        store,
        repository,
    }
}

fn session(byte: u8) -> SessionId {
    SessionId([byte; 16])
}

/// A point that needs map pages of these segments.
fn liveness(segments: &[(u8, u32)]) -> Liveness {
    let mut pages = LivePages::default();
    for (owner, number) in segments {
        pages.insert(Location {
            segment: SegmentId {
                session: session(*owner),
                number: *number,
            },
            ordinal: 3,
        });
    }
    let mut builder = LivenessBuilder::fresh();
    builder.set_pages(pages);
    builder.finish()
}

fn base(began: Duration, committed: Duration, parents: &[Duration]) -> Base {
    Base {
        own: session(1),
        began: UNIX_EPOCH + began,
        committed: UNIX_EPOCH + committed,
        parents: parents.iter().map(|parent| UNIX_EPOCH + *parent).collect(),
        adopted: vec![session(3)],
    }
}

/// Which objects were locked, after storing map segments 0 to 4 of sessions 1 to 3.
fn locked(rig: &Rig, base: &Base, live: &[(u8, u32)]) -> Result<Vec<String>> {
    for owner in 1..=3 {
        for number in 0..5 {
            let id = SegmentId {
                session: session(owner),
                number,
            };
            rig.store
                .put(&name::map_segment(id), Bytes::from_static(b"x"))?;
        }
    }
    rig.store.locks.lock().unwrap().clear();
    let extended = extend(&rig.repository, &liveness(live), base)?;
    let locks = rig.store.locks.lock().unwrap();
    assert_eq!(locks.len() as u64, extended);
    assert!(
        locks
            .values()
            .all(|until| *until == POLICY.end(base.committed))
    );
    Ok(locks.keys().cloned().collect())
}

fn map(owner: u8, number: u32) -> String {
    name::map_segment(SegmentId {
        session: session(owner),
        number,
    })
}

#[test]
fn a_child_of_the_same_window_extends_nothing() {
    let rig = rig(Some(POLICY));
    let base = base(8 * DAY, 9 * DAY, &[7 * DAY]);
    assert!(
        locked(&rig, &base, &[(1, 0), (2, 1), (2, 4)])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_child_of_a_later_window_extends_what_it_needs_and_the_roots() {
    let rig = rig(Some(POLICY));
    let base = base(14 * DAY, 15 * DAY, &[13 * DAY]);
    let names = locked(&rig, &base, &[(1, 0), (2, 1), (2, 4)]).unwrap();
    assert_eq!(names, ["config", "config.b", &map(2, 1), &map(2, 4)]);
}

#[test]
fn what_a_dead_session_left_is_extended_and_so_is_what_was_stored_before_the_window() {
    let rig = rig(Some(POLICY));
    let same = base(8 * DAY, 9 * DAY, &[7 * DAY]);
    assert_eq!(locked(&rig, &same, &[(1, 0), (3, 2)]).unwrap(), [map(3, 2)]);
    let long = base(13 * DAY, 15 * DAY, &[15 * DAY]);
    assert_eq!(locked(&rig, &long, &[(1, 0), (2, 1)]).unwrap(), [map(1, 0)]);
}

#[test]
fn without_locks_nothing_is_asked() {
    let rig = rig(None);
    let base = base(Duration::ZERO, 50 * DAY, &[]);
    let before = rig.store.counts();
    assert_eq!(
        extend(&rig.repository, &liveness(&[(1, 0)]), &base).unwrap(),
        0
    );
    assert_eq!(rig.store.counts(), before);
}

#[test]
fn a_segment_that_is_gone_fails_before_the_commit() {
    let rig = rig(Some(POLICY));
    let base = base(14 * DAY, 15 * DAY, &[13 * DAY]);
    let error = locked(&rig, &base, &[(2, 1), (2, 77)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(map(2, 77).as_str()));
}

proptest! {
    /// Against a naive model that knows when every object was really locked until.
    #[test]
    fn a_chain_of_points_is_always_locked_long_enough(
        keep in 1..100_u64, window in 1..100_u64, steps in prop::collection::vec((0..60_u64, 0..60_u64, any::<bool>()), 1..12)
    ) {
        let policy = ObjectLock { mode: LockMode::Compliance, keep_secs: keep, window_secs: window };
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let mut now = 1_000;
        let mut parent: Option<SystemTime> = None;
        // Ends of the locks of everything that the newest point needs, by session.
        let mut ends: Vec<(SessionId, SystemTime)> = Vec::new();
        for (index, (pause, duration, adopts)) in steps.into_iter().enumerate() {
            let own = session(u8::try_from(index).unwrap());
            let dead = session(100 + u8::try_from(index).unwrap());
            now += pause;
            if adopts {
                ends.push((dead, policy.end(at(now))));
                now += pause;
            }
            let began = at(now);
            ends.push((own, policy.end(began)));
            now += duration;
            let base = Base {
                own, began, committed: at(now), parents: parent.into_iter().collect(),
                adopted: if adopts { vec![dead] } else { Vec::new() },
            };
            for (session, end) in &mut ends {
                if base.is_short(&policy, *session) {
                    *end = policy.end(base.committed);
                }
                prop_assert!(*end >= base.committed + Duration::from_secs(keep), "{:?} of {:?}", session, base);
            }
            parent = Some(base.committed);
        }
    }
}

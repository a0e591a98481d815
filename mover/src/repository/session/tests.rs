//! The protocol against a real directory: every test is one thing that could lose or invent a point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::adopt::Takeover;
use super::forget::{Tomb, bury, read_tomb};
use super::origin::Origin;
use super::points::{self, Catalog, Point, PointStatus};
use super::reader::ReaderLease;
use super::records::Kind;
use super::resolve::resolve;
use super::writer::{Begin, WriterSession, abort};
use crate::error::ErrorKind;
use crate::repository::access::{self, InitOptions, Repository};
use crate::repository::format::crypto::Cipher;
use crate::repository::format::manifest::{Manifest, PointState, PointStats};
use crate::repository::ids::{SessionId, SessionKey, name, random};
use crate::repository::map::{LivenessRef, MapRoot};
use crate::repository::store::directory::DirectoryStore;
use crate::repository::store::faulty::{Fault, FaultyStore, Operation, Rule};
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::{Created, list_all};

struct Bench {
    _dir: TempDir,
    repository: Arc<Repository>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(&dir.path().join("repo"), true).unwrap());
        let options = InitOptions {
            cipher: Cipher::None,
            chunk_size: 128 * 1024,
            segment_size: 1 << 20,
            profile: decided(),
            created_unix_secs: 0,
        };
        let repository = access::init(store, &options, None).unwrap();
        Self {
            _dir: dir,
            repository: Arc::new(repository),
        }
    }

    fn begin_at(&self, pins: &[SessionKey], here: &Origin) -> crate::Result<WriterSession> {
        let store = self.repository.store.as_ref();
        let catalog = Catalog::list(store, self.repository.keys.volume_id("disk")).unwrap();
        let takeover = Takeover {
            after: Duration::from_secs(600),
            here: here.clone(),
            given_up: None,
        };
        let sequence = catalog.next_sequence().unwrap();
        let begin = Begin {
            volume: "disk",
            pins,
            sequence,
            takeover,
        };
        WriterSession::begin(&self.repository, &begin, &catalog)
    }

    fn begin(&self) -> WriterSession {
        self.begin_at(&[], &Origin::current()).unwrap()
    }

    fn point(&self) -> Point {
        let session = self.begin();
        let manifest = empty(session.key());
        session.commit(manifest).unwrap()
    }

    fn all(&self) -> Vec<Point> {
        points::list(&self.repository, None).unwrap().points
    }

    fn delete(&self, name: &str) {
        self.repository.store.delete(name).unwrap();
    }

    fn forget(&self, key: &SessionKey) {
        let body = bytes::Bytes::from_static(b"forgotten by a test, 16 bytes and more");
        assert_eq!(
            self.repository
                .store
                .create(&name::tomb(key), body)
                .unwrap(),
            Created::Won
        );
    }
}

/// The manifest of an empty volume.
fn empty(session: SessionKey) -> Manifest {
    Manifest {
        session,
        volume: "disk".into(),
        parent: None,
        size: 0,
        chunk_size: 128 * 1024,
        root: MapRoot::zero(0),
        liveness: LivenessRef::of(b""),
        exact_liveness_age: 0,
        tags: BTreeMap::new(),
        group: None,
        state: PointState::Crash,
        content_hash: [0; 32],
        created_unix_millis: 0,
        tool: "test".into(),
        stats: PointStats::default(),
        changed_blocks: "scan".into(),
        changed_blocks_reason: String::new(),
        identity: Vec::new(),
        pins: Vec::new(),
        features_read: 0,
    }
}

/// A process of this boot that has surely ended.
/// What a probe finds of a store that a session may be taken over in.
fn decided() -> StoreProfile {
    StoreProfile {
        conditional_writes: true,
        ..StoreProfile::default()
    }
}

fn dead_origin() -> Origin {
    let here = Origin::current();
    Origin {
        started_ticks: here.started_ticks + 1,
        ..here
    }
}

#[test]
fn a_committed_point_is_found_by_every_name() {
    let bench = Bench::new();
    let first = bench.point();
    let second = bench.point();
    assert_eq!(bench.all().len(), 2);
    let latest = resolve(&bench.repository, "disk@latest").unwrap();
    assert_eq!(latest.key, second.key);
    let id = first.id().to_string();
    for text in [id.as_str(), &id[..8], &id[..18]] {
        assert_eq!(resolve(&bench.repository, text).unwrap().key, first.key);
    }
    assert!(
        bench
            .repository
            .store
            .head(&name::copy(&first.key))
            .unwrap()
            .is_some()
    );
}

#[test]
fn what_does_not_name_one_point_is_refused() {
    let bench = Bench::new();
    bench.point();
    for (text, kind) in [
        ("other@latest", ErrorKind::NotFound),
        ("disk@first", ErrorKind::InvalidRequest),
        ("ffffffffffffffff-00000000", ErrorKind::NotFound),
        ("abc", ErrorKind::InvalidRequest),
        ("no point", ErrorKind::InvalidRequest),
    ] {
        assert_eq!(
            resolve(&bench.repository, text).unwrap_err().kind(),
            kind,
            "{text}"
        );
    }
}

#[test]
fn an_open_session_is_no_point_and_a_fenced_one_never_becomes_one() {
    let bench = Bench::new();
    let session = bench.begin();
    assert!(bench.all().is_empty());
    let won = abort(&bench.repository, &session.key(), SessionId(random())).unwrap();
    assert_eq!(won, Created::Won);
    assert_eq!(session.beat().unwrap_err().kind(), ErrorKind::Fenced);
    let manifest = empty(session.key());
    assert_eq!(
        session.commit(manifest).unwrap_err().kind(),
        ErrorKind::Fenced
    );
    assert!(bench.all().is_empty());
}

#[test]
fn a_commit_without_its_start_record_is_not_acknowledged() {
    let bench = Bench::new();
    let session = bench.begin();
    bench.delete(&name::open(&session.key()));
    let manifest = empty(session.key());
    assert_eq!(
        session.commit(manifest).unwrap_err().kind(),
        ErrorKind::Fenced
    );
    assert!(bench.all().is_empty());
}

#[test]
fn a_forgotten_parent_is_refused_and_the_session_fenced() {
    let bench = Bench::new();
    let parent = bench.point();
    bench.forget(&parent.key);
    let error = bench
        .begin_at(&[parent.key], &Origin::current())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let volume = parent.key.volume;
    let catalog = Catalog::list(bench.repository.store.as_ref(), volume).unwrap();
    assert_eq!(catalog.undecided().count(), 0);
    assert!(
        catalog
            .newest_complete(&bench.repository, &mut Vec::new())
            .unwrap()
            .is_none()
    );
    assert_eq!(bench.all()[0].status, PointStatus::Forgotten);
}

#[test]
fn a_dead_session_is_taken_over_once_with_all_it_had_taken_over() {
    let bench = Bench::new();
    let first = bench.begin_at(&[], &dead_origin()).unwrap().key();
    let second = bench.begin_at(&[], &dead_origin()).unwrap();
    assert_eq!(second.adoption().sessions, vec![first]);
    let second = second.key();
    let third = bench.begin_at(&[], &dead_origin()).unwrap();
    assert_eq!(third.adoption().sessions, vec![first, second]);
    let third = third.key();
    let fourth = bench.begin();
    let mut owned = fourth.adoption().sessions.clone();
    owned.sort_unstable();
    let mut expected = vec![first, second, third];
    expected.sort_unstable();
    assert_eq!(owned, expected, "a chain of any length is taken over");
    let fifth = bench.begin();
    assert!(
        fifth.adoption().sessions.is_empty(),
        "a living session is never taken over"
    );
}

#[test]
fn data_of_a_purged_session_is_not_taken_over() {
    let bench = Bench::new();
    let first = bench.begin_at(&[], &dead_origin()).unwrap().key();
    let second = bench.begin_at(&[], &dead_origin()).unwrap().key();
    bench.delete(&name::open(&first));
    assert_eq!(bench.begin().adoption().sessions, vec![second]);
}

#[test]
fn a_session_of_another_machine_is_taken_over_only_after_its_silence() {
    let bench = Bench::new();
    let elsewhere = Origin {
        boot_id: "elsewhere".into(),
        ..Origin::current()
    };
    let silent = bench.begin_at(&[], &elsewhere).unwrap().key();
    assert!(bench.begin().adoption().sessions.is_empty());
    let volume = bench.repository.keys.volume_id("disk");
    let catalog = Catalog::list(bench.repository.store.as_ref(), volume).unwrap();
    let takeover = Takeover {
        after: Duration::ZERO,
        here: Origin::current(),
        given_up: None,
    };
    let sequence = catalog.next_sequence().unwrap();
    let begin = Begin {
        volume: "disk",
        pins: &[],
        sequence,
        takeover,
    };
    let session = WriterSession::begin(&bench.repository, &begin, &catalog).unwrap();
    assert!(session.adoption().sessions.contains(&silent));
}

#[test]
fn a_session_beats_until_its_commit() {
    let bench = Bench::new();
    let session = bench.begin();
    let beat = name::beat(session.key().session);
    let modified = || {
        bench
            .repository
            .store
            .head(&beat)
            .unwrap()
            .unwrap()
            .modified
            .unwrap()
    };
    session.put_beat().unwrap();
    let first = modified();
    let renewed = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        session.put_beat().unwrap();
        modified() > first
    });
    assert!(renewed, "a heartbeat is newer than the one before");
    let manifest = empty(session.key());
    session.commit(manifest).unwrap();
    assert!(bench.repository.store.head(&beat).unwrap().is_none());
}

#[test]
fn a_lost_control_object_shows_as_damage_and_the_copy_still_reads() {
    for lost in [name::open, name::slot] {
        let bench = Bench::new();
        let point = bench.point();
        bench.delete(&lost(&point.key));
        let listed = bench.all();
        assert!(
            matches!(listed[0].status, PointStatus::Damaged(_)),
            "{:?}",
            listed[0].status
        );
        assert_eq!(listed[0].manifest.volume, "disk");
        let mut warnings = Vec::new();
        let catalog = Catalog::list(bench.repository.store.as_ref(), point.key.volume).unwrap();
        assert!(
            catalog
                .newest_complete(&bench.repository, &mut warnings)
                .unwrap()
                .is_none()
        );
        assert_eq!(warnings.len(), 1);
    }
}

#[test]
fn a_purged_point_is_gone_without_a_trace() {
    let bench = Bench::new();
    let point = bench.point();
    for remains in [name::copy, name::open, name::slot] {
        bench.delete(&remains(&point.key));
    }
    let listing = points::list(&bench.repository, None).unwrap();
    assert!(listing.points.is_empty() && listing.unreadable.is_empty());
}

#[test]
fn a_reader_pins_its_points_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let point = bench.point();
    let readers = || {
        list_all(bench.repository.store.as_ref(), name::OPEN)
            .unwrap()
            .len()
    };
    let before = readers();
    let lease = ReaderLease::take(&bench.repository, Kind::Restore, &[&point]).unwrap();
    assert!(lease.is_held());
    assert_eq!(readers(), before + 1);
    drop(lease);
    assert_eq!(readers(), before);
    bench.forget(&point.key);
    let refused = ReaderLease::take(&bench.repository, Kind::Restore, &[&point]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(readers(), before);
}

#[test]
fn a_forget_order_is_given_once_and_says_who_and_why() {
    let bench = Bench::new();
    let point = bench.point();
    assert_eq!(read_tomb(&bench.repository, &point.key).unwrap(), None);
    let first = Tomb::new("named", 7);
    assert!(bury(&bench.repository, &point.key, &first).unwrap());
    assert!(!bury(&bench.repository, &point.key, &Tomb::new("again", 8)).unwrap());
    assert_eq!(
        read_tomb(&bench.repository, &point.key).unwrap(),
        Some(first)
    );
    assert_eq!(bench.all()[0].status, PointStatus::Forgotten);
    // Nobody else's bytes pass for one.
    bench.delete(&name::tomb(&point.key));
    bench.forget(&point.key);
    let error = read_tomb(&bench.repository, &point.key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_forgotten_point_is_read_only_on_purpose() {
    let bench = Bench::new();
    let point = bench.point();
    bury(&bench.repository, &point.key, &Tomb::new("named", 7)).unwrap();
    let point = bench.all().remove(0);
    let refused = ReaderLease::take(&bench.repository, Kind::Restore, &[&point]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let lease = ReaderLease::take_forgotten(&bench.repository, Kind::Restore, &[&point]).unwrap();
    assert!(lease.is_held());
    drop(lease);
    // A collector is ahead: it removes the start record first.
    bench.delete(&name::open(&point.key));
    let refused =
        ReaderLease::take_forgotten(&bench.repository, Kind::Restore, &[&point]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.message().contains("removed"), "{refused}");
}

#[test]
fn a_damaged_point_is_read_until_it_is_forgotten() {
    let bench = Bench::new();
    let whole = bench.point();
    bench.delete(&name::slot(&whole.key));
    let take = || {
        let point = points::load(&bench.repository, &whole.key)
            .unwrap()
            .unwrap();
        let damaged = Point {
            status: PointStatus::Damaged("as listed before".into()),
            ..point
        };
        ReaderLease::take(&bench.repository, Kind::Restore, &[&damaged])
    };
    let lease = take().unwrap();
    assert!(lease.warning().unwrap().contains("liveness"));
    let live = name::live(&whole.key);
    let body = bytes::Bytes::from_static(b"liveness");
    bench.repository.store.put(&live, body).unwrap();
    let lease = take().unwrap();
    assert!(lease.is_held() && lease.warning().is_none());
    bench.forget(&whole.key);
    assert_eq!(take().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_point_whose_manifest_is_lost_is_not_taken_over() {
    let bench = Bench::new();
    let session = bench.begin_at(&[], &dead_origin()).unwrap();
    let manifest = empty(session.key());
    let point = session.commit(manifest).unwrap();
    bench.delete(&name::slot(&point.key));
    assert!(bench.begin().adoption().sessions.is_empty());
    assert!(matches!(bench.all()[0].status, PointStatus::Damaged(_)));
}

/// The role of those who back up has no right to delete: the clock's object and heartbeats stay, and nothing fails.
#[test]
fn a_session_needs_no_right_to_delete() {
    let dir = tempfile::tempdir().unwrap();
    let inner = DirectoryStore::open(&dir.path().join("repo"), true).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(inner)));
    let options = InitOptions {
        cipher: Cipher::None,
        chunk_size: 128 * 1024,
        segment_size: 1 << 20,
        profile: decided(),
        created_unix_secs: 0,
    };
    let repository = access::init(Arc::<FaultyStore>::clone(&store), &options, None).unwrap();
    let bench = Bench {
        _dir: dir,
        repository: Arc::new(repository),
    };
    store.add(Rule::always(
        Operation::Delete,
        "",
        Fault::Fail(ErrorKind::AccessDenied),
    ));
    // Undecided and of another host: only the store's clock tells whether it is silent.
    let elsewhere = Origin {
        boot_id: "elsewhere".to_owned(),
        ..Origin::current()
    };
    let waiting = bench.begin_at(&[], &elsewhere).unwrap();
    let session = bench.begin();
    assert!(session.adoption().sessions.is_empty());
    session.beat().unwrap();
    let manifest = empty(session.key());
    let point = session.commit(manifest).unwrap();
    drop(ReaderLease::take(&bench.repository, Kind::Restore, &[&point]).unwrap());
    assert_eq!(bench.all().len(), 1);
    let beats = list_all(bench.repository.store.as_ref(), name::BEAT).unwrap();
    assert_eq!(
        beats.len(),
        2,
        "the clock's and the session's own: {beats:?}"
    );
    drop(waiting);
}

#[test]
fn nothing_is_taken_over_where_a_slot_has_no_single_winner() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(&dir.path().join("repo"), true).unwrap();
    let options = InitOptions {
        cipher: Cipher::None,
        chunk_size: 128 * 1024,
        segment_size: 1 << 20,
        profile: StoreProfile {
            conditional_writes: false,
            ..StoreProfile::default()
        },
        created_unix_secs: 0,
    };
    let bench = Bench {
        repository: Arc::new(access::init(Arc::new(store), &options, None).unwrap()),
        _dir: dir,
    };
    drop(bench.begin_at(&[], &dead_origin()).unwrap());
    assert!(bench.begin().adoption().sessions.is_empty());
}

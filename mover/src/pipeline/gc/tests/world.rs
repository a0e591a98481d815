//! Small repositories in memory, whose points come from real sessions and reference exactly the chunks that a test names.
//!
//! Owns: making such points, and the judgement whether all is there that they need. Must not: know gc. The bytes of a chunk follow from
//! its place, so every copy of it can be checked. Maps are placeholders: gc never opens them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::{Progress, StopFlag};
use crate::pipeline::restore::sample::Random;
use crate::repository::access::{InitOptions, Repository, init};
use crate::repository::format::manifest::{Manifest, PointState, PointStats};
use crate::repository::format::{
    Cipher, Class, Codec, ContainerBuilder, Decoder, Directory, parse_object,
};
use crate::repository::ids::{SegmentId, SessionId, SessionKey, name};
use crate::repository::map::liveness::open_unmatched;
use crate::repository::map::{Liveness, Location, MapRoot};
use crate::repository::segments::SegmentReader;
use crate::repository::session::adopt::Takeover;
use crate::repository::session::origin::Origin;
use crate::repository::session::points::{Catalog, Point};
use crate::repository::session::records::MAX_ABORT_LEN;
use crate::repository::session::writer::{Begin, WriterSession};
use crate::repository::store::memory::MemoryStore;
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::{Store, list_all};

const CHUNK_SIZE: u32 = 64 << 10;
/// Bytes of a body: enough that segments differ in size by what is in them.
const BODY: usize = 512;

/// A repository in memory.
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) repository: Arc<Repository>,
}

impl World {
    /// A new one, whose listings have so small pages.
    pub(crate) fn new(page: usize) -> Self {
        Self::with_profile(page, |_| {})
    }

    /// As [`World::new`], on a store with other abilities.
    pub(crate) fn with_profile(page: usize, change: impl FnOnce(&mut StoreProfile)) -> Self {
        let store = Arc::new(MemoryStore::new(page));
        let mut profile = StoreProfile {
            conditional_writes: true,
            ..StoreProfile::default()
        };
        change(&mut profile);
        let options = InitOptions {
            cipher: Cipher::None,
            chunk_size: CHUNK_SIZE,
            segment_size: 1 << 20,
            profile,
            created_unix_secs: 0,
        };
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let repository = Arc::new(init(shared, &options, None).unwrap());
        Self { store, repository }
    }

    /// The repository behind another store.
    pub(crate) fn repository_over(&self, store: Arc<dyn Store>) -> Arc<Repository> {
        Arc::new(Repository {
            store,
            config: self.repository.config.clone(),
            keys: Arc::clone(&self.repository.keys),
        })
    }

    /// What gc runs with.
    pub(crate) fn context(&self) -> Context {
        context(&self.repository)
    }

    /// Commits a point of `own` new segments with so many chunks each, which also needs `inherited` chunks of `parent`.
    pub(crate) fn point(
        &self,
        own: &[u16],
        parent: Option<&Point>,
        inherited: &[Location],
    ) -> Point {
        let session = begin(&self.repository, parent, &elsewhere(0), Duration::MAX).unwrap();
        let mut chunks = inherited.to_vec();
        chunks.extend(put_segments(&self.repository, session.key().session, own).unwrap());
        commit(&self.repository, session, parent, &chunks).unwrap()
    }

    pub(crate) fn forget(&self, point: &Point) {
        let tomb = name::tomb(&point.key);
        self.store.create(&tomb, forget_order()).unwrap();
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.store.peek(name).is_some()
    }

    /// Names that stand for nothing but points: control objects of a session, in a row.
    pub(crate) fn controls(key: &SessionKey) -> [String; 5] {
        [
            name::copy(key),
            name::open(key),
            name::slot(key),
            name::live(key),
            name::tomb(key),
        ]
    }

    /// All names but those of the repository itself.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut names = self.store.names();
        names.retain(|name| name.contains('/') && !name.starts_with(name::KEYS));
        names
    }

    /// The points that anybody could see as valid now.
    pub(crate) fn valid(&self) -> Vec<SessionKey> {
        let names = self.store.names();
        let slots = names
            .iter()
            .filter_map(|name| name.strip_prefix(name::SNAP));
        slots
            .filter_map(SessionKey::parse)
            .filter(|key| self.is_point(key) && !self.has(&name::tomb(key)))
            .collect()
    }

    /// Start record and manifest are there.
    pub(crate) fn is_point(&self, key: &SessionKey) -> bool {
        let slot = self.store.peek(&name::slot(key));
        slot.is_some_and(|slot| slot.len() as u64 > MAX_ABORT_LEN) && self.has(&name::open(key))
    }

    pub(crate) fn liveness(&self, key: &SessionKey) -> Result<Liveness, String> {
        let object = self
            .store
            .peek(&name::live(key))
            .ok_or_else(|| format!("{} is gone", name::live(key)))?;
        open_unmatched(&self.repository.keys, key, object).map_err(|error| error.to_string())
    }
}

pub(crate) fn context(repository: &Arc<Repository>) -> Context {
    Context {
        repository: Arc::clone(repository),
        progress: Arc::new(Progress::default()),
        stop: StopFlag::default(),
        jobs: 2,
        memory: crate::pipeline::budget::DEFAULT_MEMORY_BYTES,
    }
}

/// A process of another machine: nobody here can tell whether it lives.
pub(crate) fn elsewhere(machine: usize) -> Origin {
    Origin {
        host: format!("machine-{machine}"),
        boot_id: format!("boot-{machine}"),
        ..Origin::default()
    }
}

pub(crate) fn forget_order() -> Bytes {
    Bytes::from(format!(
        "forgotten by a test {}",
        SessionId(crate::repository::ids::random())
    ))
}

/// Begins a session that pins `parent`; sessions that were silent for `takeover` are taken over.
pub(crate) fn begin(
    repository: &Arc<Repository>,
    parent: Option<&Point>,
    here: &Origin,
    takeover: Duration,
) -> Result<WriterSession> {
    let volume = repository.keys.volume_id("disk");
    let catalog = Catalog::list(&*repository.store, volume)?;
    let pins: Vec<SessionKey> = parent.iter().map(|parent| parent.key).collect();
    let begin = Begin {
        volume: "disk",
        pins: &pins,
        sequence: catalog.next_sequence().unwrap(),
        takeover: Takeover {
            after: takeover,
            here: here.clone(),
            given_up: None,
        },
    };
    WriterSession::begin(repository, &begin, &catalog)
}

/// The bytes of a chunk.
fn body(id: SegmentId, ordinal: u16) -> Vec<u8> {
    let mut seed = id.session.0.to_vec();
    seed.extend(id.number.to_le_bytes());
    seed.extend(ordinal.to_le_bytes());
    let mut bytes = vec![0; BODY];
    blake3::Hasher::new()
        .update(&seed)
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Stores segments with so many chunks each.
pub(crate) fn put_segments(
    repository: &Repository,
    session: SessionId,
    counts: &[u16],
) -> Result<Vec<Location>> {
    let mut chunks = Vec::new();
    for (number, count) in (0..).zip(counts) {
        let segment = SegmentId { session, number };
        let keys = Arc::clone(&repository.keys);
        let most = usize::from(*count).max(64);
        let mut builder = ContainerBuilder::new(keys, Class::Data, segment, most * 1024, most);
        for ordinal in 0..*count {
            let raw = body(segment, ordinal);
            let digest = repository.keys.digest(&raw);
            let len = u32::try_from(raw.len()).unwrap();
            builder.append(u64::from(ordinal), len, digest, Codec::Raw, &raw)?;
            chunks.push(Location { segment, ordinal });
        }
        let object = name::segment(segment, 0);
        let bytes = builder.finish(&object)?;
        repository.store.put(&object, bytes)?;
    }
    Ok(chunks)
}

/// Every chunk of the segments that a session stored.
pub(crate) fn stored_chunks(repository: &Repository, session: SessionId) -> Result<Vec<Location>> {
    let mut chunks = Vec::new();
    for info in list_all(&*repository.store, &name::segments_of(session))? {
        let (segment, _) = name::parse_segment(&info.name).unwrap();
        let object = repository.store.get(&info.name)?;
        let directory = parse_object(&repository.keys, Class::Data, segment, &info.name, &object)?;
        let entries = directory.entries().iter();
        chunks.extend(entries.map(|entry| Location {
            segment,
            ordinal: entry.ordinal,
        }));
    }
    Ok(chunks)
}

/// Stores map and liveness, and commits.
pub(crate) fn commit(
    repository: &Arc<Repository>,
    session: WriterSession,
    parent: Option<&Point>,
    chunks: &[Location],
) -> Result<Point> {
    let key = session.key();
    let segment = SegmentId {
        session: key.session,
        number: 0,
    };
    let page = Location {
        segment,
        ordinal: 0,
    };
    repository
        .store
        .put(&name::map_segment(segment), Bytes::from_static(b"a page"))?;
    let liveness = Liveness::of(chunks, &[page]);
    let (object, reference) = liveness.seal(&repository.keys, &key)?;
    repository.store.put(&name::live(&key), object)?;
    session.commit(Manifest {
        session: key,
        volume: "disk".into(),
        parent: parent.map(|parent| parent.key),
        size: 0,
        chunk_size: CHUNK_SIZE,
        root: MapRoot::zero(0),
        liveness: reference,
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
    })
}

/// Some of these, at least one where there is any.
pub(crate) fn some(random: &mut Random, chunks: &[Location]) -> Vec<Location> {
    let mut chosen: Vec<Location> = chunks
        .iter()
        .copied()
        .filter(|_| random.below(2) == 0)
        .collect();
    if chosen.is_empty() {
        chosen.extend(chunks.first());
    }
    chosen
}

pub(crate) fn chunks_of(liveness: &Liveness) -> Vec<Location> {
    let sets = liveness.segments();
    sets.flat_map(|(segment, set)| {
        set.iter()
            .map(move |ordinal| Location { segment, ordinal })
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Reads everything that a point needs, as a restore does.
pub(crate) fn read_all(repository: &Arc<Repository>, key: &SessionKey) -> Result<()> {
    let object = repository.store.get(&name::live(key))?;
    let liveness = open_unmatched(&repository.keys, key, object)?;
    let segments = SegmentReader::new(repository);
    for chunk in chunks_of(&liveness) {
        segments.retrying(Class::Data, chunk.segment, |directory| {
            let wrong = |text: String| Error::new(ErrorKind::Corrupt, text);
            let entry = directory
                .entry(chunk.ordinal)
                .ok_or_else(|| wrong(format!("{} lacks {}", directory.object(), chunk.ordinal)))?;
            let range = entry.offset..entry.offset + u64::from(entry.stored_len);
            let stored = segments.read(directory, range)?;
            check_body(repository, directory, chunk.ordinal, &stored).map_err(wrong)
        })?;
    }
    Ok(())
}

/// Decodes a chunk and compares it with what must be there.
pub(crate) fn check_body(
    repository: &Repository,
    directory: &Directory,
    ordinal: u16,
    stored: &[u8],
) -> Result<(), String> {
    let object = directory.object();
    let entry = directory
        .entry(ordinal)
        .ok_or_else(|| format!("{object} lacks chunk {ordinal}"))?;
    let mut raw = vec![0; entry.raw_len as usize];
    Decoder::new()
        .decode(&repository.keys, directory, entry, stored, &mut raw)
        .map_err(|error| format!("{object}, chunk {ordinal}: {error}"))?;
    if raw == body(directory.id(), ordinal) {
        Ok(())
    } else {
        Err(format!("{object}, chunk {ordinal} holds other bytes"))
    }
}

/// Knows segments that it has opened before: objects never change.
#[derive(Default)]
pub(crate) struct Judge {
    /// Names may be used again, so the object is kept to be compared.
    intact: HashMap<String, (Bytes, HashSet<u16>)>,
    needs: HashMap<SessionKey, Vec<Location>>,
}

impl Judge {
    /// Whether everything that a point needs is there, in every generation there is.
    pub(crate) fn check(&mut self, world: &World, key: &SessionKey) -> Result<(), String> {
        if !world.has(&name::live(key)) {
            return Err(format!("the liveness of {} is gone", key.point()));
        }
        if !self.needs.contains_key(key) {
            let liveness = world.liveness(key)?;
            self.needs.insert(*key, chunks_of(&liveness));
        }
        let names = world.store.names();
        for chunk in self.needs[key].clone() {
            let first = name::segment(chunk.segment, 0);
            let stem = first.strip_suffix("g00").unwrap();
            let from = names.partition_point(|name| name.as_str() < stem);
            let mut found = false;
            for object in names[from..]
                .iter()
                .take_while(|name| name.starts_with(stem))
            {
                found = true;
                if !self
                    .intact(world, chunk.segment, object)?
                    .contains(&chunk.ordinal)
                {
                    return Err(format!(
                        "{object} lacks chunk {} of {}",
                        chunk.ordinal,
                        key.point()
                    ));
                }
            }
            if !found {
                return Err(format!("{stem}* is gone, needed by {}", key.point()));
            }
        }
        Ok(())
    }

    fn intact(
        &mut self,
        world: &World,
        id: SegmentId,
        object: &str,
    ) -> Result<&HashSet<u16>, String> {
        let bytes = world.store.peek(object).unwrap();
        let known = self.intact.get(object);
        if known.is_none_or(|(known, _)| known.as_ptr() != bytes.as_ptr()) {
            let directory = parse_object(&world.repository.keys, Class::Data, id, object, &bytes)
                .map_err(|error| error.to_string())?;
            let mut ordinals = HashSet::new();
            for entry in directory.entries() {
                let at = usize::try_from(entry.offset).unwrap();
                let stored = &bytes[at..at + entry.stored_len as usize];
                check_body(&world.repository, &directory, entry.ordinal, stored)?;
                ordinals.insert(entry.ordinal);
            }
            self.intact.insert(object.to_owned(), (bytes, ordinals));
        }
        Ok(&self.intact[object].1)
    }
}

/// Whether an error is what a crash of the simulated process brings.
pub(crate) fn is_crash(error: &Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

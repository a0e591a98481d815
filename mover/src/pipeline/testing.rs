//! Small repositories made by hand, for tests of the readers.
//!
//! Owns: a repository in a temporary directory and points put into it object by object, so that a test decides where each chunk
//! lies. Must not: use the backup pipeline: a reader's test must not pass because both err alike.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::Context;
use super::progress::{Progress, StopFlag};
use super::restore::sample::Random;
use crate::repository::access::{InitOptions, Repository, init};
use crate::repository::format::{
    Cipher, Class, Compression, ContainerBuilder, Encoder, Manifest, PointState, PointStats, Secret,
};
use crate::repository::ids::{Digest, SegmentId, Sequence, SessionId, SessionKey, name, random};
use crate::repository::map::{Entry, FANOUT, Leaf, LivenessBuilder, Location, MapRoot, MapWriter};
use crate::repository::session::origin::Origin;
use crate::repository::session::records::{Kind, Open, seal};
use crate::repository::store::Store;
use crate::repository::store::directory::DirectoryStore;
use crate::repository::store::profile::StoreProfile;

/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes of bodies in a segment.
pub(crate) const SEGMENT: usize = 1 << 20;

/// A repository with its directory.
pub(crate) struct Bed {
    pub(crate) directory: TempDir,
    pub(crate) repository: Arc<Repository>,
    sequence: Cell<u32>,
}

/// How the chunks of a point are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Segments that are filled in turn, chunk by chunk.
    pub(crate) spread: usize,
    pub(crate) compression: Compression,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            spread: 1,
            compression: Compression::Lz4,
        }
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = DirectoryStore::open(&directory.path().join("repository"), true).unwrap();
        let options = InitOptions {
            cipher: Cipher::Aes256Gcm,
            chunk_size: u32::try_from(CHUNK).unwrap(),
            segment_size: u32::try_from(SEGMENT).unwrap(),
            profile: StoreProfile {
                conditional_writes: true,
                ..StoreProfile::default()
            },
            created_unix_secs: 0,
        };
        let secret = Secret::KeyFile(Zeroizing::new((0..64).collect()));
        let repository = Arc::new(init(Arc::new(store), &options, Some(&secret)).unwrap());
        Self {
            directory,
            repository,
            sequence: Cell::new(0),
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            memory: crate::pipeline::budget::DEFAULT_MEMORY_BYTES,
            repository: Arc::clone(&self.repository),
            progress: Arc::new(Progress::default()),
            stop: StopFlag::default(),
            jobs: 2,
        }
    }

    /// The same repository behind another store.
    pub(crate) fn context_over(&self, store: Arc<dyn Store>) -> Context {
        let Repository { config, keys, .. } = &*self.repository;
        let repository = Repository {
            store,
            config: config.clone(),
            keys: Arc::clone(keys),
        };
        Context {
            repository: Arc::new(repository),
            ..self.context()
        }
    }

    /// A path beside the repository.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.path("repository").join(name)
    }

    /// Names of all objects under a prefix, ascending.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<String> {
        let listed = crate::repository::store::list_all(&*self.repository.store, prefix).unwrap();
        listed.into_iter().map(|info| info.name).collect()
    }

    /// Stores a point of `image`.
    pub(crate) fn point(&self, volume: &str, image: &[u8], layout: Layout) -> SessionKey {
        let keys = &self.repository.keys;
        let sequence = Sequence(self.sequence.replace(self.sequence.get() + 1));
        let key = SessionKey {
            volume: keys.volume_id(volume),
            sequence,
            session: SessionId(random()),
        };
        let mut writer = PointWriter::new(&self.repository, key, layout);
        let mut leaves: BTreeMap<u64, Leaf> = BTreeMap::new();
        for (chunk, raw) in image.chunks(CHUNK).enumerate() {
            if raw.iter().all(|byte| *byte == 0) {
                continue;
            }
            let (digest, location) = writer.chunk(chunk as u64, raw);
            let leaf = leaves
                .entry((chunk / FANOUT) as u64)
                .or_insert_with(Leaf::zero);
            leaf.set(chunk % FANOUT, Entry::Data { digest, location });
        }
        writer.close();
        let chunks = image.len().div_ceil(CHUNK) as u64;
        self.commit(volume, key, image.len() as u64, (chunks, &leaves));
        key
    }

    /// The root of a map of `chunks` chunks of which these are not zero; nothing is stored.
    pub(crate) fn root_of(&self, digests: &[(u64, Digest)], chunks: u64) -> MapRoot {
        let session = SessionId(random());
        let mut leaves: BTreeMap<u64, Leaf> = BTreeMap::new();
        for (chunk, digest) in digests {
            let leaf = leaves
                .entry(chunk / FANOUT as u64)
                .or_insert_with(Leaf::zero);
            let segment = SegmentId { session, number: 0 };
            let location = Location {
                segment,
                ordinal: 0,
            };
            let place = usize::try_from(chunk % FANOUT as u64).unwrap();
            leaf.set(
                place,
                Entry::Data {
                    digest: *digest,
                    location,
                },
            );
        }
        let keys = Arc::clone(&self.repository.keys);
        let mut map = MapWriter::new(keys, session, SEGMENT, Box::new(|_, _| Ok(())));
        for (index, leaf) in &leaves {
            map.push(*index, leaf).unwrap();
        }
        map.finish(chunks).unwrap().root
    }

    fn commit(
        &self,
        volume: &str,
        key: SessionKey,
        size: u64,
        (chunks, leaves): (u64, &BTreeMap<u64, Leaf>),
    ) {
        let Repository { store, keys, .. } = &*self.repository;
        let written: Arc<Mutex<Vec<(SegmentId, Bytes)>>> = Arc::default();
        let sink = Arc::clone(&written);
        let mut map = MapWriter::new(
            Arc::clone(keys),
            key.session,
            SEGMENT,
            Box::new(move |id, bytes| {
                sink.lock().unwrap().push((id, bytes));
                Ok(())
            }),
        );
        let mut liveness = LivenessBuilder::fresh();
        for (index, leaf) in leaves {
            map.push(*index, leaf).unwrap();
            liveness.replace_leaf(None, Some(leaf));
        }
        let map = map.finish(chunks).unwrap();
        for (id, bytes) in written.lock().unwrap().drain(..) {
            store.put(&name::map_segment(id), bytes).unwrap();
        }
        liveness.set_pages(map.pages);
        let (live, liveness) = liveness.finish().seal(keys, &key).unwrap();
        store.put(&name::live(&key), live).unwrap();
        let manifest = Manifest {
            session: key,
            volume: volume.to_owned(),
            parent: None,
            size,
            chunk_size: u32::try_from(CHUNK).unwrap(),
            root: map.root,
            liveness,
            exact_liveness_age: 0,
            tags: BTreeMap::new(),
            group: None,
            state: PointState::Crash,
            content_hash: map
                .root
                .content_hash(keys, size, u32::try_from(CHUNK).unwrap()),
            created_unix_millis: 0,
            tool: "test".to_owned(),
            stats: PointStats::default(),
            changed_blocks: "scan".to_owned(),
            changed_blocks_reason: "test".to_owned(),
            identity: Vec::new(),
            pins: Vec::new(),
            features_read: 0,
        };
        let open = Open {
            kind: Kind::Backup,
            pins: Vec::new(),
            adopts: Vec::new(),
            volume: volume.to_owned(),
            origin: Origin::current(),
        };
        let open_name = name::open(&key);
        let open = seal(
            &self.repository,
            Class::Open,
            key.session,
            &open_name,
            &open,
        )
        .unwrap();
        store.put(&open_name, open).unwrap();
        let object = manifest.seal(keys).unwrap();
        store.put(&name::slot(&key), object.clone()).unwrap();
        store.put(&name::copy(&key), object).unwrap();
    }
}

struct PointWriter<'a> {
    repository: &'a Repository,
    key: SessionKey,
    layout: Layout,
    open: Vec<Option<(SegmentId, ContainerBuilder)>>,
    next: u32,
    encoder: Encoder,
    seen: HashMap<Digest, Location>,
}

impl<'a> PointWriter<'a> {
    fn new(repository: &'a Repository, key: SessionKey, layout: Layout) -> Self {
        let open = (0..layout.spread).map(|_| None).collect();
        let encoder = Encoder::new(layout.compression).unwrap();
        Self {
            repository,
            key,
            layout,
            open,
            next: 0,
            encoder,
            seen: HashMap::new(),
        }
    }

    fn chunk(&mut self, chunk: u64, raw: &[u8]) -> (Digest, Location) {
        let digest = self.repository.keys.digest(raw);
        if let Some(location) = self.seen.get(&digest) {
            return (digest, *location);
        }
        let lane = usize::try_from(chunk).unwrap() % self.layout.spread;
        let (codec, stored) = self.encoder.encode(raw);
        if self.open[lane]
            .as_ref()
            .is_some_and(|(_, builder)| !builder.fits(stored.len()))
        {
            put(self.repository, self.open[lane].take());
        }
        let (id, builder) = self.open[lane].get_or_insert_with(|| {
            let id = SegmentId {
                session: self.key.session,
                number: self.next,
            };
            self.next += 1;
            let keys = Arc::clone(&self.repository.keys);
            (
                id,
                ContainerBuilder::new(keys, Class::Data, id, SEGMENT, 4096),
            )
        });
        let raw_len = u32::try_from(raw.len()).unwrap();
        let ordinal = builder
            .append(chunk, raw_len, digest, codec, stored)
            .unwrap();
        let location = Location {
            segment: *id,
            ordinal,
        };
        self.seen.insert(digest, location);
        (digest, location)
    }

    fn close(&mut self) {
        for lane in &mut self.open {
            put(self.repository, lane.take());
        }
    }
}

fn put(repository: &Repository, segment: Option<(SegmentId, ContainerBuilder)>) {
    let Some((id, builder)) = segment else { return };
    let name = name::segment(id, 0);
    repository
        .store
        .put(&name, builder.finish(&name).unwrap())
        .unwrap();
}

/// An image of `chunks` chunks and `tail` bytes: random, compressible, repeated and zero chunks, as `seed` has it.
pub(crate) fn image(chunks: usize, tail: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut image = Vec::with_capacity(chunks * CHUNK + tail);
    for chunk in 0..=chunks {
        let len = if chunk == chunks { tail } else { CHUNK };
        let kind = random.below(8);
        let value = u8::try_from(random.below(255) + 1).unwrap();
        match kind {
            0 | 1 => image.resize(image.len() + len, 0),
            2 => image.resize(image.len() + len, 0xee),
            3 => image.resize(image.len() + len, value),
            4 | 5 => image.extend((0..len).map(|at| {
                if at % 64 < 32 {
                    value
                } else {
                    u8::try_from(random.below(256)).unwrap()
                }
            })),
            _ => image.extend((0..len).map(|_| u8::try_from(random.below(256)).unwrap())),
        }
    }
    image
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).unwrap();
}

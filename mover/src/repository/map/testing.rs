//! Doubles and a naive model for the tests of the map.
//!
//! Owns: a repository on a store, and a map as a plain list of chunks. Must not: share code with what it checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::page::Page;
use super::pages::{PageReader, PageRequest};
use super::{
    Entry, FANOUT, Leaf, Location, MapCursor, MapRoot, MapWriter, PagePointer, WrittenMap,
};
use crate::repository::access::Repository;
use crate::repository::format::{Cipher, Config, Keys, MasterKey};
use crate::repository::ids::{Digest, RepositoryId, SegmentId, SessionId, name};
use crate::repository::segments::SegmentReader;
use crate::repository::store::Store;
pub(crate) use crate::repository::store::memory::MemoryStore;
use crate::repository::store::profile::StoreProfile;

/// A repository on a store, with known keys.
pub(crate) fn repository_on(store: Arc<dyn Store>) -> Arc<Repository> {
    let id = RepositoryId([1; 16]);
    let config = Config {
        repository: id,
        cipher: Cipher::Aes256Gcm,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        read_features: 0,
        write_features: 0,
        other_features: 0,
        profile: StoreProfile::default(),
        created_unix_secs: 0,
        public_salt: None,
    };
    let keys = Keys::new(id, Cipher::Aes256Gcm, &MasterKey::from_bytes([2; 32]));
    Arc::new(Repository {
        store,
        config,
        keys: Arc::new(keys),
    })
}

pub(crate) fn repository() -> (Arc<Repository>, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::default());
    let repository = repository_on(Arc::<MemoryStore>::clone(&store));
    (repository, store)
}

pub(crate) fn session(number: u64) -> SessionId {
    let mut id = [0x5e; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    SessionId(id)
}

/// Data that is different for every seed, stored where the seed says.
pub(crate) fn data(seed: u64) -> Entry {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&seed.to_le_bytes()).as_bytes()[..16]);
    let segment = SegmentId {
        session: session(seed % 7),
        number: u32::try_from(seed % 5).unwrap(),
    };
    let ordinal = u16::try_from(seed % 4096).unwrap();
    Entry::Data {
        digest: Digest(digest),
        location: Location { segment, ordinal },
    }
}

/// A map as a plain list: every chunk that is not zero.
pub(crate) type Model = BTreeMap<u64, Entry>;

pub(crate) fn leaf_of(model: &Model, index: u64) -> Leaf {
    let mut leaf = Leaf::zero();
    let first = index * FANOUT as u64;
    for (chunk, entry) in model.range(first..first + FANOUT as u64) {
        leaf.set(usize::try_from(chunk - first).unwrap(), *entry);
    }
    leaf
}

pub(crate) fn leaves_of(model: &Model) -> BTreeSet<u64> {
    model.keys().map(|chunk| chunk / FANOUT as u64).collect()
}

/// A writer that puts its segments into the repository.
pub(crate) fn writer(repository: &Arc<Repository>, number: u64, segment_size: usize) -> MapWriter {
    let store = Arc::clone(&repository.store);
    let emit = move |id, object| store.put(&name::map_segment(id), object);
    MapWriter::new(
        Arc::clone(&repository.keys),
        session(number),
        segment_size,
        Box::new(emit),
    )
}

/// Writes a model the way a backup does: leaf by leaf against the parent.
pub(crate) fn write(
    repository: &Arc<Repository>,
    number: u64,
    parent: Option<&MapRoot>,
    model: &Model,
    chunks: u64,
) -> WrittenMap {
    let mut writer = writer(repository, number, 1 << 20);
    let mut cursor = parent.map(|root| MapCursor::new(repository, root));
    let mut next = 0;
    let leaves = leaves_of(model);
    loop {
        let old = cursor
            .as_mut()
            .and_then(|cursor| cursor.next(next).unwrap())
            .map(|(index, _)| index);
        let new = leaves.range(next..).next().copied();
        let Some(index) = old.into_iter().chain(new).min() else {
            break;
        };
        let leaf = leaf_of(model, index);
        match cursor
            .as_mut()
            .and_then(|cursor| cursor.leaf(index).unwrap())
        {
            Some(old) if *old.leaf == leaf => writer.keep(index, &old).unwrap(),
            _ => writer.push(index, &leaf).unwrap(),
        }
        next = index + 1;
    }
    writer.finish(chunks).unwrap()
}

/// Everything a map says, read through a cursor.
pub(crate) fn read(repository: &Arc<Repository>, root: &MapRoot) -> Model {
    let mut cursor = MapCursor::new(repository, root);
    let mut model = Model::new();
    let mut next = 0;
    while let Some((index, leaf)) = cursor.next(next).unwrap() {
        assert!(index >= next && !leaf.leaf.is_zero());
        for place in 0..FANOUT {
            if let entry @ Entry::Data { .. } = leaf.leaf.get(place) {
                model.insert(index * FANOUT as u64 + place as u64, entry);
            }
        }
        next = index + 1;
    }
    model
}

/// Every page that is reached from a root, by plain recursion.
pub(crate) fn reached(repository: &Arc<Repository>, root: &MapRoot) -> BTreeSet<Location> {
    fn visit(
        pages: &PageReader,
        level: u8,
        index: u64,
        pointer: PagePointer,
        found: &mut BTreeSet<Location>,
    ) {
        found.insert(pointer.location);
        if let Page::Node(node) = pages
            .load_one(PageRequest {
                pointer,
                level,
                index,
            })
            .unwrap()
        {
            for (place, pointer) in node.slots.iter() {
                visit(
                    pages,
                    level - 1,
                    index * FANOUT as u64 + place as u64,
                    pointer,
                    found,
                );
            }
        }
    }
    let pages = PageReader::new(Arc::new(SegmentReader::new(repository)));
    let mut found = BTreeSet::new();
    if let Some(pointer) = root.pointer {
        visit(&pages, root.depth - 1, 0, pointer, &mut found);
    }
    found
}

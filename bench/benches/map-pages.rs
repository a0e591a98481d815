//! Map pages: writing a map (encode, compress, seal, pack) and reading it back (open, decompress, decode), in memory.
#![allow(
    missing_docs,
    reason = "criterion's macros make public items without documentation"
)]

#[path = "map-pages/memory_store.rs"]
mod memory_store;

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memory_store::MemoryStore;
use mover::repository::access::{InitOptions, Repository, init};
use mover::repository::format::crypto::Cipher;
use mover::repository::ids::{Digest, SegmentId, SessionId, name};
use mover::repository::map::{Entry, FANOUT, Leaf, Location, MapCursor, MapRoot, MapWriter};
use mover::repository::store::Store;
use mover::repository::store::profile::StoreProfile;

/// Leaves of the map: 8 GiB of volume, the size of the reference image.
const LEAVES: u64 = 256;
/// Chunks of the map.
const CHUNKS: u64 = LEAVES * FANOUT as u64;
/// Bytes a map segment may hold.
const SEGMENT: usize = 32 << 20;

fn repository(store: &Arc<MemoryStore>) -> Arc<Repository> {
    let options = InitOptions {
        cipher: Cipher::None,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile: StoreProfile {
            conditional_writes: true,
            ..StoreProfile::default()
        },
        created_unix_secs: 0,
    };
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    Arc::new(init(store, &options, None).expect("an empty store takes a repository"))
}

/// A leaf whose chunks are all new: digests are noise, places ascend.
fn leaf(index: u64) -> Leaf {
    let mut noise = blake3::Hasher::new()
        .update(&index.to_le_bytes())
        .finalize_xof();
    let mut leaf = Leaf::zero();
    for place in 0..FANOUT {
        let mut digest = [0; 16];
        noise.fill(&mut digest);
        let chunk =
            u32::try_from(index).expect("few leaves") * 256 + u32::try_from(place).expect("few");
        let segment = SegmentId {
            session: SessionId([7; 16]),
            number: chunk / 500,
        };
        let ordinal = u16::try_from(chunk % 500).expect("below 500");
        let location = Location { segment, ordinal };
        leaf.set(
            place,
            Entry::Data {
                digest: Digest(digest),
                location,
            },
        );
    }
    leaf
}

/// Writes the map into `store`.
fn write(store: &Arc<MemoryStore>, repository: &Repository, leaves: &[Leaf]) -> MapRoot {
    let target = Arc::clone(store);
    let emit = Box::new(move |id, bytes| target.put(&name::map_segment(id), bytes));
    let mut writer = MapWriter::new(
        Arc::clone(&repository.keys),
        SessionId([8; 16]),
        SEGMENT,
        emit,
    );
    for (index, leaf) in (0..).zip(leaves) {
        writer.push(index, leaf).expect("leaves ascend");
    }
    writer
        .finish(CHUNKS)
        .expect("a store in memory takes everything")
        .root
}

fn pages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(CHUNKS));
    let store = Arc::new(MemoryStore::default());
    let repository = repository(&store);
    let leaves: Vec<Leaf> = (0..LEAVES).map(leaf).collect();
    group.bench_function("write", |bencher| {
        bencher.iter(|| write(&store, &repository, &leaves));
    });
    let root = write(&store, &repository, &leaves);
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut cursor = MapCursor::new(&repository, &root);
            let mut from = 0;
            let mut data = 0;
            while let Some((index, found)) = cursor.next(from).expect("what was written") {
                data += found.leaf.data_len();
                from = index + 1;
            }
            assert_eq!(data as u64, CHUNKS);
        });
    });
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);

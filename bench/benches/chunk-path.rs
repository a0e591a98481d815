//! One chunk on one core: zero test, keyed BLAKE3, LZ4 and zstd both ways, seal and open.
#![allow(
    missing_docs,
    reason = "criterion's macros make public items without documentation"
)]

use std::sync::Arc;

use bench::ceiling::CHUNK_BYTES;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mover::device::is_zero;
use mover::repository::format::builder::ContainerBuilder;
use mover::repository::format::class::Class;
use mover::repository::format::codec::{Codec, Compression, Encoder};
use mover::repository::format::crypto::{Cipher, Keys, MasterKey};
use mover::repository::format::decoder::Decoder;
use mover::repository::format::head::{Head, parse_head};
use mover::repository::ids::{RepositoryId, SegmentId, SessionId, name};

/// Chunks in the segment that is sealed and opened: 8 MiB, more than the caches next to a core hold.
const CHUNKS: u16 = 64;

/// Text-like bytes that LZ4 shrinks to about half: words from a small, fixed vocabulary between noise.
fn compressible() -> Vec<u8> {
    let mut noise = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    for (place, word) in noise.chunks_exact_mut(16).zip(0_u32..) {
        let choice = word.wrapping_mul(2_654_435_761) >> 27;
        place[..10].copy_from_slice(&[&choice.to_le_bytes()[..], b"volume"].concat());
    }
    noise
}

fn incompressible() -> Vec<u8> {
    let mut noise = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(
        RepositoryId([1; 16]),
        Cipher::Aes256Gcm,
        &MasterKey::from_bytes([2; 32]),
    ))
}

fn primitives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    let (zeros, text, noise, keys) = (
        vec![0; CHUNK_BYTES],
        compressible(),
        incompressible(),
        keys(),
    );
    group.bench_function("zero test", |bencher| {
        bencher.iter(|| is_zero(&zeros));
    });
    group.bench_function("digest", |bencher| bencher.iter(|| keys.digest(&noise)));
    for compression in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(3)] {
        let mut encoder = Encoder::new(compression).expect("levels that zstd has");
        group.bench_function(format!("{compression} compressible"), |bencher| {
            bencher.iter(|| encoder.encode(&text).1.len());
        });
        group.bench_function(format!("{compression} incompressible"), |bencher| {
            bencher.iter(|| encoder.encode(&noise).1.len());
        });
    }
    group.finish();
}

fn segments(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Bytes(u64::from(CHUNKS) * CHUNK_BYTES as u64));
    let (keys, noise) = (keys(), incompressible());
    let digest = keys.digest(&noise);
    let id = SegmentId {
        session: SessionId([3; 16]),
        number: 0,
    };
    let name = name::segment(id, 0);
    let raw_len = u32::try_from(CHUNK_BYTES).expect("128 KiB fits");
    let empty = || {
        let capacity = usize::from(CHUNKS) * CHUNK_BYTES;
        ContainerBuilder::new(Arc::clone(&keys), Class::Data, id, capacity, CHUNKS.into())
    };
    let fill = |mut builder: ContainerBuilder| {
        for number in 0..CHUNKS {
            builder
                .append(number.into(), raw_len, digest, Codec::Raw, &noise)
                .expect("it fits");
        }
        builder.finish(&name).expect("a directory that encodes")
    };
    group.bench_function("seal", |bencher| {
        bencher.iter_batched(empty, fill, BatchSize::LargeInput);
    });

    let object = fill(empty());
    let Ok(Head::Ready(directory)) = parse_head(&keys, Class::Data, id, &name, &object) else {
        unreachable!("the whole object was given");
    };
    let (mut decoder, mut out) = (Decoder::new(), vec![0; CHUNK_BYTES]);
    group.bench_function("open", |bencher| {
        bencher.iter(|| {
            for entry in directory.entries() {
                let start = usize::try_from(entry.offset).expect("8 MiB fit");
                let stored = &object[start..start + entry.stored_len as usize];
                decoder
                    .decode(&keys, &directory, entry, stored, &mut out)
                    .expect("what was sealed");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, primitives, segments);
criterion_main!(benches);

//! Extent algebra on a volume that is written all over.
#![allow(
    missing_docs,
    reason = "criterion's macros make public items without documentation"
)]

use changed_blocks::{ByteLen, ByteOffset, Extent, ExtentSet};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Extents of one set.
const EXTENTS: u64 = 100_000;
/// Bytes between the beginnings of two extents.
const STRIDE: u64 = 1 << 20;

/// 64 KiB in every MiB, `shift` bytes later.
fn set(shift: u64) -> ExtentSet {
    ExtentSet::normalise((0..EXTENTS).map(|number| Extent::data(number * STRIDE + shift, 65_536)))
}

fn algebra(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("extents");
    group.throughput(Throughput::Elements(EXTENTS));
    let (a, b) = (set(0), set(32_768));
    let size = ByteLen(EXTENTS * STRIDE);
    let shuffled: Vec<Extent> = (0..EXTENTS)
        .map(|number| Extent::data(number * 7_919 % EXTENTS * STRIDE, 65_536))
        .collect();
    group.bench_function("normalise", |bencher| {
        bencher.iter(|| ExtentSet::normalise(shuffled.iter().copied()));
    });
    group.bench_function("union", |bencher| bencher.iter(|| a.union(&b)));
    group.bench_function("subtract", |bencher| bencher.iter(|| a.subtract(&b)));
    group.bench_function("round out", |bencher| {
        bencher.iter(|| a.round_out(ByteLen(131_072), size));
    });
    group.bench_function("coalesce", |bencher| {
        bencher.iter(|| a.coalesce(ByteLen(1 << 20), ByteLen(u64::MAX)));
    });
    group.finish();
    criterion.bench_function("extents/contains", |bencher| {
        let mut place = 0;
        bencher.iter(|| {
            place = (place + 7_919 * STRIDE) % size.0;
            a.contains(ByteOffset(place))
        });
    });
}

criterion_group!(benches, algebra);
criterion_main!(benches);

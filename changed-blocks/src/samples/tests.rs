//! Samples of any volume and delta: where they may lie, that there are enough, and how evenly they are spread.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CHUNK: ByteLen = ByteLen(128 << 10);

fn set(chunks: u64, ranges: &[(u64, u64)]) -> ChunkSet {
    let mut set = ChunkSet::new(chunks);
    for (start, len) in ranges {
        set.insert_range(*start..start + len);
    }
    set
}

fn space<'a>(delta: &'a ChunkSet, allocated: Option<&'a ChunkSet>) -> SampleSpace<'a> {
    SampleSpace {
        chunks: delta.limit(),
        chunk: CHUNK,
        delta,
        allocated,
    }
}

fn ranges(chunks: u64) -> impl Strategy<Value = Ranges> {
    vec((0..chunks, prop_oneof![1..4u64, 1..=chunks]), 0..6)
}

/// First chunk and length.
type Ranges = Vec<(u64, u64)>;

/// Chunks, the delta, and what is allocated.
fn volume() -> impl Strategy<Value = (u64, Ranges, Option<Ranges>)> {
    let chunks = prop_oneof![1..40u64, 1..3000u64, 100_000..200_000u64];
    chunks.prop_flat_map(|chunks| {
        let allocated = proptest::option::of(ranges(chunks));
        (Just(chunks), ranges(chunks), allocated)
    })
}

proptest! {
    #[test]
    fn samples_lie_outside_the_delta_and_are_enough(
        (chunks, delta, allocated) in volume(), seed in any::<u64>(),
    ) {
        let delta = set(chunks, &delta);
        let allocated = allocated.map(|ranges| set(chunks, &ranges));
        let space = space(&delta, allocated.as_ref());
        let samples = choose(&space, seed);
        prop_assert!(samples.is_sorted_by(|a, b| a < b), "twice or out of order");
        prop_assert!(samples.iter().all(|chunk| *chunk < chunks && !delta.contains(*chunk)));
        let most = if delta.is_empty() { 2 * SAMPLES } else { SAMPLES };
        prop_assert!(samples.len() <= most);
        let eligible = (0..chunks).filter(|chunk| {
            !delta.contains(*chunk) && allocated.as_ref().is_none_or(|set| set.contains(*chunk))
        });
        let eligible: Vec<u64> = eligible.collect();
        prop_assert!(samples.len() >= most.min(eligible.len()));
        if eligible.len() < most / 2 {
            prop_assert!(eligible.iter().all(|chunk| samples.contains(chunk)));
        }
        prop_assert_eq!(choose(&space, seed), samples);
    }

    #[test]
    fn random_ones_lie_in_what_is_allocated(
        (chunks, delta, allocated) in volume(), seed in any::<u64>(),
    ) {
        let delta = set(chunks, &delta);
        let allocated = allocated.map(|ranges| set(chunks, &ranges));
        let taken = BTreeSet::from([0, 1, 5, chunks / 2]);
        let space = space(&delta, allocated.as_ref());
        let drawn = at_random(&space, 100, &taken, &mut SplitMix64::new(seed));
        let distinct: BTreeSet<u64> = drawn.iter().copied().collect();
        prop_assert_eq!(distinct.len(), drawn.len());
        prop_assert!(distinct.is_disjoint(&taken));
        for chunk in drawn {
            prop_assert!(!delta.contains(chunk));
            prop_assert!(allocated.as_ref().is_none_or(|set| set.contains(chunk)));
        }
    }
}

#[test]
fn half_of_the_samples_are_hot() {
    let chunks = 1 << 20;
    // Changed in the middle of nowhere.
    let delta = set(chunks, &[(777_777, 3)]);
    let samples = choose(&space(&delta, None), 42);
    assert_eq!(samples.len(), SAMPLES);
    let first = samples.iter().filter(|chunk| **chunk < 64).count();
    let last = samples.iter().filter(|chunk| **chunk >= chunks - 8).count();
    assert!(first >= 30, "{first} at the start");
    assert_eq!(last, 8, "the last MiB");
    for chunk in [777_776, 777_780, 0, chunks - 1] {
        assert!(samples.contains(&chunk), "{chunk} is not among them");
    }
}

#[test]
fn an_empty_delta_is_looked_at_twice_as_hard() {
    let nothing = ChunkSet::new(1 << 20);
    assert_eq!(choose(&space(&nothing, None), 1).len(), 2 * SAMPLES);
}

#[test]
fn another_seed_gives_other_samples() {
    let delta = set(1 << 20, &[(1000, 10)]);
    let [one, other] = [1, 2].map(|seed| choose(&space(&delta, None), seed));
    let same = one.iter().filter(|chunk| other.contains(chunk)).count();
    assert!(same < 160, "{same} of {SAMPLES} are the same");
}

#[test]
fn every_eligible_chunk_is_drawn_as_often() {
    let chunks = 1000;
    let delta = set(chunks, &[(100, 300), (700, 1)]);
    let allocated = set(chunks, &[(0, 200), (350, 100), (500, 450)]);
    let space = space(&delta, Some(&allocated));
    let mut counts = vec![0u32; 1000];
    for seed in 0..4000 {
        for chunk in at_random(&space, 50, &BTreeSet::new(), &mut SplitMix64::new(seed)) {
            counts[usize::try_from(chunk).unwrap()] += 1;
        }
    }
    let eligible: Vec<u64> = unchanged(&space).flatten().collect();
    assert_eq!(eligible.len(), 100 + 50 + 449);
    let expected = 4000.0 * 50.0 / eligible.len() as f64;
    for chunk in eligible {
        let count = f64::from(counts[usize::try_from(chunk).unwrap()]);
        let off = (count - expected).abs() / expected.sqrt();
        assert!(off < 6.0, "chunk {chunk}: {count}, expected {expected}");
    }
}

#[test]
fn sixteen_tib_are_sampled_at_once() {
    let chunks = 1 << 27;
    let mut delta = ChunkSet::new(chunks);
    for chunk in (0..chunks).step_by(134) {
        delta.insert(chunk);
    }
    let begin = std::time::Instant::now();
    assert_eq!(choose(&space(&delta, None), 5).len(), SAMPLES);
    eprintln!("a million changed ranges of 16 TiB: {:?}", begin.elapsed());
}

#[test]
fn the_chance_is_that_of_the_documentation() {
    let near = |chance: f64, expected: f64| assert!((chance - expected).abs() < 5e-4, "{chance}");
    near(detection_chance(0.01, 700), 0.9991);
    near(detection_chance(0.01, 256), 0.9237);
    near(detection_chance(0.5, 1), 0.5);
    assert!((detection_chance(1.0, 1) - 1.0).abs() < f64::EPSILON);
    assert!(detection_chance(0.0, 1000).abs() < f64::EPSILON);
    assert!(detection_chance(0.5, 0).abs() < f64::EPSILON);
    assert!(
        detection_chance(1e-12, 256) > 2.5e-10,
        "small chances are kept"
    );
}

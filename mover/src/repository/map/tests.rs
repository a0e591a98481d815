//! The tree as a whole against a plain list of chunks.

mod golden;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::testing::{Model, data, reached, read, repository, write};
use super::*;

/// Volume sizes around every change of depth, in chunks.
const SIZES: [u64; 8] = [1, 200, 256, 257, 65_536, 65_537, 1 << 24, (1 << 24) + 9];

/// One generation of a point: its size, chunks that get data, chunks that become zero.
type Generation = (u64, Vec<(u64, u64)>, Vec<u64>);

/// Places cluster, so that nodes are shared, split and emptied.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..600u64,
        2 => 65_000..66_200u64,
        1 => 0..(1u64 << 24) + 9,
        1 => (1u64 << 24) - 300..(1u64 << 24) + 9,
    ]
}

pub(super) fn history(generations: usize) -> impl Strategy<Value = Vec<Generation>> {
    let generation = (
        proptest::sample::select(&SIZES[..]),
        proptest::collection::vec((place(), 0..5000u64), 0..40),
        proptest::collection::vec(place(), 0..10),
    );
    proptest::collection::vec(generation, 1..=generations)
}

pub(super) fn apply(model: &mut Model, (chunks, writes, zeros): &Generation) {
    for (chunk, seed) in writes {
        model.insert(*chunk, data(*seed));
    }
    for chunk in zeros {
        model.remove(chunk);
    }
    model.retain(|chunk, _| chunk < chunks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_map_says_what_was_written(history in history(6)) {
        let (repository, _) = repository();
        let mut model = Model::new();
        let mut points = Vec::<(MapRoot, Model)>::new();
        for (number, generation) in history.iter().enumerate() {
            apply(&mut model, generation);
            let parent = points.last().map(|(root, _)| *root);
            let written = write(&repository, number as u64, parent.as_ref(), &model, generation.0);
            prop_assert_eq!(written.root.depth, depth_of(generation.0));
            let live = written.pages.segments().flat_map(|(segment, set)| {
                set.iter().map(|ordinal| Location { segment, ordinal }).collect::<Vec<_>>()
            });
            prop_assert_eq!(live.collect::<BTreeSet<_>>(), reached(&repository, &written.root));
            points.push((written.root, model.clone()));
        }
        for (root, model) in &points {
            prop_assert_eq!(&read(&repository, root), model);
        }
    }

    #[test]
    fn two_maps_differ_where_their_chunks_do(history in history(3)) {
        let (repository, _) = repository();
        let mut model = Model::new();
        let mut points = vec![(MapRoot::zero(1), Model::new())];
        for (number, generation) in history.iter().enumerate() {
            apply(&mut model, generation);
            let parent = points.last().map(|(root, _)| *root);
            let written = write(&repository, number as u64, parent.as_ref(), &model, generation.0);
            points.push((written.root, model.clone()));
        }
        for (a, model_a) in &points {
            for (b, model_b) in &points {
                let mut found = Vec::new();
                let mut end = None;
                diff(&repository, a, b, |first, count| {
                    assert!(end.is_none_or(|end| first > end), "runs touch or overlap");
                    end = Some(first + count);
                    found.extend(first..first + count);
                    Ok(())
                }).unwrap();
                let digest = |model: &Model, chunk| model.get(chunk).and_then(|entry| entry.digest().copied());
                let all = model_a.keys().chain(model_b.keys()).collect::<BTreeSet<_>>();
                let expected = all.into_iter().filter(|chunk| digest(model_a, chunk) != digest(model_b, chunk));
                prop_assert_eq!(found, expected.copied().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn depth_follows_the_size() {
    let depths = [
        (0, 1),
        (1, 1),
        (256, 1),
        (257, 2),
        (65_536, 2),
        (65_537, 3),
        (1 << 24, 3),
        (1 << 27, 4),
    ];
    for (chunks, depth) in depths {
        assert_eq!(depth_of(chunks), depth, "{chunks} chunks");
    }
    assert_eq!(
        depth_of(u64::MAX >> 16),
        6,
        "the largest size in the smallest chunks"
    );
}

#[test]
fn spans_do_not_overflow() {
    assert_eq!(span_of(0), 256);
    assert_eq!(span_of(6), 1 << 56);
    assert_eq!(span_of(7), u64::MAX);
    assert_eq!(leaves_of(0), 1);
    assert_eq!(leaves_of(8), u64::MAX);
}

//! Liveness against a full walk.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::repository::ids::{Sequence, SessionId, VolumeId};
use crate::repository::map::testing::{Model, leaf_of, leaves_of, repository, session, write};
use crate::repository::map::tests::{apply, history};

/// How often every chunk is referenced.
fn references(model: &Model) -> BTreeMap<Location, u32> {
    let mut counts = BTreeMap::new();
    for chunk in model.values().filter_map(|entry| location(*entry)) {
        *counts.entry(chunk).or_default() += 1;
    }
    counts
}

fn exact(model: &Model) -> LivenessBuilder {
    let mut builder = LivenessBuilder::fresh();
    for index in leaves_of(model) {
        builder.replace_leaf(None, Some(&leaf_of(model, index)));
    }
    builder
}

fn derive(parent: Liveness, old: &Model, new: &Model) -> LivenessBuilder {
    let mut builder = LivenessBuilder::from_parent(parent);
    for index in leaves_of(old).union(&leaves_of(new)) {
        let (old, new) = (leaf_of(old, *index), leaf_of(new, *index));
        if old != new {
            builder.replace_leaf(Some(&old), (!new.is_zero()).then_some(&new));
        }
    }
    builder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_says_less_than_a_walk(history in history(12)) {
        let mut model = Model::new();
        let mut liveness = LivenessBuilder::fresh().finish();
        for generation in &history {
            let old = model.clone();
            apply(&mut model, generation);
            liveness = derive(liveness, &old, &model).finish();
            for (chunk, count) in references(&model) {
                prop_assert!(liveness.is_live(chunk));
                prop_assert!(count < 2 || liveness.is_shared(chunk));
            }
            let decoded = Liveness::decode(&liveness.encode()).unwrap();
            prop_assert!(decoded == liveness);
        }
    }

    #[test]
    fn an_exact_liveness_is_the_walk(history in history(6)) {
        let mut model = Model::new();
        history.iter().for_each(|generation| apply(&mut model, generation));
        let liveness = exact(&model).finish();
        let references = references(&model);
        prop_assert_eq!(liveness.chunks(), references.len() as u64);
        for (chunk, count) in references {
            prop_assert!(liveness.is_live(chunk));
            prop_assert_eq!(liveness.is_shared(chunk), count > 1);
        }
    }

    /// Without chunks that are referenced twice, a derived liveness is exact.
    #[test]
    fn without_sharing_a_derived_liveness_is_exact(
        edits in proptest::collection::vec(proptest::collection::btree_map(0..2000u64, 0..1u64, 0..60), 1..6),
    ) {
        let mut model = Model::new();
        let mut liveness = LivenessBuilder::fresh().finish();
        for (number, edit) in edits.iter().enumerate() {
            let old = model.clone();
            for (ordinal, chunk) in edit.keys().enumerate() {
                let segment = SegmentId { session: session(number as u64), number: 0 };
                let location = Location { segment, ordinal: u16::try_from(ordinal).unwrap() };
                let digest = crate::repository::ids::Digest([u8::try_from(number).unwrap(); 16]);
                model.insert(*chunk, Entry::Data { digest, location });
            }
            liveness = derive(liveness, &old, &model).finish();
        }
        prop_assert!(liveness == exact(&model).finish());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        drop(Liveness::decode(&bytes));
    }

    /// Whatever is accepted has one spelling.
    #[test]
    fn a_record_has_one_spelling(history in history(3), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut model = Model::new();
        history.iter().for_each(|generation| apply(&mut model, generation));
        let mut bytes = exact(&model).finish().encode();
        let at = at.index(bytes.len());
        prop_assert!(Liveness::decode(&bytes[..at]).is_err());
        bytes[at] = byte;
        if let Ok(liveness) = Liveness::decode(&bytes) {
            prop_assert_eq!(liveness.encode(), bytes);
        }
    }
}

#[test]
fn a_chunk_that_moves_is_not_shared() {
    let chunk = crate::repository::map::testing::data(3);
    let old = Model::from([(1, chunk)]);
    let new = Model::from([(2, chunk)]);
    let liveness = derive(exact(&old).finish(), &old, &new).finish();
    let place = location(chunk).unwrap();
    assert!(liveness.is_live(place) && !liveness.is_shared(place));
}

#[test]
fn a_shared_chunk_stays_live_until_an_exact_liveness() {
    let chunk = crate::repository::map::testing::data(3);
    let old = Model::from([(1, chunk), (300, chunk)]);
    let one = Model::from([(1, chunk)]);
    let none = Model::new();
    let liveness = derive(exact(&old).finish(), &old, &one).finish();
    let liveness = derive(liveness, &one, &none).finish();
    let place = location(chunk).unwrap();
    assert!(
        liveness.is_live(place) && liveness.is_shared(place),
        "over-stated, never under-stated"
    );
    assert_eq!(exact(&none).finish().chunks(), 0);
}

#[test]
fn pages_of_a_map_are_live() {
    let (repository, _) = repository();
    let model = (0..700u64)
        .map(|n| (n * 100, crate::repository::map::testing::data(n)))
        .collect::<Model>();
    let written = write(&repository, 1, None, &model, 70_000);
    let pages = written.pages_written;
    let mut builder = exact(&model);
    builder.set_pages(written.pages);
    let liveness = builder.finish();
    let counts = liveness
        .map_segments()
        .map(|(_, set)| u64::from(set.count()));
    assert_eq!(counts.sum::<u64>(), pages);
    assert!(liveness.is_page_live(written.root.pointer.unwrap().location));
    assert!(Liveness::decode(&liveness.encode()).unwrap() == liveness);
}

fn key() -> SessionKey {
    SessionKey {
        volume: VolumeId([4; 16]),
        sequence: Sequence(7),
        session: SessionId([5; 16]),
    }
}

#[test]
fn a_swapped_or_cut_off_object_is_noticed() {
    let (repository, _) = repository();
    let keys = &repository.keys;
    let model = Model::from([(1, crate::repository::map::testing::data(1))]);
    let liveness = exact(&model).finish();
    let (object, reference) = liveness.seal(keys, &key()).unwrap();
    assert!(Liveness::open(keys, &key(), &reference, &object).unwrap() == liveness);
    let (other, _) = exact(&Model::new()).finish().seal(keys, &key()).unwrap();
    for wrong in [&object[..object.len() - 1], &other, &[]] {
        let error = Liveness::open(keys, &key(), &reference, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.object_name(), Some(name::live(&key()).as_str()));
    }
}

#[test]
fn sets_take_their_shortest_form() {
    let id = |number| SegmentId {
        session: session(1),
        number,
    };
    let mut liveness = Liveness::default();
    let mut fill = |number, ordinals: &mut dyn Iterator<Item = u16>| {
        for ordinal in ordinals {
            liveness.data.insert(id(number), ordinal);
        }
    };
    fill(0, &mut (0..200));
    fill(2, &mut [3, 900].into_iter());
    fill(3, &mut (0..64).map(|n| n * 2 + 1));
    liveness.shared.insert(id(3), 1);
    let encoded = liveness.encode();
    let mut expected = vec![0x82, 0x81, 0x82, 0x50];
    expected.extend_from_slice(&session(1).0);
    expected.push(0x89);
    // Segment 0: the first 200, none shared. Segment 2: a list. Segment 3: a bitmap of 16 bytes; ordinal 1 is
    // shared, as a bitmap, because a list is not shorter.
    expected.extend_from_slice(&[0, 0x18, 200, 0]);
    expected.extend_from_slice(&[1, 0x82, 3, 0x19, 0x03, 0x80, 0]);
    expected.extend_from_slice(&[0, 0x50]);
    expected.extend_from_slice(&[0xaa; 16]);
    expected.extend_from_slice(&[0x41, 0x02, 0x80]);
    assert_eq!(encoded, expected);
    assert_eq!(Liveness::decode(&encoded).unwrap().chunks(), 266);
    let all = liveness
        .segments()
        .map(|(segment, _)| segment.number)
        .collect::<BTreeSet<_>>();
    assert_eq!(all, BTreeSet::from([0, 2, 3]));
}

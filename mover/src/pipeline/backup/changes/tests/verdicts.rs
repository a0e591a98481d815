//! A verdict stays with the volume, whatever the next point builds on.

use super::*;
use crate::repository::session::adopt::Takeover;
use crate::repository::session::forget::{self, Tomb};
use crate::repository::session::origin::Origin;
use crate::repository::session::writer::{Begin, WriterSession};

/// A volume whose storage was caught; the id of the point before.
fn caught() -> (Bed, Storage, String) {
    let (bed, mut storage) = begun();
    let before = newest(&bed).id().to_string();
    storage.change(scatter(9, 5000));
    storage.answer = Answer::Nothing;
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks_liar.as_deref(), Some("told"));
    storage.answer = Answer::Honest;
    storage.change(scatter(10, 5));
    (bed, storage, before)
}

fn on(bed: &Bed, storage: &Storage, parent: ParentChoice) -> BackupReport {
    let request = request(ChangedBlocksChoice::Auto, parent);
    backup::run(&bed.context(), &storage.source(), &request).unwrap()
}

#[test]
fn neither_no_parent_nor_an_older_one_is_a_pardon() {
    for is_device in [false, true] {
        let (bed, mut storage, before) = caught();
        storage.is_device = is_device;
        let scan = if is_device { "scan" } else { "hole-map" };
        for parent in [
            ParentChoice::None,
            ParentChoice::Point(before),
            ParentChoice::Auto,
        ] {
            let report = on(&bed, &storage, parent.clone());
            assert_eq!(report.changed_blocks, scan, "{parent:?}");
            let reason = &report.changed_blocks_reason;
            assert!(reason.contains("lied"), "{parent:?}: {reason}");
            let verdict = verdict(&bed);
            assert_eq!(
                (verdict.source.as_str(), verdict.target.as_str()),
                ("told", "told.state=1")
            );
            check_newest(&bed, &storage);
        }
    }
}

#[test]
fn to_forget_the_point_that_knows_is_no_pardon() {
    let (bed, storage, before) = caught();
    let point = newest(&bed);
    forget::bury(&bed.repository, &point.key, &Tomb::new("by hand", 0)).unwrap();
    assert_eq!(newest(&bed).id().to_string(), before);
    let report = on(&bed, &storage, ParentChoice::Auto);
    assert_eq!(report.parent, Some(before));
    let reason = &report.changed_blocks_reason;
    assert!(reason.contains("lied"), "{reason}");
    verdict(&bed);
}

fn liars(bed: &Bed) -> Vec<String> {
    let verdicts = History::of(&newest(bed).manifest).verdicts.into_iter();
    verdicts.map(|verdict| verdict.source).collect()
}

#[test]
fn another_liar_is_no_pardon_for_the_first_nor_the_pardon_of_one_for_the_other() {
    let (bed, mut storage, _) = caught();
    storage.name = "other";
    on(&bed, &storage, ParentChoice::Auto);
    storage.change(scatter(11, 5000));
    storage.answer = Answer::Nothing;
    let report = on(&bed, &storage, ParentChoice::Auto);
    assert_eq!(report.changed_blocks_liar.as_deref(), Some("other"));
    assert_eq!(liars(&bed), ["told", "other"]);

    storage.answer = Answer::Honest;
    for name in ["told", "other"] {
        storage.name = name;
        storage.change(scatter(12, 5));
        let report = on(&bed, &storage, ParentChoice::Auto);
        assert_eq!(report.changed_blocks, "hole-map");
        let reason = &report.changed_blocks_reason;
        assert!(reason.contains(&format!("{name} lied")), "{reason}");
        check_newest(&bed, &storage);
    }
    let named = ChangedBlocksChoice::Source("other".to_owned());
    let report = back_up(&bed, &storage, named).unwrap();
    assert_eq!(report.changed_blocks, "other");
    assert_eq!(liars(&bed), ["told"]);
}

/// A point of a run beside that of the newest point, which met nothing.
fn beside(bed: &Bed) -> Point {
    let newest = newest(bed);
    let listed = Catalog::list(bed.repository.store.as_ref(), newest.key.volume).unwrap();
    let begin = Begin {
        volume: "db",
        pins: &newest.manifest.pins,
        sequence: newest.key.sequence,
        takeover: Takeover {
            after: std::time::Duration::from_secs(600),
            here: Origin::current(),
            given_up: None,
        },
    };
    let session = WriterSession::begin(&bed.repository, &begin, &listed).unwrap();
    let mut manifest = newest.manifest;
    manifest.session = session.key();
    manifest.identity.retain(|(key, _)| !key.contains("liar"));
    session.commit(manifest).unwrap()
}

#[test]
fn a_run_beside_the_one_that_caught_somebody_is_no_pardon() {
    for is_automatic in [true, false] {
        // Of points with one sequence the higher session counts as the newest: one that is very high would have none above it.
        let scenes = std::iter::repeat_with(caught).take(64);
        let (bed, storage, before) = { scenes }
            .find(|(bed, ..)| newest(bed).key.session.to_string().as_str() < "8")
            .expect("half of all ids begin with less");
        let knows = newest(&bed).key;
        let is_higher = (0..64).any(|_| beside(&bed).key.session > knows.session);
        assert!(is_higher && newest(&bed).key.session > knows.session);
        assert_eq!(liars(&bed), [""; 0]);
        let parent = match is_automatic {
            true => ParentChoice::Auto,
            false => ParentChoice::Point(before),
        };
        let report = on(&bed, &storage, parent.clone());
        let reason = &report.changed_blocks_reason;
        assert!(reason.contains("told lied"), "{parent:?}: {reason}");
        assert_eq!(liars(&bed), ["told"]);
        check_newest(&bed, &storage);
    }
}

#[test]
fn who_cannot_be_asked_for_a_while_stays_a_liar() {
    let (bed, mut storage, _) = caught();
    storage.unusable = Some(("its tool is missing", true));
    on(&bed, &storage, ParentChoice::Auto);
    storage.unusable = None;
    let report = on(&bed, &storage, ParentChoice::Auto);
    assert!(report.changed_blocks_reason.contains("lied"));
}

#[test]
fn to_ask_nobody_what_changed_is_no_way_to_ask_a_liar_what_is_allocated() {
    let (bed, mut storage, _) = caught();
    storage.is_device = true;
    storage.answer = Answer::HalfAllocated;
    let report = back_up(&bed, &storage, ChangedBlocksChoice::None).unwrap();
    assert_eq!(
        report.changed_blocks, "scan",
        "{}",
        report.changed_blocks_reason
    );
    check_newest(&bed, &storage);
}

#[test]
fn what_a_try_stored_that_was_given_up_counts_and_is_taken_over() {
    let (bed, mut storage) = begun();
    storage.change(scatter(9, 5000));
    storage.answer = Answer::Nothing;
    let context = bed.context();
    let before = context.repository.store.counts().put_bytes;
    let request = request(ChangedBlocksChoice::Auto, ParentChoice::Auto);
    let report = backup::run(&context, &storage.source(), &request).unwrap();
    assert!(report.changed_blocks_liar.is_some());
    let after = context.repository.store.counts().put_bytes;
    assert_eq!(report.stored_bytes, after - before);
    assert_eq!(undecided(&bed), 0);
}

#[test]
fn a_try_that_was_given_up_for_a_doubt_is_taken_over_as_well() {
    let (bed, storage) = begun();
    for name in bed.objects("map/") {
        crate::pipeline::testing::flip(&bed.object(&name), 200);
    }
    storage.change(scatter(3, 5));
    let again = again_after_one_try(&bed, &storage).expect("the map is damaged");
    assert!(again.lie().is_none() && again.session.is_some());
    let left = undecided(&bed);
    assert_eq!(left, 1, "a killed run leaves its session behind");
    back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    // The one that was killed just now may still live as far as anybody can tell; the given-up one of this run does not.
    assert_eq!(undecided(&bed), left);
}

fn undecided(bed: &Bed) -> usize {
    let volume = bed.repository.keys.volume_id("db");
    let catalog = Catalog::list(bed.repository.store.as_ref(), volume).unwrap();
    catalog.undecided().count()
}

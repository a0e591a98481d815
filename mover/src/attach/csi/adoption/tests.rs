//! Notes that are stale, lost, doubled, or of a snapshot whose id somebody else has now.

use std::cell::RefCell;

use super::*;
use crate::error::{Error, ErrorKind};

const THEN: Option<(i64, i32)> = Some((1_700_000_000, 250_000_000));

fn noted(snapshot: &str) -> KeptBase {
    KeptBase {
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: "v".to_owned(),
        repository: "r".to_owned(),
        name: "n".to_owned(),
        snapshot: snapshot.to_owned(),
        created: THEN,
    }
}

fn recorded(id: &str) -> Recorded {
    Recorded {
        id: id.to_owned(),
        created: THEN,
    }
}

/// A driver on which these are what is said of them, and everything else is gone; whom it was asked about.
fn decided(notes: &[&str], point: Option<&str>, there: &[(&str, Seen)]) -> (Judged, Vec<String>) {
    let asked = RefCell::new(Vec::new());
    let look = |id: &str, created| {
        assert_eq!(created, THEN);
        asked.borrow_mut().push(id.to_owned());
        let known = there.iter().find(|(known, _)| *known == id);
        Ok(known.map_or(Seen::Gone, |(_, seen)| *seen))
    };
    let notes = notes.iter().map(|id| noted(id)).collect();
    let judged = decide(notes, point.map(recorded).as_ref(), &look);
    (judged, asked.into_inner())
}

#[test]
fn who_is_right_is_not_asked() {
    for (notes, point) in [(&["s1"][..], Some("s1")), (&[], None)] {
        let (judged, asked) = decided(notes, point, &[]);
        assert_eq!((judged, asked.len()), (Judged::default(), 0));
    }
}

#[test]
fn the_base_of_the_newest_point_is_found_where_nothing_is_noted() {
    let (judged, _) = decided(&[], Some("s2"), &[("s2", Seen::Same)]);
    assert_eq!(judged.adopted, Some(recorded("s2")));
    assert!(judged.told[0].contains("was not noted here"));
    let (judged, _) = decided(&[], Some("s2"), &[]);
    assert_eq!(judged, Judged::default());
}

#[test]
fn a_stale_note_does_not_keep_the_base_from_being_found() {
    for old in [Seen::Same, Seen::Gone] {
        let there = [("s1", old), ("s2", Seen::Same)];
        let (judged, _) = decided(&["s1"], Some("s2"), &there);
        assert_eq!(judged.adopted, Some(recorded("s2")), "{old:?}");
        assert_eq!(judged.stale, [noted("s1")], "{old:?}");
        assert!(judged.foreign.is_empty() && judged.refused.is_none());
    }
}

#[test]
fn a_note_whose_id_is_somebody_elses_is_forgotten_and_nothing_deleted() {
    let there = [("s1", Seen::Other), ("s2", Seen::Same)];
    let (judged, _) = decided(&["s1"], Some("s2"), &there);
    assert_eq!(judged.adopted, Some(recorded("s2")));
    assert_eq!(
        (judged.stale.len(), &judged.foreign[..]),
        (0, &[noted("s1")][..])
    );
    // With no base to be found, or no point, too.
    for point in [Some("s2"), None] {
        let (judged, _) = decided(&["s1"], point, &[("s1", Seen::Other)]);
        assert_eq!(judged.foreign, [noted("s1")]);
        assert!(judged.adopted.is_none() && judged.stale.is_empty());
        assert!(judged.told[0].contains("left alone"), "{:?}", judged.told);
    }
}

#[test]
fn an_id_that_is_another_snapshots_is_no_base_and_no_delta_starts_there() {
    let (judged, _) = decided(&[], Some("s2"), &[("s2", Seen::Other)]);
    assert_eq!(judged.adopted, None);
    let (snapshot, why) = judged.refused.unwrap();
    assert_eq!(snapshot, "s2");
    assert!(why.contains("another one has that id"), "{why}");
    // What is noted goes after the run, as always.
    let there = [("s1", Seen::Same), ("s2", Seen::Other)];
    let (judged, _) = decided(&["s1"], Some("s2"), &there);
    assert!(judged.stale.is_empty() && judged.foreign.is_empty());
}

#[test]
fn a_note_stays_until_the_end_where_there_is_no_base() {
    for point in [Some("s2"), None] {
        let (judged, _) = decided(&["s1"], point, &[("s1", Seen::Same)]);
        assert_eq!(judged, Judged::default());
    }
}

#[test]
fn of_several_notes_one_stays() {
    let there = [("s1", Seen::Same), ("s2", Seen::Same), ("s3", Seen::Other)];
    let (judged, _) = decided(&["s1", "s2", "s3"], Some("s2"), &there);
    assert_eq!(judged.adopted, Some(recorded("s2")), "in the first place");
    assert_eq!(judged.stale, [noted("s1")]);
    assert_eq!(judged.foreign, [noted("s3")]);
    let (judged, asked) = decided(&["s2", "s1"], Some("s2"), &there);
    assert_eq!((judged.adopted, judged.stale), (None, vec![noted("s1")]));
    assert_eq!(asked, ["s1"]);
    let (judged, _) = decided(&["s1", "s2"], None, &there);
    assert_eq!((judged.adopted, judged.stale), (None, vec![noted("s2")]));
}

#[test]
fn nothing_is_done_by_half() {
    let asked = RefCell::new(0);
    for fails_at in 1..=2 {
        *asked.borrow_mut() = 0;
        let look = |_: &str, _| {
            *asked.borrow_mut() += 1;
            if *asked.borrow() == fails_at {
                return Err(Error::new(ErrorKind::Unavailable, "no answer"));
            }
            Ok(Seen::Same)
        };
        let judged = decide(vec![noted("s1")], Some(&recorded("s2")), &look);
        let told = judged.told.join(" ");
        assert!(told.contains("is not known") && told.contains("no answer"));
        assert_eq!(
            Judged {
                told: Vec::new(),
                ..judged
            },
            Judged::default()
        );
    }
}

#[test]
fn a_snapshot_is_known_by_volume_and_time() {
    let found = |source: &str, created| {
        MadeSnapshot::from(csi_proto::csi::Snapshot {
            snapshot_id: "s".to_owned(),
            source_volume_id: source.to_owned(),
            creation_time: created,
            ..csi_proto::csi::Snapshot::default()
        })
    };
    let at = |seconds, nanos| Some(csi_proto::Timestamp { seconds, nanos });
    for (source, created, is) in [
        ("v", at(1_700_000_000, 250_000_000), Seen::Same),
        // To the second, down or up.
        ("v", at(1_700_000_000, 0), Seen::Same),
        ("v", at(1_700_000_001, 0), Seen::Same),
        ("v", at(1_700_000_002, 0), Seen::Other),
        ("v", at(1_699_999_998, 0), Seen::Other),
        ("w", at(1_700_000_000, 250_000_000), Seen::Other),
        ("v", None, Seen::Same),
        ("", at(1_700_000_000, 250_000_000), Seen::Same),
        ("", at(1_800_000_000, 0), Seen::Other),
    ] {
        let found = found(source, created);
        assert_eq!(seen(Some(&found), "v", THEN), is, "{source} {created:?}");
        if source == "v" {
            assert_eq!(seen(Some(&found), "v", None), Seen::Same);
        }
    }
    assert_eq!(seen(None, "v", THEN), Seen::Gone);
}

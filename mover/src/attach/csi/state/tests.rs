//! A run that dies at any entry is taken back in whole, and in the right order.

use std::collections::BTreeMap;

use super::*;

fn begun() -> Entry {
    Entry::Begin(Begun {
        version: VERSION,
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: Some("v".to_owned()),
        repository: "r".to_owned(),
        name: "n".to_owned(),
        keeps_base: true,
    })
}

fn snapshot() -> WantedSnapshot {
    WantedSnapshot {
        name: "snaphaul-1".to_owned(),
        volume: "v".to_owned(),
        parameters: BTreeMap::new(),
    }
}

fn volume() -> WantedVolume {
    WantedVolume {
        name: "snaphaul-1".to_owned(),
        snapshot: Some("s1".to_owned()),
        bytes: 1 << 20,
        parameters: BTreeMap::new(),
        topology: None,
        mode: Some(7),
    }
}

/// A backup that keeps its snapshot, from the first entry to the last.
fn whole_run() -> Vec<Entry> {
    vec![
        begun(),
        Entry::SnapshotWanted(snapshot()),
        Entry::SnapshotMade {
            id: "s1".to_owned(),
            created: Some((1, 2)),
        },
        Entry::VolumeWanted(volume()),
        Entry::VolumeMade {
            id: "v1".to_owned(),
        },
        Entry::FolderWanted { path: "/f".into() },
        Entry::AttachWanted {
            node: "n".to_owned(),
        },
        Entry::StageWanted {
            path: "/f/s".into(),
        },
        Entry::PublishWanted {
            path: "/f/p".into(),
        },
        Entry::KeepBase {
            old: Some("s0".to_owned()),
        },
        Entry::BaseNoted,
        Entry::Unpublished,
        Entry::Unstaged,
        Entry::Detached,
        Entry::VolumeDeleted,
        Entry::OldBaseDeleted,
        Entry::FolderRemoved,
    ]
}

/// What the driver and the system do to the state when a step is taken back.
fn undone(undo: &Undo) -> Entry {
    match undo {
        Undo::FindSnapshot(_) => Entry::SnapshotMade {
            id: "s1".to_owned(),
            created: Some((1, 2)),
        },
        Undo::FindVolume(_) => Entry::VolumeMade {
            id: "v1".to_owned(),
        },
        Undo::Unpublish(..) => Entry::Unpublished,
        Undo::Unstage(..) => Entry::Unstaged,
        Undo::Detach(..) => Entry::Detached,
        Undo::RemoveFolder(_) => Entry::FolderRemoved,
        Undo::DeleteVolume(_) => Entry::VolumeDeleted,
        Undo::NoteBase(_) => Entry::BaseNoted,
        Undo::DeleteOldBase(_) => Entry::OldBaseDeleted,
        Undo::DeleteStaleBase(id) => Entry::StaleBaseDeleted { id: id.clone() },
        Undo::DeleteSnapshot(_) => Entry::SnapshotDeleted,
    }
}

fn take_back(entries: &[Entry]) -> Vec<Undo> {
    let (mut state, mut order) = (State::of(entries), Vec::new());
    while let Some(undo) = state.next_undo() {
        state.apply(&undone(&undo));
        order.push(undo);
        assert!(order.len() < 20, "no end: {order:?}");
    }
    assert_eq!(state.snapshot, Thing::Absent);
    assert_eq!(state.volume, Thing::Absent);
    assert_eq!(
        (state.attached, state.staged, state.published, state.folder),
        (None, None, None, None)
    );
    order
}

#[test]
fn a_run_that_dies_anywhere_is_taken_back() {
    let run = whole_run();
    for len in 0..=run.len() {
        let order = take_back(&run[..len]);
        let kept = run[..len]
            .iter()
            .any(|entry| matches!(entry, Entry::KeepBase { .. }));
        let deletes = order.contains(&Undo::DeleteSnapshot("s1".to_owned()));
        let made = len > 1;
        assert_eq!(
            deletes,
            made && !kept,
            "died after {len} entries: {order:?}"
        );
        assert!(
            !order.contains(&Undo::DeleteOldBase("s0".to_owned())) || kept,
            "the base before goes only after the point is committed: {order:?}"
        );
    }
    assert!(take_back(&run).is_empty());
}

#[test]
fn the_order_is_the_reverse() {
    let run = whole_run();
    let order = take_back(&run[..9]);
    let id = || "v1".to_owned();
    assert_eq!(
        order,
        [
            Undo::Unpublish(id(), "/f/p".into()),
            Undo::Unstage(id(), "/f/s".into()),
            Undo::Detach(id(), "n".to_owned()),
            Undo::DeleteVolume(id()),
            Undo::DeleteSnapshot("s1".to_owned()),
            Undo::RemoveFolder("/f".into()),
        ]
    );
}

#[test]
fn what_may_exist_is_asked_for_by_the_same_request() {
    let order = take_back(&whole_run()[..4]);
    assert_eq!(order[0], Undo::FindVolume(volume()));
    let order = take_back(&whole_run()[..2]);
    assert_eq!(order[0], Undo::FindSnapshot(snapshot()));
    let mut refused = whole_run()[..4].to_vec();
    refused.push(Entry::VolumeRefused);
    assert_eq!(take_back(&refused), [Undo::DeleteSnapshot("s1".to_owned())]);
}

#[test]
fn the_clone_goes_without_the_snapshot() {
    let mut state = State::of(&whole_run()[..9]);
    while let Some(undo) = state.undo_clone() {
        state.apply(&undone(&undo));
    }
    assert_eq!(state.volume, Thing::Absent);
    assert_eq!(state.folder, None);
    assert_eq!(state.snapshot, Thing::Made("s1".to_owned()));
}

#[test]
fn a_snapshot_that_comes_too_late_to_be_a_base_goes() {
    let mut late = whole_run()[..10].to_vec();
    late.push(Entry::BaseSuperseded);
    let order = take_back(&late);
    assert!(
        order.contains(&Undo::DeleteSnapshot("s1".to_owned())),
        "{order:?}"
    );
}

#[test]
fn a_volume_that_was_handed_over_is_detached_and_stays() {
    let mut entries = vec![
        begun(),
        Entry::VolumeWanted(volume()),
        Entry::VolumeMade {
            id: "v1".to_owned(),
        },
        Entry::FolderWanted { path: "/f".into() },
        Entry::AttachWanted {
            node: "n".to_owned(),
        },
        Entry::StageWanted {
            path: "/f/s".into(),
        },
        Entry::PublishWanted {
            path: "/f/p".into(),
        },
        Entry::VolumeKept,
    ];
    let id = || "v1".to_owned();
    let steps = [
        Undo::Unpublish(id(), "/f/p".into()),
        Undo::Unstage(id(), "/f/s".into()),
        Undo::Detach(id(), "n".to_owned()),
        Undo::RemoveFolder("/f".into()),
    ];
    // Wherever it dies, or cannot go on, the rest follows.
    for done in 0..=steps.len() {
        assert_eq!(take_back(&entries), steps[done..]);
        assert_eq!(State::of(&entries).kept_volume.as_deref(), Some("v1"));
        if let Some(step) = steps.get(done) {
            entries.push(undone(step));
        }
    }
}

#[test]
fn stale_bases_go_whatever_becomes_of_the_run() {
    let stale = |id: &str| Entry::StaleBase { id: id.to_owned() };
    for len in 1..=whole_run().len() {
        let mut run = whole_run();
        run.truncate(len);
        run.splice(1..1, [stale("old-1"), stale("old-2")]);
        let mut order = take_back(&run);
        // Only the folder comes after them.
        order.retain(|undo| !matches!(undo, Undo::RemoveFolder(_)));
        let last: Vec<_> = order.iter().rev().take(2).rev().cloned().collect();
        let ids = ["old-1", "old-2"].map(|id| Undo::DeleteStaleBase(id.to_owned()));
        assert_eq!(last, ids, "died after {len} entries");
    }
}

#[test]
fn a_line_of_an_earlier_version_says_no_time() {
    let line = r#"{"step":"snapshot-made","id":"s1"}"#;
    let entry: Entry = serde_json::from_str(line).unwrap();
    let id = "s1".to_owned();
    assert_eq!(entry, Entry::SnapshotMade { id, created: None });
    assert_eq!(serde_json::to_string(&entry).unwrap(), line);
}

#[test]
fn a_volume_is_asked_for_again_as_it_was_wanted() {
    let text = serde_json::to_string(&Entry::VolumeWanted(volume())).unwrap();
    assert!(text.contains("\"mode\":7"), "{text}");
    let earlier = text.replace(",\"mode\":7", "");
    let entry: Entry = serde_json::from_str(&earlier).unwrap();
    let wanted = WantedVolume {
        mode: None,
        ..volume()
    };
    assert_eq!(entry, Entry::VolumeWanted(wanted));
    assert_eq!(serde_json::to_string(&entry).unwrap(), earlier);
}

#[test]
fn what_is_asked_in_vain_is_counted_until_the_driver_says_something() {
    let run = whole_run();
    let counted = |len: usize, entry: Entry| {
        let mut entries = run[..len].to_vec();
        entries.extend([Entry::AskedInVain, Entry::AskedInVain]);
        let before = State::of(&entries);
        assert_eq!(before.in_vain, 2);
        assert_eq!(before.next_undo(), State::of(&run[..len]).next_undo());
        entries.push(entry);
        State::of(&entries).in_vain
    };
    assert_eq!(counted(2, run[2].clone()), 0);
    assert_eq!(counted(2, Entry::SnapshotRefused), 0);
    assert_eq!(counted(4, run[4].clone()), 0);
    assert_eq!(counted(4, Entry::VolumeRefused), 0);
}

#[test]
fn every_name_is_that_of_one_kind_of_line() {
    let mut names = Entry::NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Entry::NAMES.len());
    assert!(
        whole_run()
            .iter()
            .all(|entry| names.contains(&entry.name()))
    );
}

#[test]
fn entries_come_back_from_their_text() {
    for entry in whole_run() {
        let text = serde_json::to_string(&entry).unwrap();
        assert!(
            text.contains(&format!("\"step\":\"{}\"", entry.name())),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}

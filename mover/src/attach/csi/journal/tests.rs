//! Journals that are cut, damaged, or somebody else's.

use super::*;

fn begun() -> Begun {
    Begun {
        version: VERSION,
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: None,
        repository: "r".to_owned(),
        name: "n".to_owned(),
        keeps_base: true,
    }
}

fn made() -> Entry {
    Entry::SnapshotMade {
        id: "s".to_owned(),
        created: None,
    }
}

#[test]
fn a_run_that_lives_is_left_alone_and_a_dead_one_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), begun()).unwrap();
    journal.write(&made()).unwrap();
    assert!(dead(folder.path()).unwrap().is_empty());
    let state = journal.state().clone();
    drop(journal);
    let found = dead(folder.path()).unwrap();
    let [Found::Dead(journal)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(*journal.state(), state);
}

#[test]
fn a_line_without_an_end_was_never_acted_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), begun()).unwrap();
    journal.write(&made()).unwrap();
    let path = journal.path.clone();
    drop(journal);
    let whole = fs::read_to_string(&path).unwrap();
    let first = whole.lines().next().unwrap().len() + 1;
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let found = dead(folder.path()).unwrap();
        let [Found::Dead(journal)] = &found[..] else {
            panic!("cut after {len}: {found:?}")
        };
        assert_eq!(journal.state().begun.is_some(), len >= first);
        assert_eq!(journal.state().next_undo(), None);
    }
}

#[test]
fn what_follows_a_line_without_an_end_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Begun {
        // Letters of three bytes: a cut may go through one.
        name: "\u{20ac}\u{20ac}".to_owned(),
        ..begun()
    };
    let mut journal = Journal::begin(folder.path(), begun).unwrap();
    journal.write(&made()).unwrap();
    let path = journal.path.clone();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    for len in (0..=whole.len()).step_by(7) {
        fs::write(&path, &whole[..len]).unwrap();
        let mut found = dead(folder.path()).unwrap();
        let Some(Found::Dead(mut journal)) = found.pop() else {
            panic!("cut after {len}")
        };
        journal.write(&made()).unwrap();
        let state = journal.state().clone();
        drop(journal);
        let found = dead(folder.path()).unwrap();
        let [Found::Dead(journal)] = &found[..] else {
            panic!("cut after {len}, then written to: {found:?}")
        };
        assert_eq!(*journal.state(), state, "cut after {len}");
    }
}

#[test]
fn what_follows_a_line_that_failed_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), begun()).unwrap();
    // A disk that was full in the middle of a line.
    journal.file.write_all(b"{\"step\":\"vol").unwrap();
    journal.write(&made()).unwrap();
    let state = journal.state().clone();
    drop(journal);
    let found = dead(folder.path()).unwrap();
    let [Found::Dead(journal)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(*journal.state(), state);
}

#[test]
fn what_is_no_journal_is_named_and_left() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "{}\n",
        "x\n",
        "{\"step\":\"begin\",\"version\":2,\"driver\":\"\",\"socket\":\"\",\"volume\":null,\"repository\":\"\",\"name\":\"\",\"keeps_base\":true}\n",
    ] {
        let path = folder.path().join("a.jsonl");
        fs::write(&path, text).unwrap();
        let found = dead(folder.path()).unwrap();
        assert!(matches!(&found[..], [Found::Unreadable(..)]), "{text}");
        assert!(path.exists());
    }
    assert!(dead(&folder.path().join("none")).unwrap().is_empty());
}

#[test]
fn the_file_goes_when_nothing_is_left_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), begun()).unwrap();
    journal.write(&made()).unwrap();
    let path = journal.path.clone();
    assert_eq!(journal.end().unwrap_err().kind(), ErrorKind::Internal);
    assert!(path.exists());
    let journal = Journal::begin(folder.path(), begun()).unwrap();
    let path = journal.path.clone();
    journal.end().unwrap();
    assert!(!path.exists());
}

//! Whose base stays, whose goes; what needs a driver is in the end-to-end tests.

use super::super::state::VERSION;
use super::*;

struct Bed {
    folder: tempfile::TempDir,
    bases: Bases,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        Self { folder, bases }
    }

    /// The journal of a run that made its snapshot.
    fn snapshot_only(&self) -> Journal {
        let mut journal = Journal::begin(&self.folder.path().join("s"), begun("v")).unwrap();
        let id = "new".to_owned();
        let made = Entry::SnapshotMade { id, created: None };
        journal.write(&made).unwrap();
        journal
    }

    /// The journal of a run that had a device of it.
    fn journal(&self) -> Journal {
        let mut journal = self.snapshot_only();
        let path = "/device".into();
        journal.write(&Entry::PublishWanted { path }).unwrap();
        journal
    }
}

fn begun(volume: &str) -> Begun {
    Begun {
        version: VERSION,
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: Some(volume.to_owned()),
        repository: "r".to_owned(),
        name: "n".to_owned(),
        keeps_base: true,
    }
}

#[test]
fn a_snapshot_that_another_repository_may_need_is_left_to_it() {
    let bed = Bed::new();
    let judge = |releases: bool, answer: Option<bool>| {
        let mut journal = bed.journal();
        let fate = adopt_base(&bed.bases, &mut journal, &begun("v"), releases, &|_, id| {
            assert_eq!(id, "new");
            Ok(answer)
        });
        (fate.unwrap(), journal.state().base_wanted)
    };
    assert_eq!(judge(false, None), (Fate::Undecided, false));
    assert_eq!(judge(true, None), (Fate::TakeBack, false));
    assert_eq!(judge(false, Some(false)), (Fate::TakeBack, false));
    assert_eq!(judge(true, Some(true)), (Fate::TakeBack, true));
    let failed = adopt_base(
        &bed.bases,
        &mut bed.journal(),
        &begun("v"),
        true,
        &|_, _| Err(Error::new(ErrorKind::Unavailable, "no")),
    );
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_snapshot_that_no_device_was_made_of_is_in_no_point() {
    let bed = Bed::new();
    let fate = adopt_base(
        &bed.bases,
        &mut bed.snapshot_only(),
        &begun("v"),
        false,
        &|_, _| Ok(None),
    );
    assert_eq!(fate.unwrap(), Fate::TakeBack);
}

#[test]
fn only_the_volume_that_is_named_is_released() {
    assert!(Purpose::Release(Some("v")).releases(Some("v")));
    assert!(Purpose::Release(None).releases(Some("v")));
    for purpose in [
        Purpose::Release(Some("w")),
        Purpose::Work(Some("v")),
        Purpose::Work(None),
        Purpose::Only,
    ] {
        assert!(!purpose.releases(Some("v")), "{purpose:?}");
    }
    assert!(Purpose::Work(Some("v")).is_about(Some("v")));
    assert!(!Purpose::Work(Some("v")).is_about(Some("w")));
    assert!(!Purpose::Work(None).is_about(None));
    for (purpose, volume, counts) in [
        (Purpose::Work(Some("v")), Some("v"), true),
        (Purpose::Work(Some("v")), Some("w"), false),
        (Purpose::Work(Some("v")), None, false),
        (Purpose::Work(None), None, true),
        (Purpose::Work(None), Some("v"), false),
        (Purpose::Only, None, true),
    ] {
        assert_eq!(purpose.counts(volume), counts, "{purpose:?} {volume:?}");
    }
}

#[test]
fn what_to_do_is_told_with_the_causes() {
    let error = Error::new(ErrorKind::Io, "outer")
        .hint("do this")
        .source(std::io::Error::other("inner"));
    assert_eq!(with_causes(&error), "outer: inner (do this)");
}

#[test]
fn a_journal_that_nobody_understands_stays_for_who_wants_everything_gone() {
    let stay = |purpose| unreadable(Path::new("/s/run-1.jsonl"), "line 2", purpose);
    assert_eq!(stay(Purpose::Only).run, "run-1");
    assert!(stay(Purpose::Only).is_asked_for && stay(Purpose::Release(None)).is_asked_for);
    assert!(!stay(Purpose::Work(Some("v"))).is_asked_for);
    assert!(!stay(Purpose::Release(Some("v"))).is_asked_for);
    let text = stay(Purpose::Only).text();
    assert!(
        text.contains("line 2") && text.contains("remove the file"),
        "{text}"
    );
}

#[test]
fn a_run_that_may_not_begin_says_whose_fault_it_is() {
    let bare = not_begun("run-1", Error::new(ErrorKind::Io, "no"));
    assert!(bare.message().contains("run-1"));
    assert!(bare.hint_text().unwrap().contains("log of the driver"));
    let hinted = not_begun(
        "run-1",
        Error::new(ErrorKind::NoSpace, "no").hint("free some"),
    );
    assert_eq!(hinted.kind(), ErrorKind::NoSpace);
    let hint = hinted.hint_text().unwrap();
    assert!(hint.starts_with("free some; nothing new is made"), "{hint}");
}

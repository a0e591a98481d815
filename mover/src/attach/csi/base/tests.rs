//! Notes that are found, replaced and forgotten; volumes that are held.

use std::time::Duration;

use super::lock::LOOK;
use super::*;

fn base(volume: &str, repository: &str) -> KeptBase {
    KeptBase {
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: volume.to_owned(),
        repository: repository.to_owned(),
        name: String::new(),
        snapshot: format!("{volume}-{repository}"),
        created: None,
    }
}

fn begun(volume: &str, repository: &str) -> Begun {
    Begun {
        version: 1,
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: Some(volume.to_owned()),
        repository: repository.to_owned(),
        name: String::new(),
        keeps_base: true,
    }
}

#[test]
fn there_is_one_for_each_volume_and_repository() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
    assert_eq!(bases.all().unwrap(), []);
    let ids = [("v/../1", "r"), ("v/../1", "s"), ("v", "/../1r")];
    for (volume, repository) in ids {
        bases.note(&base("old", "r")).unwrap();
        bases.note(&base(volume, repository)).unwrap();
    }
    assert_eq!(bases.all().unwrap().len(), 4);
    for (volume, repository) in ids {
        let found = bases.find(&begun(volume, repository)).unwrap();
        assert_eq!(found, Some(base(volume, repository)));
    }
    bases.forget(&base("v", "/../1r")).unwrap();
    bases.forget(&base("v", "/../1r")).unwrap();
    assert_eq!(bases.find(&begun("v", "/../1r")).unwrap(), None);
}

#[test]
fn each_name_of_a_volume_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
    let named = |name: &str| Begun {
        name: name.to_owned(),
        ..begun("v", "r")
    };
    for name in ["a", "b"] {
        let kept = KeptBase::of(&named(name), format!("s-{name}"));
        bases.note(&kept).unwrap();
    }
    for name in ["a", "b"] {
        let found = bases.find(&named(name)).unwrap().unwrap();
        assert_eq!(found.snapshot, format!("s-{name}"));
    }
}

#[test]
fn who_comes_late_does_not_take_the_place_of_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
    let of = |snapshot: &str| KeptBase::of(&begun("v", "r"), snapshot.to_owned());
    assert!(bases.succeed(&of("s1"), None).unwrap());
    assert!(bases.succeed(&of("s2"), Some("s1")).unwrap());
    // The same again, because it died in between.
    assert!(bases.succeed(&of("s2"), Some("s1")).unwrap());
    assert!(!bases.succeed(&of("late"), Some("s1")).unwrap());
    assert!(!bases.succeed(&of("late"), None).unwrap());
    let noted = bases.find(&begun("v", "r")).unwrap().unwrap();
    assert_eq!(noted.snapshot, "s2");
}

#[test]
fn a_volume_that_is_held_for_a_moment_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
    let subject = ("d", Path::new("/s"), "v");
    let held = bases.lock(subject.0, subject.1, subject.2).unwrap();
    let refused = bases.lock_within(subject, LOOK).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bases.lock_within(subject, Duration::from_secs(60)));
        drop(held);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn a_volume_is_held_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
    let held = bases.lock("d", Path::new("/s"), "v").unwrap();
    let refused = bases.lock("d", Path::new("/s"), "v").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    bases.lock("d", Path::new("/s"), "w").unwrap();
    drop(held);
    bases.lock("d", Path::new("/s"), "v").unwrap();
}

/// A note as an earlier version wrote it, which knew the socket as somebody had spelled it.
fn noted_as(bases: &Bases, folder: &Path, socket: &Path, snapshot: &str) {
    let spelled = KeptBase {
        socket: socket.to_owned(),
        snapshot: snapshot.to_owned(),
        ..base("v", "r")
    };
    fs::create_dir_all(folder).unwrap();
    let text = serde_json::to_string(&spelled).unwrap();
    assert!(!text.contains("created"), "as before: {text}");
    fs::write(bases.path(&spelled), text).unwrap();
}

/// A socket in a folder, and links to that folder.
fn links(folder: &Path, names: &[&str]) -> (PathBuf, Vec<PathBuf>) {
    let folder = folder.canonicalize().unwrap();
    fs::create_dir(folder.join("plugin")).unwrap();
    let socket = folder.join("plugin/csi.sock");
    let spelled = names.iter().map(|name| {
        std::os::unix::fs::symlink("plugin", folder.join(name)).unwrap();
        folder.join(name).join("csi.sock")
    });
    let spelled = spelled.collect();
    (socket, spelled)
}

#[test]
fn a_base_that_was_noted_under_another_spelling_is_found_replaced_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, spelled) = links(folder.path(), &["link"]);
    let notes = folder.path().join("b");
    let bases = Bases::at(notes.clone(), folder.path().join("l"));
    let begun = Begun {
        socket: socket.clone(),
        ..begun("v", "r")
    };
    let count = || fs::read_dir(&notes).unwrap().count();
    noted_as(&bases, &notes, &spelled[0], "s1");
    let found = bases.find(&begun).unwrap().unwrap();
    assert_eq!((&*found.snapshot, &found.socket), ("s1", &socket));
    assert_eq!(bases.all().unwrap(), [found]);
    // A successor knows it as the one before; the note of that goes when the snapshot does.
    assert!(
        bases
            .succeed(&KeptBase::of(&begun, "s2".to_owned()), Some("s1"))
            .unwrap()
    );
    assert_eq!(bases.find(&begun).unwrap().unwrap().snapshot, "s2");
    bases.forget_snapshot(Some(&begun), "s1").unwrap();
    assert_eq!(
        (count(), bases.find(&begun).unwrap().unwrap().snapshot),
        (1, "s2".to_owned())
    );
    // The same snapshot noted again: one note.
    noted_as(&bases, &notes, &spelled[0], "s2");
    assert_eq!(bases.every(&begun).unwrap().len(), 2);
    bases.note(&KeptBase::of(&begun, "s2".to_owned())).unwrap();
    assert_eq!(count(), 1);
    bases.forget_snapshot(Some(&begun), "s2").unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn every_spelling_of_one_place_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, spelled) = links(folder.path(), &["one", "two"]);
    let notes = folder.path().join("b");
    let bases = Bases::at(notes.clone(), folder.path().join("l"));
    for (spelled, snapshot) in spelled.iter().zip(["s1", "s2"]) {
        noted_as(&bases, &notes, spelled, snapshot);
    }
    fs::write(notes.join("other.json"), "{").unwrap();
    let begun = Begun {
        socket,
        ..begun("v", "r")
    };
    bases.note(&KeptBase::of(&begun, "s3".to_owned())).unwrap();
    let every = bases.every(&begun).unwrap();
    let mut snapshots: Vec<_> = every.iter().map(|base| &*base.snapshot).collect();
    assert_eq!(snapshots[0], "s3");
    snapshots.sort_unstable();
    assert_eq!(snapshots, ["s1", "s2", "s3"]);
}

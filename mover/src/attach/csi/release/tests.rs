//! What is released, and what stays.

use std::cell::RefCell;
use std::path::Path;

use super::*;
use crate::error::ErrorKind;

struct Bed {
    _folder: tempfile::TempDir,
    bases: Bases,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        Self {
            _folder: folder,
            bases,
        }
    }

    fn noted(&self, volume: &str, snapshot: &str) -> KeptBase {
        let base = KeptBase {
            driver: "d".to_owned(),
            socket: "/s".into(),
            volume: volume.to_owned(),
            repository: "r".to_owned(),
            name: "n".to_owned(),
            snapshot: snapshot.to_owned(),
            created: None,
        };
        self.bases.note(&base).unwrap();
        base
    }
}

#[test]
fn a_base_that_was_noted_meanwhile_is_the_one_that_goes() {
    let bed = Bed::new();
    let stale = bed.noted("v", "s1");
    bed.noted("v", "s2");
    let deleted = RefCell::new(Vec::new());
    let delete = |base: &KeptBase| {
        deleted.borrow_mut().push(base.snapshot.clone());
        Ok(())
    };
    let released = release_each(&bed.bases, &[stale.clone(), stale], &delete);
    assert_eq!(*deleted.borrow(), ["s2"]);
    assert_eq!(released.gone.len(), 1);
    assert_eq!(bed.bases.all().unwrap(), []);
}

#[test]
fn one_that_stays_does_not_keep_the_others() {
    let bed = Bed::new();
    let noted = ["busy", "failing", "good"].map(|volume| bed.noted(volume, volume));
    let _held = bed.bases.lock("d", Path::new("/s"), "busy").unwrap();
    let delete = |base: &KeptBase| match &*base.snapshot {
        "failing" => Err(Error::new(ErrorKind::Io, "no")),
        _ => Ok(()),
    };
    let released = release_each(&bed.bases, &noted, &delete);
    assert_eq!(released.gone, [noted[2].clone()]);
    let failed = released.failed.iter();
    let kinds: Vec<_> = failed
        .map(|(base, error)| (&*base.volume, error.kind()))
        .collect();
    let wanted = [("busy", ErrorKind::Unavailable), ("failing", ErrorKind::Io)];
    assert_eq!(kinds, wanted);
    assert_eq!(bed.bases.all().unwrap().len(), 2);
}

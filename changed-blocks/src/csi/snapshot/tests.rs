use super::*;

fn snapshot() -> CsiSnapshot {
    CsiSnapshot::new("hostpath.csi.k8s.io", "vol 1", "snap/2")
}

fn bound(
    target: &CsiSnapshot,
    recorded: &CsiSnapshot,
    named: Option<&str>,
) -> Result<String, String> {
    // As a repository gives it back.
    let pairs: Vec<_> = recorded.identity().pairs().collect();
    let record = Identity::among(NAME, &pairs).unwrap();
    target
        .pair_with(&Base {
            record: &record,
            point: "p",
            named,
        })
        .map_err(|error| error.to_string())
}

#[test]
fn a_snapshot_comes_back_from_its_record() {
    let change_id = "52 60 3a/6";
    for snapshot in [
        snapshot(),
        snapshot().with_change_id(change_id),
        snapshot().taken_for("a repository"),
        snapshot().created(Some((1_700_000_000, 5))),
        snapshot()
            .with_change_id(change_id)
            .with_driver_version("1.18.0"),
    ] {
        let pairs: Vec<_> = snapshot.identity().pairs().collect();
        let record = Identity::among(NAME, &pairs).unwrap();
        assert_eq!(CsiSnapshot::from_identity(&record).unwrap(), snapshot);
    }
}

#[test]
fn a_damaged_record_says_which_fact() {
    for missing in ["driver", "volume", "snapshot"] {
        let whole = snapshot().identity();
        let key = format!("{NAME}.{missing}");
        let fewer: Vec<_> = whole.pairs().filter(|(name, _)| *name != key).collect();
        let record = Identity::among(NAME, &fewer).unwrap();
        let error = CsiSnapshot::from_identity(&record).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the parent's record has no {missing} of csi")
        );
        let empty = snapshot().identity().with(missing, "");
        assert!(CsiSnapshot::from_identity(&empty).is_err());
    }
    let other = Identity::new("rbd").with("driver", "a");
    assert!(CsiSnapshot::from_identity(&other).is_err());
}

#[test]
fn the_base_is_what_the_parent_recorded() {
    let base = CsiSnapshot {
        snapshot: "snap/1".to_owned(),
        ..snapshot()
    };
    assert_eq!(bound(&snapshot(), &base, None).unwrap(), "snap/1");
    assert_eq!(bound(&snapshot(), &base, Some("snap/1")).unwrap(), "snap/1");
    let error = bound(&snapshot(), &base, Some("snap/0")).unwrap_err();
    assert_eq!(
        error,
        "take snap/0 as the base: the parent was made from snap/1"
    );
}

#[test]
fn a_change_id_takes_the_place_of_the_handle() {
    let base = CsiSnapshot {
        snapshot: "snap/1".to_owned(),
        ..snapshot()
    }
    .with_change_id("52 60/1");
    let target = snapshot().with_change_id("52 60/2");
    assert_eq!(bound(&target, &base, None).unwrap(), "52 60/1");
    for named in ["snap/1", "52 60/1"] {
        assert_eq!(bound(&target, &base, Some(named)).unwrap(), "52 60/1");
    }
    assert!(bound(&target, &base, Some("52 60/2")).is_err());
    let error = bound(&snapshot(), &base, None).unwrap_err();
    assert!(error.starts_with("the base has a change id"), "{error}");
    let error = bound(&target, &snapshot(), None).unwrap_err();
    assert!(error.starts_with("the target has a change id"), "{error}");
}

#[test]
fn neither_another_volume_nor_another_driver_is_compared_with() {
    let volume = CsiSnapshot::new("hostpath.csi.k8s.io", "vol 2", "snap/1");
    let error = bound(&snapshot(), &volume, None).unwrap_err();
    assert_eq!(error, "the base is of volume vol 2, not of vol 1");
    let driver = CsiSnapshot::new("rbd.csi.ceph.com", "vol 1", "snap/1");
    let error = bound(&snapshot(), &driver, None).unwrap_err();
    assert_eq!(
        error,
        "the base is of driver rbd.csi.ceph.com, not of hostpath.csi.k8s.io"
    );
}

#[test]
fn an_older_snapshot_goes_back() {
    let at = |seconds, nanos| snapshot().created(Some((seconds, nanos)));
    let base = at(10, 20).identity();
    assert!(at(10, 19).goes_back(&base).is_some());
    assert!(at(9, 999_999_999).goes_back(&base).is_some());
    assert_eq!(at(10, 20).goes_back(&base), None);
    assert_eq!(at(11, 0).goes_back(&base), None);
    assert_eq!(snapshot().goes_back(&base), None);
    assert_eq!(at(1, 0).goes_back(&snapshot().identity()), None);
    assert_eq!(
        at(1, 0).goes_back(&at(10, 0).identity().with("created", "soon")),
        None
    );
}

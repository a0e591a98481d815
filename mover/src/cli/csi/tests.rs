//! Names and flags; what needs a driver is in the end-to-end tests.

use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command};
use crate::error::Error;

#[test]
fn ids_of_volumes_become_names() {
    let name = |id: &str| volume_name(None, Path::new(&format!("csi:{id}"))).unwrap();
    assert_eq!(name("pvc-1/a"), "pvc-1/a");
    for (id, begin) in [
        ("52 60 f6/6", "52-60-f6/6-"),
        ("0001#ceph", "0001-ceph-"),
        ("../x", "x-"),
        ("###", "volume-"),
    ] {
        assert!(name(id).starts_with(begin), "{id}: {}", name(id));
    }
    assert_ne!(name("a b"), name("a#b"));
    assert!(name(&"x".repeat(500)).len() <= 200);
    assert_eq!(volume_name(Some("db"), Path::new("csi:x")).unwrap(), "db");
    let nothing = volume_name(None, Path::new("csi:")).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::InvalidRequest);
}

fn csi(line: &str) -> CsiCommand {
    let words = std::iter::once("snaphaul").chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Csi(args) => args.command,
        other => panic!("not csi: {other:?}"),
    }
}

#[test]
fn flags_become_options() {
    let CsiCommand::Info(args) = csi("csi info --csi-socket /s --csi-timeout 5s") else {
        panic!("not info")
    };
    let options = options(&args.driver, None, None).unwrap();
    assert_eq!(options.socket, Path::new("/s"));
    assert_eq!(options.deadlines.call.as_secs(), 5);
    assert_eq!(options.deadlines.snapshot.as_secs(), 600);
    assert_eq!(options.deadlines.expose.as_secs(), 1800);
    assert_eq!(
        options.devices(),
        Path::new("/var/lib/kubelet/plugins/kubernetes.io/csi/snaphaul")
    );
}

#[test]
fn a_socket_is_needed() {
    let CsiCommand::Release(args) = csi("csi release v") else {
        panic!("not release")
    };
    let refused = options(&args.driver, None, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    // As a run that finds something of another driver advises.
    let CsiCommand::Release(args) = csi("csi release --csi-socket /s") else {
        panic!("not release")
    };
    assert!(!args.all && args.volume_id.is_none());
    assert!(Cli::try_parse_from(["snaphaul", "csi", "release", "v", "--all"]).is_err());
}

#[test]
fn only_a_point_that_is_not_there_is_a_no() {
    let begun = Begun {
        version: 1,
        driver: "d".to_owned(),
        socket: "/s".into(),
        volume: Some("v".to_owned()),
        repository: "r".to_owned(),
        name: "n".to_owned(),
        keeps_base: true,
    };
    let told = |kind, object| {
        let error = Error::new(kind, "look").object(object);
        is_made_from(Err(error), "n@latest", (&begun, "s")).map_err(|error| error.kind())
    };
    assert_eq!(told(ErrorKind::NotFound, "n@latest"), Ok(false));
    for (kind, object) in [
        (ErrorKind::NotFound, "bucket"),
        (ErrorKind::Unavailable, "n@latest"),
        (ErrorKind::Corrupt, "n@latest"),
    ] {
        assert_eq!(told(kind, object), Err(kind), "{object}");
    }
    let made_from = |driver: &str, volume: &str, snapshot: &str| {
        let facts = [
            ("csi.driver", driver),
            ("csi.snapshot", snapshot),
            ("csi.volume", volume),
        ];
        let pairs = facts.map(|(key, value)| (key.to_owned(), value.to_owned()));
        is_made_from(Ok(pairs.to_vec()), "n@latest", (&begun, "s")).unwrap()
    };
    assert!(made_from("d", "v", "s"));
    // An id may be that of another volume's snapshot, or of another driver's.
    assert!(!made_from("d", "v", "t") && !made_from("d", "w", "s") && !made_from("e", "v", "s"));
}

#[test]
fn the_state_does_not_depend_on_the_working_directory() {
    let CsiCommand::Info(args) = csi("csi info --csi-socket /s --csi-state here") else {
        panic!("not info")
    };
    let options = options(&args.driver, None, None).unwrap();
    assert!(options.state.is_absolute() && options.state.ends_with("here"));
}

#[test]
fn parameters_are_for_the_driver_alone() {
    let texts = ["a=b=c", "d=", "csi.storage.k8s.io/fstype=xfs"].map(str::to_owned);
    let parsed = parameters("--csi-parameter", &texts).unwrap();
    let pairs: Vec<_> = parsed.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(pairs, [("a", "b=c"), ("d", "")]);
    for texts in [vec!["a"], vec!["=b"], vec!["a=1", "a=2"]] {
        let texts: Vec<_> = texts.into_iter().map(str::to_owned).collect();
        let refused = parameters("--csi-parameter", &texts).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{texts:?}");
    }
}

#[test]
fn a_snapshot_is_ours_by_every_fact_of_its_point() {
    let pairs = |repository: &str| {
        [
            ("csi.driver", "d"),
            ("csi.snapshot", "s"),
            ("csi.taken-for", repository),
            ("csi.volume", "v"),
            ("csi.created", "1700000000.000000250"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let ours = |pairs: &[(String, String)]| taken(pairs, ("d", "v", "r"));
    let recorded = |created| {
        let id = "s".to_owned();
        Some(Recorded { id, created })
    };
    assert_eq!(ours(&pairs("r")), recorded(Some((1_700_000_000, 250))));
    // Points of earlier versions say no time.
    assert_eq!(ours(&pairs("r")[..4]), recorded(None));
    assert_eq!(ours(&pairs("of the copy")), None);
    assert_eq!(taken(&pairs("r"), ("other", "v", "r")), None);
    assert_eq!(taken(&pairs("r"), ("d", "other", "r")), None);
    assert_eq!(ours(&pairs("r")[..2]), None);
}

#[test]
fn a_profile_is_a_field_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("with=sign.json");
    std::fs::write(&file, r#"{"d": {"cloneCost": "cow", "block": false}}"#).unwrap();
    let profile = |flags: &[&str]| {
        let given: Vec<String> = flags
            .iter()
            .map(|text| format!("--csi-profile {text}"))
            .collect();
        let line = format!("csi info --csi-socket /s {}", given.join(" "));
        let CsiCommand::Info(args) = csi(&line) else {
            panic!("not info")
        };
        options(&args.driver, None, None).map(|options| options.profiles.of("d"))
    };
    let path = file.display().to_string();
    let found = profile(&[&path, "block=true", "baseSnapshot=drop"]).unwrap();
    assert_eq!(found.clone_cost, CloneCost::CopyOnWrite);
    assert!(found.block, "a field is over a file");
    assert_eq!(found.base_snapshot, BasePolicy::Drop);
    let refused = profile(&["baseSnapshots=drop"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    let said = sweep::with_causes(&refused);
    assert!(said.contains("`baseSnapshot`"), "{said}");
    let missing = profile(&["/nonexistent/a=b"]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

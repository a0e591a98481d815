use super::*;

#[test]
fn a_status_says_what_is_held_and_what_is_wrong() {
    let status = |held: &str, mode: &str, check: &str| {
        let line = format!(
            "0 131072 thin-pool 0 113/1024 24/1024 {held} {mode} no_discard_passdown queue_if_no_space {check} 256 \n"
        );
        Status::parse(&line)
    };
    let good = Status {
        held: None,
        unable: None,
    };
    assert_eq!(status("-", "rw", "-").unwrap(), good);
    assert_eq!(status("32", "rw", "-").unwrap().held, Some(32));
    assert_eq!(status("-", "out_of_data_space", "-").unwrap(), good);
    assert!(
        status("-", "ro", "-")
            .unwrap()
            .unable
            .unwrap()
            .contains("metadata space")
    );
    assert!(
        status("7", "ro", "needs_check")
            .unwrap()
            .unable
            .unwrap()
            .contains("check")
    );
    let failed = Status::parse("0 131072 thin-pool Fail\n").unwrap();
    assert_eq!(failed.unable, Some("has failed"));
    for strange in [
        "",
        "0 1 thin 5 5",
        "0 1 thin-pool",
        "0 1 thin-pool 0 1/2 1/2 x rw a b c",
    ] {
        assert!(Status::parse(strange).is_err(), "{strange}");
    }
    assert!(status("-5", "rw", "-").is_err());
}

#[test]
fn what_is_no_thin_device_is_refused() {
    let missing = Device::at(Path::new("/dev/nothing/here")).unwrap_err();
    assert_eq!(missing.kind, SourceErrorKind::GiveUp);
    let file = Device::at(Path::new("/dev/null")).unwrap_err();
    assert_eq!(file.kind, SourceErrorKind::FullBackup);
    assert_eq!(file.message, "/dev/null is not a block device");
}

use super::*;

const STATUS: &str =
    "0 131072 thin-pool 0 113/1024 24/1024 32 rw no_discard_passdown queue_if_no_space - 256 \n";

#[test]
fn a_journal_cut_anywhere_never_claims_another_reservation() {
    let whole = format!("reserving by pid 7 in boot x\n{STATUS}");
    let noted = parse_journal(&whole);
    assert_eq!(noted.held, Some(32));
    assert_eq!(noted.reserving.as_deref(), Some("pid 7 in boot x"));
    for end in 0..whole.len() {
        assert_eq!(parse_journal(&whole[..end]).held, None, "cut at {end}");
    }
    assert_eq!(parse_journal(STATUS), Noted::default());
    assert_eq!(parse_journal("something\nelse\n"), Noted::default());
}

#[test]
fn pools_have_file_names_of_their_own() {
    let pool = |name: &str, uuid: &str| Pool {
        name: name.to_owned(),
        uuid: uuid.to_owned(),
        metadata: PathBuf::new(),
        block_bytes: 1,
    };
    let keys = [
        ("a", ""),
        ("", "a"),
        ("a/b", ""),
        ("a_2fb", ""),
        ("../x", ""),
    ]
    .map(|(name, uuid)| key_of(&pool(name, uuid)));
    for (index, key) in keys.iter().enumerate() {
        assert!(!key.contains('/'), "{key}");
        assert!(!keys[..index].contains(key), "{key}");
    }
    assert!(key_of(&pool("", &"\u{1}".repeat(128))).len() < 240);
}

#[test]
fn runs_on_one_pool_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.lock");
    let pool = Pool {
        name: "p".to_owned(),
        uuid: String::new(),
        metadata: PathBuf::new(),
        block_bytes: 1,
    };
    let first = lock(&path, &pool).unwrap();
    let (waiting, waited) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(lock(&path, &pool).unwrap());
            waiting.send(()).unwrap();
        });
        assert!(
            waited.recv_timeout(LOCK_POLL * 4).is_err(),
            "two runs hold the lock"
        );
        drop(first);
        waited.recv().unwrap();
    });
}

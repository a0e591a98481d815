//! Every source, their order, and what is refused.

use std::path::PathBuf;

use super::*;

fn folder_with(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn passphrase_args(path: PathBuf) -> RepositoryArgs {
    RepositoryArgs {
        passphrase_file: Some(path),
        ..RepositoryArgs::default()
    }
}

fn key_args(path: PathBuf) -> RepositoryArgs {
    RepositoryArgs {
        key_file: Some(path),
        ..RepositoryArgs::default()
    }
}

fn text(secret: Option<Secret>) -> String {
    match secret {
        Some(Secret::Passphrase(passphrase)) => passphrase.to_string(),
        other => panic!("not a passphrase: {other:?}"),
    }
}

fn variable(text: &str) -> Variable {
    Some(Ok(Zeroizing::new(text.to_owned())))
}

#[test]
fn one_newline_is_no_part_of_a_passphrase() {
    for (bytes, passphrase) in [
        ("abc", "abc"),
        ("abc\n", "abc"),
        ("abc\r\n", "abc"),
        ("abc\n\n", "abc\n"),
        (" a b ", " a b "),
    ] {
        let (_folder, path) = folder_with("p", bytes.as_bytes());
        assert_eq!(
            text(from_sources(&passphrase_args(path), None).unwrap()),
            passphrase
        );
    }
}

#[test]
fn a_file_wins_over_the_environment() {
    let (_folder, path) = folder_with("p", b"from file\n");
    assert_eq!(
        text(from_sources(&passphrase_args(path), variable("x")).unwrap()),
        "from file"
    );
    let none = RepositoryArgs::default();
    assert_eq!(
        text(from_sources(&none, variable("from variable")).unwrap()),
        "from variable"
    );
    assert!(from_sources(&none, None).unwrap().is_none());
}

#[test]
fn a_key_file_is_taken_as_it_is() {
    let (_folder, path) = folder_with("k", &[10; 32]);
    match from_sources(&key_args(path), None).unwrap() {
        Some(Secret::KeyFile(key)) => assert_eq!(*key, vec![10; 32]),
        other => panic!("not a key: {other:?}"),
    }
}

#[test]
fn bad_sources_are_refused_with_advice() {
    let (_a, short) = folder_with("k", &[1; 31]);
    let (_b, empty) = folder_with("p", b"\n");
    let (_c, binary) = folder_with("p", &[0xff; 40]);
    let (_d, large) = folder_with("p", &vec![b'x'; 65 * 1024]);
    for (args, variable) in [
        (key_args(short), None),
        (key_args(PathBuf::from("/nonexistent")), None),
        (passphrase_args(empty), None),
        (passphrase_args(binary), None),
        (passphrase_args(large), None),
        (RepositoryArgs::default(), variable("")),
        (RepositoryArgs::default(), Some(Err(()))),
    ] {
        let error = from_sources(&args, variable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let (_folder, path) = folder_with("p", b"hunter2hunter2");
    let secret = from_sources(&passphrase_args(path), None).unwrap();
    assert!(!format!("{secret:?}").contains("hunter2"));
}

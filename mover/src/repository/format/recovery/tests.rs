//! What was printed is read back, and every slip is found in its line.

use proptest::prelude::*;

use super::*;

fn key() -> RecoveryKey {
    let master: Vec<u8> = (0..32).collect();
    RecoveryKey::new(
        RepositoryId([0xa1; 16]),
        MasterKey::from_bytes(master.try_into().unwrap()),
    )
}

/// The vector of `FORMAT.md`.
const TEXT: &str = "\
key 1: 06GT 38D1 M6GT 38D1 M6GT 38WH
key 2: D1M6 GG00 820C 20A1 G710 4GY4
key 3: M2RC 1M70 Y40H 289H 858P 2WC1
key 4: C1J6 GV3G EHW7 SH3K H9E6 AXWJ
";

#[test]
fn the_text_is_that_of_the_specification() {
    assert_eq!(key().to_text().as_str(), TEXT);
    let read = RecoveryKey::parse(TEXT).unwrap();
    assert_eq!(read.repository(), key().repository());
    assert_eq!(read.master().bytes(), key().master().bytes());
}

#[test]
fn what_a_typist_does_is_understood() {
    let typed = format!(
        "\u{feff}SNAPHAUL RECOVERY SHEET\r\n\n{}\nkey 5: nothing\n",
        TEXT.to_lowercase()
            .replace(' ', "-")
            .replace('0', "o")
            .replace("key-1:", "KEY   1 :")
            .replace('\n', "  \r\n")
    );
    // The digit of `key 1` must stay a digit; in the lines a letter does.
    let read = RecoveryKey::parse(&typed).unwrap();
    assert_eq!(read.master().bytes(), key().master().bytes());
    let twice = format!("{TEXT}{TEXT}");
    RecoveryKey::parse(&twice).unwrap();
}

#[test]
fn missing_and_short_lines_are_named() {
    for number in 1..=4 {
        let label = format!("key {number}:");
        let without: String = TEXT
            .lines()
            .filter(|line| !line.starts_with(&label))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = RecoveryKey::parse(&without).unwrap_err();
        assert!(
            error
                .message()
                .contains(&format!("`key {number}` is missing")),
            "{error}"
        );
    }
    let short = TEXT.replacen("key 2: ", "key 2: 7", 1);
    let error = RecoveryKey::parse(&short).unwrap_err();
    assert!(
        error.message().contains("`key 2` has 25 characters"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn lines_of_two_sheets_do_not_mix() {
    let other = RecoveryKey::new(RepositoryId([0xa1; 16]), MasterKey::from_bytes([9; 32]));
    let text = other.to_text();
    let mixed: Vec<&str> = TEXT.lines().take(3).chain(text.lines().skip(3)).collect();
    let error = RecoveryKey::parse(&mixed.join("\n")).unwrap_err();
    assert!(
        error.message().contains("do not belong together"),
        "{error}"
    );
}

#[test]
fn nothing_tells_the_key() {
    let shown = format!("{:?}", key());
    assert!(
        shown.contains("redacted") && shown.contains("a1a1"),
        "{shown}"
    );
    let secret = TEXT.lines().next().unwrap()[7..].to_owned();
    let error = RecoveryKey::parse(&TEXT.replacen('A', "B", 1)).unwrap_err();
    assert!(!format!("{error:?}").contains(&secret[..9]));
}

proptest! {
    #[test]
    fn every_key_comes_back(repository: [u8; 16], master: [u8; 32]) {
        let key = RecoveryKey::new(RepositoryId(repository), MasterKey::from_bytes(master));
        let read = RecoveryKey::parse(&key.to_text()).unwrap();
        prop_assert_eq!(read.repository().0, repository);
        prop_assert_eq!(*read.master().bytes(), master);
    }

    /// A wrong character passes the check of its line once in 1,024 times, and then meets that of the whole.
    #[test]
    fn a_wrong_character_is_never_accepted(at in 0_usize..128, with in 0_usize..32) {
        let mut bytes = TEXT.as_bytes().to_vec();
        let is_symbol = |at: usize| TEXT[..at].rfind(':').is_some_and(|colon| !TEXT[colon..at].contains('\n'));
        prop_assume!(at < bytes.len() && is_symbol(at) && ALPHABET.contains(&bytes[at]) && bytes[at] != ALPHABET[with]);
        bytes[at] = ALPHABET[with];
        prop_assert!(RecoveryKey::parse(std::str::from_utf8(&bytes).unwrap()).is_err());
    }

    #[test]
    fn any_text_is_read_without_harm(text in "(key [1-4]: ?[0-9A-Za-zé -]{0,40}\n){0,6}") {
        prop_assert!(RecoveryKey::parse(&text).is_err());
    }
}

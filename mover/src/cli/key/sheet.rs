//! The recovery sheet as it is printed.
//!
//! Owns: its words. Must not: know how the key is written in letters (`format::recovery`).

use zeroize::Zeroizing;

use super::super::units;
use crate::repository::format::RecoveryKey;

/// What a sheet says besides the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Where the repository was.
    pub url: &'a str,
    /// When the sheet was made, in seconds since 1970.
    pub made_unix_secs: i64,
    /// The key slot that was opened for it.
    pub opened_by: Option<&'a str>,
    /// How many key slots there were.
    pub keys: usize,
}

/// Fits on one page, 80 columns wide.
pub(super) fn to_text(facts: &Facts<'_>, key: &RecoveryKey) -> Zeroizing<String> {
    let lines = key.to_text();
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str(&format!(
        "\
SNAPHAUL RECOVERY SHEET

repository   {}
url          {}
made         {} by snaphaul {}
opened with  {}
keys then    {}

This sheet opens the repository without any passphrase or key file, also after
all of these were lost, changed or removed. Whoever has it can read and forge
everything in there. Keep it on paper, locked away, and not beside the data.

",
        key.repository(),
        facts.url,
        units::timestamp_secs(facts.made_unix_secs),
        env!("CARGO_PKG_VERSION"),
        facts
            .opened_by
            .map_or("another recovery sheet".to_owned(), |id| format!(
                "key {id}"
            )),
        facts.keys,
    ));
    for line in lines.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(
        "
To use it, type the four key lines into a file, here sheet.txt. Upper and lower
case and spaces do not matter; O is read as 0, I and L as 1. The last two
characters check their line, so that a slip is found where it is.

    snaphaul points  --recovery-sheet sheet.txt --repo URL
    snaphaul restore VOLUME@latest FILE --recovery-sheet sheet.txt --repo URL
    snaphaul key add --recovery-sheet sheet.txt --repo URL

The last one gives the repository a new passphrase. Delete sheet.txt afterwards.
",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::format::MasterKey;
    use crate::repository::ids::RepositoryId;

    #[test]
    fn a_sheet_can_be_read_back_and_fits_on_paper() {
        let key = RecoveryKey::new(RepositoryId([7; 16]), MasterKey::from_bytes([3; 32]));
        let facts = Facts {
            url: "file:///backup/vms",
            made_unix_secs: 0,
            opened_by: Some("0123456789abcdef0123456789abcdef"),
            keys: 2,
        };
        let text = to_text(&facts, &key);
        for words in [
            "0707070707070707",
            "file:///backup/vms",
            "1970-01-01T00:00:00Z",
            "key 0123456789abcdef",
        ] {
            assert!(text.contains(words), "no `{words}` in\n{}", *text);
        }
        assert!(text.lines().count() < 60 && text.lines().all(|line| line.len() <= 80));
        let read = RecoveryKey::parse(&text).unwrap();
        assert!(read.master().is_same(key.master()));
    }
}

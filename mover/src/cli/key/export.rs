//! `key export`.
//!
//! Owns: where the recovery sheet goes. Must not: let it reach anything but the file or the stdout it was asked for.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::super::args::ExportArgs;
use super::super::config::invalid;
use super::super::run::{Outcome, Run, Text};
use super::change::now_unix_secs;
use super::sheet::{self, Facts};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::{self, Keyring, Opened};

#[derive(Debug, Serialize)]
struct ExportReport {
    repository: String,
    url: String,
    /// Where the sheet is; null where it went to stdout.
    output: Option<String>,
}

pub(super) fn run(
    run: &Run,
    opened: &Opened,
    keyring: &Keyring,
    args: &ExportArgs,
) -> Result<Outcome> {
    if run.output.mode().json && args.output.is_none() {
        return Err(
            invalid("write a recovery sheet into JSON lines, which scripts may log")
                .hint("give --output FILE, or leave out --json"),
        );
    }
    let repository = &opened.repository;
    let keys = access::key_slots(repository.store.as_ref(), &repository.config)?.len();
    let recovery = keyring.recovery_key();
    let text = sheet::to_text(
        &Facts {
            url: &repository.store.url(),
            made_unix_secs: now_unix_secs(),
            opened_by: keyring.opened_by(),
            keys,
        },
        &recovery,
    );
    let report = ExportReport {
        repository: recovery.repository().to_string(),
        url: repository.store.url(),
        output: args.output.as_ref().map(|path| path.display().to_string()),
    };
    let said = match &args.output {
        None => Text::Answer(text.to_string()),
        Some(path) => {
            write(path, text.as_bytes())?;
            Text::Summary(format!(
                "Wrote the recovery sheet to {}. Whoever has it can read everything: print it, lock it away, delete the file.",
                path.display()
            ))
        }
    };
    Outcome::new(&report, said)
}

/// A new file that only its owner can read, on the disk before the run ends.
fn write(path: &Path, text: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| {
        let (kind, hint) = match error.kind() {
            std::io::ErrorKind::AlreadyExists => (
                ErrorKind::InvalidRequest,
                "give the name of a new file: nothing is overwritten",
            ),
            std::io::ErrorKind::NotFound => (
                ErrorKind::InvalidRequest,
                "give a file in a directory that exists",
            ),
            std::io::ErrorKind::PermissionDenied => (
                ErrorKind::AccessDenied,
                "give a file in a directory that you can write to",
            ),
            std::io::ErrorKind::StorageFull => {
                (ErrorKind::NoSpace, "free some space, or give another file")
            }
            _ => (ErrorKind::Io, "give another file"),
        };
        Error::new(kind, "write the recovery sheet")
            .object(path.display())
            .hint(hint)
            .source(error)
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(text)
        .and_then(|()| file.sync_all())
        .map_err(|error| {
            // Half a sheet is worse than none; if even that fails, the error says where it is.
            let _ = std::fs::remove_file(path);
            failed(error)
        })
}

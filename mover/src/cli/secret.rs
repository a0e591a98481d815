//! Where the passphrase or key comes from.
//!
//! Owns: reading it from a file, the environment or a terminal, in that order. Must not: keep, print or log it; buffers are
//! wiped.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::args::{NewSecretArgs, RepositoryArgs};
use super::config::invalid;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::RecoveryKey;
use crate::repository::format::key_slot::Secret;

/// The environment variable with a passphrase.
const PASSPHRASE_VARIABLE: &str = "SNAPHAUL_PASSPHRASE";
/// Fewer bytes than this are no key.
const MIN_KEY_BYTES: usize = 32;
/// More than this is surely the wrong file, e.g. a disk image.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
const HOW_TO_GIVE: &str = "use --passphrase-file FILE, --key-file FILE or SNAPHAUL_PASSPHRASE, or run it in a terminal to be asked; --recovery-sheet FILE if the key is lost";

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// To open a repository.
    Once,
    /// To protect a new one: asked twice, since a slip would lock everybody out.
    Twice,
}

/// The secret that flags or environment give, if any.
pub(super) fn configured(args: &RepositoryArgs) -> Result<Option<Secret>> {
    from_sources(
        args,
        std::env::var_os(PASSPHRASE_VARIABLE)
            .map(|value| value.into_string().map(Zeroizing::new).map_err(|_| ())),
    )
}

/// The master key of a recovery sheet.
pub(super) fn recovery_sheet(path: &Path) -> Result<RecoveryKey> {
    let bytes = read_secret("recovery sheet", path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        invalid("read the recovery sheet: it is no UTF-8 text")
            .object(path.display())
            .hint("give a text file with the four key lines of the sheet")
    })?;
    RecoveryKey::parse(text).map_err(|error| error.object(path.display()))
}

/// The secret of a new key: from a file, else a terminal is asked twice. Never from the environment, which may hold the old one.
pub(super) fn new_secret(args: &NewSecretArgs) -> Result<Secret> {
    match (&args.new_key_file, &args.new_passphrase_file) {
        (Some(path), _) => key_file(path),
        (None, Some(path)) => passphrase_file(path),
        (None, None) if std::io::stdin().is_terminal() => {
            ask_for("New passphrase: ", Ask::Twice)
        }
        (None, None) => Err(invalid("find the new passphrase or key").hint(
            "use --new-passphrase-file FILE or --new-key-file FILE, or run it in a terminal to be asked",
        )),
    }
}

/// Asks on the terminal.
pub(super) fn ask(how: Ask) -> Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(invalid("find a passphrase or key for the repository").hint(HOW_TO_GIVE));
    }
    ask_for("Passphrase of the repository: ", how)
}

fn ask_for(text: &str, how: Ask) -> Result<Secret> {
    let passphrase = prompt(text)?;
    if passphrase.is_empty() {
        return Err(invalid("use an empty passphrase").hint(HOW_TO_GIVE));
    }
    if how == Ask::Twice && *prompt("The same passphrase again: ")? != *passphrase {
        return Err(
            invalid("use a passphrase that was typed in two ways").hint("run the command again")
        );
    }
    Ok(Secret::Passphrase(passphrase))
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(text)
        .map(Zeroizing::new)
        .map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ => ErrorKind::InvalidRequest,
            };
            Error::new(kind, "read the passphrase from the terminal")
                .hint(HOW_TO_GIVE)
                .source(error)
        })
}

type Variable = Option<std::result::Result<Zeroizing<String>, ()>>;

fn from_sources(args: &RepositoryArgs, variable: Variable) -> Result<Option<Secret>> {
    if let Some(path) = &args.key_file {
        return key_file(path).map(Some);
    }
    if let Some(path) = &args.passphrase_file {
        return passphrase_file(path).map(Some);
    }
    match variable {
        None => Ok(None),
        Some(Ok(passphrase)) if !passphrase.is_empty() => Ok(Some(Secret::Passphrase(passphrase))),
        Some(_) => Err(invalid(format!(
            "use {PASSPHRASE_VARIABLE}: it is empty or no UTF-8"
        ))
        .hint(HOW_TO_GIVE)),
    }
}

fn key_file(path: &Path) -> Result<Secret> {
    let key = read_secret("key", path)?;
    if key.len() < MIN_KEY_BYTES {
        return Err(invalid(format!("use a key of {} bytes", key.len()))
            .object(path.display())
            .hint(format!("a key has at least {MIN_KEY_BYTES} random bytes, e.g. head -c 32 /dev/urandom > FILE")));
    }
    Ok(Secret::KeyFile(key))
}

fn passphrase_file(path: &Path) -> Result<Secret> {
    let bytes = read_secret("passphrase", path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        invalid("read the passphrase file: it is no UTF-8 text")
            .object(path.display())
            .hint("give random bytes with --key-file")
    })?;
    let text = text
        .strip_suffix('\n')
        .map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(invalid("use an empty passphrase")
            .object(path.display())
            .hint(HOW_TO_GIVE));
    }
    Ok(Secret::Passphrase(Zeroizing::new(text.to_owned())))
}

fn read_secret(what: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: std::io::Error| {
        invalid(format!("read the {what} file"))
            .object(path.display())
            .hint(HOW_TO_GIVE)
            .source(error)
    };
    // As large as it can become, so that growing leaves no copies behind in freed memory.
    let capacity = usize::try_from(MAX_SECRET_BYTES + 1).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() >= capacity {
        return Err(
            invalid(format!("read the {what} file: it is larger than 64 KiB"))
                .object(path.display())
                .hint("this is probably another file"),
        );
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

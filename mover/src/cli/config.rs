//! From flags as written to a run that is known to make sense.
//!
//! Owns: checks that need more than one flag, names, tags and defaults. Must not: open anything but what tells whether a path
//! can be used. Every refusal is `InvalidRequest` and says what to write instead.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::args::{Cli, Command, InitArgs, RunArgs};
use super::units;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::budget::{DEFAULT_MEMORY_BYTES, MIN_MEMORY_BYTES};

/// Longest name of a volume or group.
const MAX_NAME_BYTES: usize = 200;
/// Tags live in the manifest, which every listing reads.
const MAX_TAGS: usize = 64;
const MAX_TAG_KEY_BYTES: usize = 128;
const MAX_TAG_VALUE_BYTES: usize = 1024;

/// How a run behaves, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunConfig {
    /// Name of the command.
    pub command: &'static str,
    /// Worker threads.
    pub jobs: usize,
    /// Bytes that data in flight may take.
    pub memory: u64,
    /// Where the metrics go.
    pub metrics_file: Option<PathBuf>,
}

impl RunConfig {
    /// Checks the flags that every command takes.
    pub(super) fn try_new(cli: &Cli) -> Result<Self> {
        let RunArgs {
            jobs,
            memory,
            metrics_file,
            json,
            ..
        } = &cli.run;
        if *json && stdout_is_data(&cli.command) {
            return Err(
                invalid("write JSON lines to a stdout that carries the restored data")
                    .hint("leave out --json, or restore to a file"),
            );
        }
        if let Some(path) = metrics_file {
            check_metrics_file(path)?;
        }
        let memory = memory.unwrap_or(DEFAULT_MEMORY_BYTES);
        if memory < MIN_MEMORY_BYTES {
            return Err(
                invalid(format!("work with {} of memory", units::size(memory))).hint(format!(
                    "give --memory at least {}",
                    units::size(MIN_MEMORY_BYTES)
                )),
            );
        }
        Ok(Self {
            command: cli.command.name(),
            jobs: jobs.map_or_else(cores, usize::from),
            memory,
            metrics_file: metrics_file.clone(),
        })
    }
}

/// Whether restored data goes to stdout.
pub(super) fn stdout_is_data(command: &Command) -> bool {
    matches!(command, Command::Restore(args) if args.target == Path::new("-"))
}

/// The sizes of a new repository, checked.
pub(super) fn repository_sizes(args: &InitArgs) -> Result<(u32, u32)> {
    let refuse = |flag: &str, size: u64, allowed: &str| {
        invalid(format!("use {flag} {}", units::size(size))).hint(format!("it must be {allowed}"))
    };
    let chunk = u32::try_from(args.chunk_size)
        .ok()
        .filter(|size| size.is_power_of_two() && (64 << 10..=1 << 20).contains(size))
        .ok_or_else(|| {
            refuse(
                "--chunk-size",
                args.chunk_size,
                "a power of two from 64KiB to 1MiB",
            )
        })?;
    let segment = u32::try_from(args.segment_size)
        .ok()
        .filter(|size| (1 << 20..=64 << 20).contains(size))
        .ok_or_else(|| refuse("--segment-size", args.segment_size, "from 1MiB to 64MiB"))?;
    Ok((chunk, segment))
}

/// The name of the volume: `--volume`, else the base name of the source.
pub(super) fn volume_name(flag: Option<&str>, source: &Path) -> Result<String> {
    match flag {
        Some(name) => checked_name("volume", name),
        None => source
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| invalid("take a volume name from the source").object(source.display()))
            .and_then(|name| checked_name("volume", name))
            .map_err(|error| error.hint("give the volume a name with --volume NAME")),
    }
}

/// Checks `[A-Za-z0-9][A-Za-z0-9._/-]{0,199}`.
pub(super) fn checked_name(what: &str, name: &str) -> Result<String> {
    let fits = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"._/-".contains(&c));
    if fits {
        return Ok(name.to_owned());
    }
    Err(invalid(format!("use `{}` as the name of a {what}", name.escape_debug())).object(name).hint(format!(
        "a name begins with a letter or digit, goes on with letters, digits and `. _ / -`, and has at most {MAX_NAME_BYTES} characters"
    )))
}

/// Parses `KEY=VALUE` texts.
pub(super) fn tags(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            invalid(format!("read the tag `{}`", text.escape_debug()))
                .object(text)
                .hint("write --tag KEY=VALUE")
        })?;
        let key_fits = !key.is_empty()
            && key.len() <= MAX_TAG_KEY_BYTES
            && key.chars().all(|c| !c.is_whitespace() && !c.is_control());
        let value_fits = value.len() <= MAX_TAG_VALUE_BYTES && !value.chars().any(char::is_control);
        if !key_fits || !value_fits {
            return Err(invalid(format!("use the tag `{}`", text.escape_debug())).object(text).hint(format!(
                "a key has 1 to {MAX_TAG_KEY_BYTES} characters without spaces, a value at most {MAX_TAG_VALUE_BYTES}, neither has control characters"
            )));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(invalid(format!("set the tag `{key}` twice"))
                .object(key)
                .hint("give each key once"));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(
            invalid(format!("attach {} tags", tags.len())).hint(format!("at most {MAX_TAGS} fit"))
        );
    }
    Ok(tags)
}

/// A refusal of what the command line asks for.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

/// A misspelt folder is better found before a long run than after it.
fn check_metrics_file(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.file_name().is_some() && folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    Err(invalid("write the metrics file")
        .object(path.display())
        .hint("give a file in a directory that exists"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests;

//! What a test needs from the machine, and what to say where it is missing.
//!
//! Owns: looking programs up. Must not: install anything (`tests/run` does) or let a test pass without its part.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Folder for tools built or downloaded for the tests, shared with `tests/run`: `SNAPHAUL_CACHE`, else `~/.cache/snaphaul`.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(chosen) = std::env::var_os("SNAPHAUL_CACHE") {
        return PathBuf::from(chosen);
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
        .join(".cache/snaphaul")
}

/// Finds a program in `PATH` or the system folders.
///
/// # Errors
/// Where it is missing; the text names the Debian package that has it.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    for folder in folders {
        let candidate = Path::new(folder).join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("`{name}` is missing: run `tests/run`, which installs it, or `apt-get install {package}`")
}

/// A program of this workspace: the one that cargo put beside this program, or beside the tests where this is one.
///
/// # Errors
/// Where it was not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!("`{name}` was not built: run `cargo build --workspace --features mover/testing-s3 --bins`, or `tests/run`")
    })
}

/// Refuses to go on without root, which loop devices and mounts need.
///
/// # Errors
/// For any other user.
pub fn root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("loop devices and mounts need root: run the tests as root")
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// With both outputs where it does not end with 0.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

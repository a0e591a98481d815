//! The product's own image, as a user builds it.
//!
//! Owns: calling `image/build`. Must not: know what is in it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::product::repository_root;
use crate::{part, snaphaul};

/// Builds the archive from the program that is tested, under the name that the manifests give, and says that name and its digest.
///
/// # Errors
/// Where the program was not built or the archive cannot be written.
pub fn build(archive: &Path) -> Result<String> {
    let script = repository_root()?.join("image/build");
    let said = part::run(Command::new(script).arg(snaphaul::binary()?).arg(archive))?;
    Ok(said.trim().to_owned())
}

/// The name alone, as `ctr images list` shows it.
///
/// # Errors
/// Where `said` is not what [`build`] gives.
pub fn name(said: &str) -> Result<&str> {
    said.split(' ').next().context("a name")
}

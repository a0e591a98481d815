//! A build without CSI: refuses what needs it.
//!
//! Owns: the refusal. Must not: do anything else.

use std::path::Path;

use super::args::{BackupArgs, CsiArgs, CsiDriverArgs, RepositoryArgs, RestoreArgs, RunArgs};
use super::run::{Outcome, Run};
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// The volumes that are looked at: none.
#[derive(Debug, Default)]
pub(super) struct HeldVolumes {}

/// Whether a SOURCE or TARGET is meant as a volume of a driver.
pub(super) fn is_meant(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("csi:"))
}

/// The name of the volume; only a person can tell.
pub(super) fn volume_name(flag: Option<&str>, source: &Path) -> Result<String> {
    super::config::volume_name(flag, source)
}

fn refused() -> Result<Outcome> {
    Err(Error::new(
        ErrorKind::InvalidRequest,
        "speak to a CSI driver: this build cannot",
    )
    .hint("build with the feature `csi`, which is on by default"))
}

pub(super) fn run(_: &Run, _: &CsiArgs) -> Result<Outcome> {
    refused()
}

pub(super) fn backup(_: &Run, _: &BackupArgs, _: &RepositoryArgs, _: &RunArgs) -> Result<Outcome> {
    refused()
}

pub(super) fn restore(
    _: &Run,
    _: &RestoreArgs,
    _: &RepositoryArgs,
    _: &RunArgs,
) -> Result<Outcome> {
    refused()
}

pub(super) fn view<'a>(
    _: &'a Path,
    _: &CsiDriverArgs,
    _: &mut HeldVolumes,
    _: &StopFlag,
) -> Result<(Box<dyn SourceDevice>, &'a str)> {
    refused().and(Err(Error::new(
        ErrorKind::Internal,
        "speak to a CSI driver",
    )))
}

//! Which ranges of a source hold data, or changed since another one: what a backup would be told, without a repository.
//!
//! Owns: who is asked, and the sums. Must not: read data, or believe an answer without its end.

use std::time::Instant;

use changed_blocks::{Base, ByteLen, ChangedBlocks, Checked, Extent, SourceError, SourceErrorKind};

use super::progress::StopFlag;
use super::report::ChangedReport;
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct ChangedRequest<'a> {
    /// What is looked at.
    pub source: &'a dyn SourceDevice,
    /// What it is compared with, and how that was named; `None` for everything that is allocated.
    pub base: Option<(&'a dyn SourceDevice, &'a str)>,
    /// Name of the source of changed blocks; the best one where `None`.
    pub who: Option<&'a str>,
}

/// Hands every extent to `sink`, ascending and disjoint. They are worth something only once this returns without an error.
///
/// # Errors
/// `InvalidRequest` where nobody can compare the two, with the reason; `Io` where the answer breaks off; `Interrupted`.
pub fn run(
    request: &ChangedRequest<'_>,
    stop: &StopFlag,
    sink: &mut dyn FnMut(Extent),
) -> Result<ChangedReport> {
    let started = Instant::now();
    let mut blocks = choose(request)?;
    let capabilities = blocks.capabilities();
    if let Some((base, named)) = request.base {
        bind(blocks.as_mut(), base, named).map_err(|error| cannot_compare(request, error))?;
    }
    let mut report = ChangedReport {
        source: request.source.name(),
        base: request.base.map(|(base, _)| base.name()),
        size_bytes: request.source.size(),
        changed_blocks: capabilities.name.to_owned(),
        granularity: capabilities.granularity.0,
        ..ChangedReport::default()
    };
    let mut checked = Checked::new(blocks.as_mut(), ByteLen(request.source.size()));
    let mut take = |extent: Extent| {
        report.extents += 1;
        report.changed_bytes += extent.len.0;
        sink(extent);
        !stop.is_stopped()
    };
    let answer = match request.base {
        Some(_) => checked.delta(&mut take),
        None => checked.allocated(&mut take),
    };
    stop.check()?;
    answer.map_err(|error| broke_off(request, error))?;
    report.duration_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn choose(request: &ChangedRequest<'_>) -> Result<Box<dyn ChangedBlocks + Send>> {
    let mut sources = request.source.delta_sources();
    if request.base.is_none() && request.source.has_hole_map() {
        // Portable, and as good as any map of one file.
        sources.push(request.source.hole_map()?);
    }
    let names: Vec<_> = sources
        .iter()
        .map(|source| source.capabilities().name)
        .collect();
    let wanted = |name: &str| request.who.is_none_or(|who| who == name);
    let found = sources
        .into_iter()
        .find(|source| wanted(source.capabilities().name));
    match found {
        Some(source) => Ok(source),
        None if request.base.is_none() && request.who.is_none() => request.source.hole_map(),
        None => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("find who can say what changed: this source has {}", listed(&names)),
        )
        .object(request.source.name())
        .hint("reflinked files on XFS or btrfs, thin snapshots and RBD snapshots can be compared; of others a backup reads everything")),
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        format!("only {}", names.join(", "))
    }
}

/// Binds to what the base itself says it is, as if a point had recorded it.
fn bind(
    blocks: &mut dyn ChangedBlocks,
    base: &dyn SourceDevice,
    named: &str,
) -> std::result::Result<(), SourceError> {
    let name = blocks.capabilities().name;
    let record = base
        .delta_sources()
        .into_iter()
        .find(|source| source.capabilities().name == name)
        .and_then(|source| source.identity())
        .ok_or_else(|| SourceError::full(format!("{name} cannot name {named} as a base")))?;
    blocks.bind(&Base {
        record: &record,
        point: "the base",
        named: Some(named),
    })
}

fn cannot_compare(request: &ChangedRequest<'_>, error: SourceError) -> Error {
    Error::new(ErrorKind::InvalidRequest, "compare with the base")
        .object(request.source.name())
        .hint("a backup would read everything that is allocated instead")
        .source(error)
}

fn broke_off(request: &ChangedRequest<'_>, error: SourceError) -> Error {
    let kind = match error.kind {
        SourceErrorKind::Retry => ErrorKind::Unavailable,
        SourceErrorKind::FullBackup | SourceErrorKind::GiveUp => ErrorKind::Io,
    };
    Error::new(
        kind,
        "hear to the end what changed: what was printed is not whole",
    )
    .object(request.source.name())
    .source(error)
}

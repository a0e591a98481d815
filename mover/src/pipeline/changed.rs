//! Which ranges of a source hold data, or changed since another one: what a backup would be told, without a repository.
//!
//! Owns: who is asked, and the sums. Must not: read data (`audit` does, on request), or believe an answer without its end.

mod audit;

use std::time::Instant;

use changed_blocks::{Base, ByteLen, ChangedBlocks, Checked, Extent, SourceError, SourceErrorKind};

use super::progress::StopFlag;
use super::report::ChangedReport;
use crate::device::source::{Blocks, DeltaSources, SourceDevice, Unusable};
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
    /// Whether everything is read and held against the answer (rule R14).
    pub audit: bool,
}

/// Hands every extent to `sink`, ascending and disjoint. They are worth something only once this returns without an error.
///
/// # Errors
/// `InvalidRequest` where nobody can compare the two, with the reason, or a state that somebody writes to is to be audited; `Io` where
/// the answer breaks off; `SourceChanged`, `Interrupted`.
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
    let mut sums = (0, 0);
    let mut take = |extent: Extent| {
        sums = (sums.0 + 1, sums.1 + extent.len.0);
        sink(extent);
        !stop.is_stopped()
    };
    if request.audit {
        report.audit = Some(audit::run(request, blocks.as_mut(), stop, &mut take)?);
    } else {
        let mut checked = Checked::new(blocks.as_mut(), ByteLen(request.source.size()));
        let answer = match request.base {
            Some(_) => checked.delta(&mut take),
            None => checked.allocated(&mut take),
        };
        stop.check()?;
        answer.map_err(|error| broke_off(request, error))?;
    }
    (report.extents, report.changed_bytes) = sums;
    report.duration_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn choose(request: &ChangedRequest<'_>) -> Result<Blocks> {
    let DeltaSources {
        found: mut sources,
        unusable,
    } = request.source.delta_sources();
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
            format!(
                "find who can say what changed: this source has {}{}",
                listed(&names),
                why_not(&unusable)
            ),
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

fn why_not(unusable: &[Unusable]) -> String {
    let reasons = unusable
        .iter()
        .map(|one| format!("; {} cannot be asked: {}", one.name, one.reason));
    reasons.collect()
}

/// Binds to what the base itself says it is, as if a point had recorded it.
fn bind(
    blocks: &mut dyn ChangedBlocks,
    base: &dyn SourceDevice,
    named: &str,
) -> std::result::Result<(), SourceError> {
    let name = blocks.capabilities().name;
    let DeltaSources { found, unusable } = base.delta_sources();
    let record = found
        .into_iter()
        .find(|source| source.capabilities().name == name)
        .and_then(|source| source.identity())
        .ok_or_else(|| {
            let why = why_not(&unusable);
            SourceError::full(format!("{name} cannot name {named} as a base{why}"))
        })?;
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

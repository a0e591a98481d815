//! `snaphaul forget`.
//!
//! Owns: flags to policy, the judgement as table and JSON. Must not: judge.

mod table;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::{ForgetArgs, KeepArgs, RepositoryArgs, RunArgs};
use super::config::{self, invalid};
use super::memory;
use super::open;
use super::points;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::pipeline::forget::{self, ForgetRequest, Judged, Selection};
use crate::repository::ids::{Sequence, SessionId};
use crate::repository::retention::{Policy, Span, TagRule};

/// One point, and what became of it. What is unknown because the manifest cannot be read is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct JudgedLine {
    point: String,
    volume: Option<String>,
    created: Option<String>,
    size_bytes: Option<u64>,
    new_bytes: Option<u64>,
    tags: BTreeMap<String, String>,
    status: &'static str,
    /// Why it is kept or forgotten.
    reasons: Vec<String>,
    /// Place in the volume's history.
    #[serde(skip)]
    order: (Sequence, SessionId),
}

#[derive(Debug, Serialize)]
struct ForgetReport {
    /// Whether nothing was changed: `forgotten` is then what would be.
    dry_run: bool,
    forgotten: Vec<JudgedLine>,
    kept: Vec<JudgedLine>,
    /// Points that were named and had been forgotten before.
    already_forgotten: Vec<String>,
}

pub(super) fn run(
    run: &Run,
    args: &ForgetArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let request = ForgetRequest {
        selection: selection(args)?,
        dry_run: args.dry_run,
        now_unix_millis: now_unix_millis(),
    };
    let repository = open::repository(repository, limits, run)?;
    let outcome = forget::run(&repository, &request)?;
    if !args.dry_run {
        let done = outcome.forgotten.iter().map(|judged| judged.key);
        memory::forgot(
            run,
            &repository,
            done.chain(outcome.already.iter().copied()),
        );
    }
    for warning in &outcome.warnings {
        run.warn(warning);
    }
    let report = ForgetReport {
        dry_run: args.dry_run,
        forgotten: outcome.forgotten.iter().map(line).collect(),
        kept: outcome.kept.iter().map(line).collect(),
        already_forgotten: outcome
            .already
            .iter()
            .map(|key| key.point().to_string())
            .collect(),
    };
    // The list is what a dry run is asked for; of a real one it is the summary.
    let text = table::to_text(&report);
    let text = if args.dry_run {
        Text::Answer(text)
    } else {
        Text::Summary(text)
    };
    Ok(Outcome::new(&report, text)?.with_finding(outcome.failure))
}

fn now_unix_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn selection(args: &ForgetArgs) -> Result<Selection> {
    if !args.points.is_empty() {
        return Ok(Selection::Points(args.points.clone()));
    }
    let volume = args
        .volume
        .as_deref()
        .map(|name| config::checked_name("volume", name))
        .transpose()?;
    if !is_given(&args.keep) {
        return Err(invalid("forget points without being told which").hint(
            "name points, or say what to keep, e.g. --keep-daily 7 --keep-weekly 4; --dry-run shows what would happen",
        ));
    }
    Ok(Selection::Policy {
        volume,
        policy: policy(&args.keep)?,
    })
}

fn spans(keep: &KeepArgs) -> [(Span, Option<u32>); 5] {
    [
        (Span::Hour, keep.hourly),
        (Span::Day, keep.daily),
        (Span::Week, keep.weekly),
        (Span::Month, keep.monthly),
        (Span::Year, keep.yearly),
    ]
}

fn is_given(keep: &KeepArgs) -> bool {
    keep.last.is_some()
        || keep.within.is_some()
        || !keep.tags.is_empty()
        || spans(keep).iter().any(|(_, count)| count.is_some())
}

fn policy(keep: &KeepArgs) -> Result<Policy> {
    let policy = Policy {
        last: keep.last.unwrap_or_default(),
        spans: spans(keep)
            .into_iter()
            .filter_map(|(span, count)| Some((span, count?)))
            .collect(),
        within: keep.within,
        tags: keep
            .tags
            .iter()
            .map(|tag| rule(tag))
            .collect::<Result<_>>()?,
    };
    policy.check()?;
    Ok(policy)
}

fn rule(text: &str) -> Result<TagRule> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(invalid(format!("read the tag `{}`", text.escape_debug()))
            .hint("write --keep-tag KEY=VALUE, or --keep-tag KEY for any value"));
    }
    Ok(TagRule {
        key: key.to_owned(),
        value,
    })
}

fn line(judged: &Judged) -> JudgedLine {
    let manifest = judged.point.as_ref().map(|point| &point.manifest);
    JudgedLine {
        point: judged.key.point().to_string(),
        volume: judged.volume.clone(),
        created: manifest.map(|m| units::timestamp_millis(m.taken_unix_millis())),
        size_bytes: manifest.map(|m| m.size),
        new_bytes: manifest.map(|m| m.stats.new),
        tags: manifest.map(|m| m.tags.clone()).unwrap_or_default(),
        status: judged
            .point
            .as_ref()
            .map_or("damaged", |point| points::status(&point.status)),
        reasons: judged.reasons.clone(),
        order: (judged.key.sequence, judged.key.session),
    }
}

#[cfg(test)]
mod tests;

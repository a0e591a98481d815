//! `snaphaul show`.
//!
//! Owns: one manifest for people and scripts. Must not: read more than it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{RepositoryArgs, RunArgs, ShowArgs};
use super::open;
use super::output::table::Table;
use super::points::{damage, status, tags};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::repository::ids::{SessionKey, to_hex};
use crate::repository::session::points::Point;
use crate::repository::session::resolve::resolve;

/// Everything that a manifest records.
#[derive(Debug, Serialize)]
struct ShowReport {
    point: String,
    volume: String,
    sequence: u32,
    parent: Option<String>,
    created: String,
    size_bytes: u64,
    chunk_size_bytes: u32,
    zero_bytes: u64,
    unchanged_bytes: u64,
    deduplicated_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    tags: BTreeMap<String, String>,
    group: Option<String>,
    state: &'static str,
    status: &'static str,
    damage: Option<String>,
    changed_blocks: String,
    changed_blocks_reason: String,
    identity: BTreeMap<String, String>,
    pins: Vec<String>,
    map_depth: u8,
    exact_liveness_age: u32,
    content_hash: String,
    session: String,
    features_read: u64,
    tool: String,
}

pub(super) fn run(
    run: &Run,
    args: &ShowArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let repository = open::repository(repository, limits, run)?;
    let report = report(&resolve(&repository, &args.point)?);
    if let Some(damage) = &report.damage {
        run.warn(format!("point {} is damaged: {damage}", report.point));
    }
    let text = to_text(&report);
    Outcome::new(&report, Text::Answer(text))
}

fn report(point: &Point) -> ShowReport {
    let manifest = &point.manifest;
    let id = |key: &SessionKey| key.point().to_string();
    ShowReport {
        point: point.id().to_string(),
        volume: manifest.volume.clone(),
        sequence: point.key.sequence.0,
        parent: manifest.parent.as_ref().map(id),
        created: units::timestamp_millis(manifest.taken_unix_millis()),
        size_bytes: manifest.size,
        chunk_size_bytes: manifest.chunk_size,
        zero_bytes: manifest.stats.zero,
        unchanged_bytes: manifest.stats.unchanged,
        deduplicated_bytes: manifest.stats.deduplicated,
        new_bytes: manifest.stats.new,
        stored_bytes: manifest.stats.stored,
        tags: manifest.tags.clone(),
        group: manifest.group.clone(),
        state: manifest.state.as_str(),
        status: status(&point.status),
        damage: damage(&point.status),
        changed_blocks: manifest.changed_blocks.clone(),
        changed_blocks_reason: manifest.changed_blocks_reason.clone(),
        identity: manifest.identity.iter().cloned().collect(),
        pins: manifest.pins.iter().map(id).collect(),
        map_depth: manifest.root.depth,
        exact_liveness_age: manifest.exact_liveness_age,
        content_hash: to_hex(&manifest.content_hash),
        session: point.key.to_string(),
        features_read: manifest.features_read,
        tool: manifest.tool.clone(),
    }
}

fn to_text(report: &ShowReport) -> String {
    let or_none = |text: &str| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text.to_owned()
        }
    };
    let mut pairs = vec![
        ("point", report.point.clone()),
        ("volume", report.volume.clone()),
        ("sequence", report.sequence.to_string()),
        (
            "parent",
            or_none(report.parent.as_deref().unwrap_or_default()),
        ),
        ("created", report.created.clone()),
        ("state", report.state.to_owned()),
        ("status", report.status.to_owned()),
        (
            "size",
            format!(
                "{} ({} bytes)",
                units::size(report.size_bytes),
                report.size_bytes
            ),
        ),
        ("  zero", units::size(report.zero_bytes)),
        ("  unchanged", units::size(report.unchanged_bytes)),
        ("  deduplicated", units::size(report.deduplicated_bytes)),
        ("  new", units::size(report.new_bytes)),
        ("stored", units::size(report.stored_bytes)),
        ("chunks", units::size(u64::from(report.chunk_size_bytes))),
        ("tags", or_none(&tags(&report.tags))),
        (
            "group",
            or_none(report.group.as_deref().unwrap_or_default()),
        ),
        (
            "changed blocks",
            format!(
                "{} ({})",
                report.changed_blocks, report.changed_blocks_reason
            ),
        ),
        ("source", or_none(&tags(&report.identity))),
        ("also uses", or_none(&report.pins.join(" "))),
        ("map depth", report.map_depth.to_string()),
        (
            "liveness age",
            format!(
                "{} points since the last exact one",
                report.exact_liveness_age
            ),
        ),
        ("content hash", report.content_hash.clone()),
        ("session", report.session.clone()),
        ("written by", report.tool.clone()),
    ];
    if let Some(damage) = &report.damage {
        pairs.push(("damage", damage.clone()));
    }
    if report.features_read != 0 {
        pairs.push(("needs features", format!("{:#x}", report.features_read)));
    }
    Table::pairs(pairs).to_string()
}

#[cfg(test)]
mod tests;

//! `snaphaul points`.
//!
//! Owns: the list of points for people and scripts. Must not: decide what a point is (`repository::session`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{PointsArgs, RepositoryArgs, RunArgs};
use super::config;
use super::memory;
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::{Error, Result};
use crate::repository::ids::SessionKey;
use crate::repository::session::points::{self, Listing, Point, PointStatus};

/// One point of the list. What is unknown because the manifest cannot be read is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct PointLine {
    point: String,
    volume: Option<String>,
    parent: Option<String>,
    created: Option<String>,
    size_bytes: Option<u64>,
    new_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    tags: BTreeMap<String, String>,
    group: Option<String>,
    /// What is known about the source: `crash`, `application`, `fuzzy`.
    state: Option<&'static str>,
    /// Whether the point can be relied on: `complete`, `forgotten`, `damaged`.
    status: &'static str,
    damage: Option<String>,
}

#[derive(Debug, Serialize)]
struct PointsReport {
    points: Vec<PointLine>,
}

pub(super) fn run(
    run: &Run,
    args: &PointsArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let volume = args
        .volume
        .as_deref()
        .map(|name| config::checked_name("volume", name))
        .transpose()?;
    let repository = open::repository(repository, limits, run)?;
    let id = volume
        .as_deref()
        .map(|name| repository.keys.volume_id(name));
    let listing = points::list(&repository, id)?;
    memory::observe(run, &repository, &listing, id)?;
    let report = PointsReport {
        points: lines(&listing),
    };
    for line in &report.points {
        if let Some(damage) = &line.damage {
            run.warn(format!("point {} is damaged: {damage}", line.point));
        }
    }
    let text = to_text(&report.points);
    Outcome::new(&report, Text::Answer(text))
}

/// Ascending by volume name, then in the order the points were taken; unreadable ones last.
fn lines(listing: &Listing) -> Vec<PointLine> {
    let mut points: Vec<&Point> = listing.points.iter().collect();
    points.sort_by_key(|point| {
        (
            &point.manifest.volume,
            point.key.sequence,
            point.key.session,
        )
    });
    let readable = points.into_iter().map(readable);
    readable
        .chain(
            listing
                .unreadable
                .iter()
                .map(|(key, error)| unreadable(key, error)),
        )
        .collect()
}

fn readable(point: &Point) -> PointLine {
    let manifest = &point.manifest;
    PointLine {
        point: point.id().to_string(),
        volume: Some(manifest.volume.clone()),
        parent: manifest.parent.map(|parent| parent.point().to_string()),
        created: Some(units::timestamp_millis(manifest.taken_unix_millis())),
        size_bytes: Some(manifest.size),
        new_bytes: Some(manifest.stats.new),
        stored_bytes: Some(manifest.stats.stored),
        tags: manifest.tags.clone(),
        group: manifest.group.clone(),
        state: Some(manifest.state.as_str()),
        status: status(&point.status),
        damage: damage(&point.status),
    }
}

fn unreadable(key: &SessionKey, error: &Error) -> PointLine {
    PointLine {
        point: key.point().to_string(),
        status: "damaged",
        damage: Some(error.to_string()),
        ..PointLine::default()
    }
}

/// Whether a point can be relied on, in one word.
pub(super) fn status(status: &PointStatus) -> &'static str {
    match status {
        PointStatus::Complete => "complete",
        PointStatus::Forgotten => "forgotten",
        PointStatus::Damaged(_) => "damaged",
    }
}

/// What is wrong with a damaged point.
pub(super) fn damage(status: &PointStatus) -> Option<String> {
    match status {
        PointStatus::Damaged(why) => Some(why.clone()),
        PointStatus::Complete | PointStatus::Forgotten => None,
    }
}

fn to_text(points: &[PointLine]) -> String {
    if points.is_empty() {
        return "no points".to_owned();
    }
    let mut table = Table::new(&[
        ("POINT", Align::Left),
        ("VOLUME", Align::Left),
        ("CREATED", Align::Left),
        ("SIZE", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("STATE", Align::Left),
        ("TAGS", Align::Left),
    ]);
    for point in points {
        table.row([
            point.point.clone(),
            known(point.volume.clone()),
            known(point.created.clone()),
            known(point.size_bytes.map(units::size)),
            known(point.new_bytes.map(units::size)),
            known(point.stored_bytes.map(units::size)),
            state(point),
            tags(&point.tags),
        ]);
    }
    table.to_string()
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "?".to_owned())
}

/// What is wrong comes before what is known about the source.
fn state(point: &PointLine) -> String {
    match (point.status, point.state) {
        ("complete", Some(state)) => state.to_owned(),
        (status, _) => status.to_owned(),
    }
}

/// Tags as they were given.
pub(super) fn tags(tags: &BTreeMap<String, String>) -> String {
    tags.iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> PointLine {
        PointLine {
            point: "0123456789abcdef-01234567".to_owned(),
            volume: Some("db".to_owned()),
            created: Some("2026-11-21T10:00:00.000Z".to_owned()),
            size_bytes: Some(1 << 30),
            new_bytes: Some(3 << 20),
            stored_bytes: Some(1 << 20),
            tags: BTreeMap::from([
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), String::new()),
            ]),
            state: Some("crash"),
            status: "complete",
            ..PointLine::default()
        }
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let value = serde_json::to_value(PointsReport {
            points: vec![line()],
        })
        .unwrap();
        for field in [
            "point",
            "volume",
            "parent",
            "created",
            "size_bytes",
            "new_bytes",
            "stored_bytes",
            "tags",
            "group",
            "state",
        ] {
            assert!(value["points"][0].get(field).is_some(), "no `{field}`");
        }
        assert_eq!(value["points"][0]["tags"]["a"], "1");
    }

    #[test]
    fn text_is_a_table() {
        let text = to_text(&[
            line(),
            PointLine {
                status: "damaged",
                ..line()
            },
        ]);
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[0].starts_with("POINT                      VOLUME  CREATED"),
            "{text}"
        );
        assert!(
            rows[1].ends_with("1 GiB  3 MiB   1 MiB  crash    a=1 b="),
            "{text}"
        );
        assert!(rows[2].contains("damaged"), "{text}");
        assert_eq!(to_text(&[]), "no points");
    }

    #[test]
    fn a_point_without_a_manifest_is_listed_as_damaged() {
        let key = SessionKey {
            volume: crate::repository::ids::VolumeId([1; 16]),
            sequence: crate::repository::ids::Sequence(4),
            session: crate::repository::ids::SessionId([2; 16]),
        };
        let error =
            Error::new(crate::error::ErrorKind::Corrupt, "read the manifest").object("snap/x");
        let line = lines(&Listing {
            points: Vec::new(),
            unreadable: vec![(key, error)],
        })
        .remove(0);
        assert_eq!(
            (line.point.as_str(), line.status),
            ("0202020202020202-01010101", "damaged")
        );
        assert_eq!(line.damage.as_deref(), Some("read the manifest (snap/x)"));
        assert!(to_text(&[line]).contains('?'));
    }
}

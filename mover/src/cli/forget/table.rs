//! The judgement of a policy for people.
//!
//! Owns: one table a volume, newest point first. Must not: know how it came about.

use std::collections::BTreeMap;

use super::super::output::table::{Align, Table};
use super::super::points::tags;
use super::{ForgetReport, JudgedLine};

/// A point and whether it stays.
type Row<'a> = (bool, &'a JudgedLine);

pub(super) fn to_text(report: &ForgetReport) -> String {
    let mut text = String::new();
    for (volume, rows) in by_volume(report) {
        text.push_str(&format!(
            "volume {}\n{}\n",
            volume,
            table(&rows, report.dry_run)
        ));
    }
    for point in &report.already_forgotten {
        text.push_str(&format!("{point} was forgotten before\n"));
    }
    text.push_str(&summary(report));
    text
}

/// Rows of each volume in the order of its history, newest first.
fn by_volume(report: &ForgetReport) -> BTreeMap<&str, Vec<Row<'_>>> {
    let mut volumes: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
    let rows = report
        .kept
        .iter()
        .map(|line| (true, line))
        .chain(report.forgotten.iter().map(|line| (false, line)));
    for row in rows {
        let volume = row.1.volume.as_deref().unwrap_or("?");
        volumes.entry(volume).or_default().push(row);
    }
    for rows in volumes.values_mut() {
        rows.sort_by_key(|(_, line)| std::cmp::Reverse(line.order));
    }
    volumes
}

fn table(rows: &[Row<'_>], dry_run: bool) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("POINT", Align::Left),
        ("CREATED", Align::Left),
        ("STATUS", Align::Left),
        ("TAGS", Align::Left),
        ("WHY", Align::Left),
    ]);
    for (kept, line) in rows {
        let verdict = match (kept, dry_run) {
            (true, _) => "keep",
            (false, true) => "forget",
            (false, false) => "forgot",
        };
        table.row([
            verdict.to_owned(),
            line.point.clone(),
            line.created.clone().unwrap_or_else(|| "?".to_owned()),
            line.status.to_owned(),
            tags(&line.tags),
            line.reasons.join(", "),
        ]);
    }
    table
}

fn summary(report: &ForgetReport) -> String {
    let points = |count: usize| match count {
        1 => "1 point".to_owned(),
        _ => format!("{count} points"),
    };
    let forgotten = points(report.forgotten.len());
    if report.dry_run {
        return format!(
            "{forgotten} would be forgotten, {} kept; nothing was changed\n",
            report.kept.len()
        );
    }
    let mut text = format!("{forgotten} forgotten");
    if !report.kept.is_empty() {
        text.push_str(&format!(", {} kept", report.kept.len()));
    }
    text.push_str(if report.forgotten.is_empty() {
        "\n"
    } else {
        "; `snaphaul gc` frees the space\n"
    });
    text
}

//! Flags become the policy they say, and the report shows every point with its reasons.

use std::time::Duration;

use clap::Parser as _;

use super::super::args::{Cli, Command};
use super::*;
use crate::error::ErrorKind;

fn args(line: &str) -> std::result::Result<ForgetArgs, clap::Error> {
    let words = ["snaphaul", "forget"]
        .into_iter()
        .chain(line.split_whitespace());
    match Cli::try_parse_from(words)?.command {
        Command::Forget(args) => Ok(args),
        other => panic!("parsed {other:?}"),
    }
}

fn judged(point: &str, volume: &str, order: (u32, u8), why: &str) -> JudgedLine {
    JudgedLine {
        point: point.to_owned(),
        volume: Some(volume.to_owned()),
        created: Some("2026-11-21T10:00:00.000Z".to_owned()),
        size_bytes: Some(1),
        new_bytes: Some(1),
        tags: BTreeMap::new(),
        status: "complete",
        reasons: vec![why.to_owned()],
        order: (Sequence(order.0), SessionId([order.1; 16])),
    }
}

#[test]
fn flags_make_the_policy() {
    let line = "--keep-last 3 --keep-daily 7 --keep-yearly 0 --keep-within 30d --keep-tag a=b=c --keep-tag d";
    let Selection::Policy { volume, policy } = selection(&args(line).unwrap()).unwrap() else {
        panic!("not a policy")
    };
    assert_eq!(volume, None);
    assert_eq!(policy.last, 3);
    assert_eq!(
        policy.spans,
        BTreeMap::from([(Span::Day, 7), (Span::Year, 0)])
    );
    assert_eq!(policy.within, Some(Duration::from_secs(30 * 86_400)));
    let tags: Vec<_> = policy.tags.iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["a=b=c", "d"]);
}

#[test]
fn what_keeps_nothing_or_says_nothing_is_refused() {
    for line in [
        "",
        "--volume a",
        "--keep-last 0",
        "--keep-daily 0 --keep-within 0s",
        "--keep-tag =x",
        "--volume /a --keep-last 1",
    ] {
        let error = selection(&args(line).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{line}");
        assert!(error.hint_text().is_some(), "{line}");
    }
    for line in [
        "abcd --keep-last 1",
        "abcd --volume a",
        "--keep-last -1",
        "--keep-within soon",
    ] {
        assert!(args(line).is_err(), "{line}");
    }
    let named = selection(&args("abcd a@latest").unwrap()).unwrap();
    assert_eq!(
        named,
        Selection::Points(vec!["abcd".into(), "a@latest".into()])
    );
}

#[test]
fn the_table_is_grouped_by_volume_and_newest_first() {
    let report = ForgetReport {
        dry_run: true,
        forgotten: vec![judged("old", "a", (1, 0), "not of the last 1")],
        kept: vec![
            judged("new", "a", (2, 0), "last 1"),
            judged("only", "b", (1, 0), "newest of the volume"),
        ],
        already_forgotten: vec!["gone".to_owned()],
    };
    let text = table::to_text(&report);
    let places: Vec<_> = [
        "volume a",
        "keep    new",
        "forget  old",
        "not of the last 1",
        "volume b",
        "keep  only",
        "gone was forgotten before",
        "1 point would be forgotten, 2 kept; nothing was changed",
    ]
    .into_iter()
    .map(|words| {
        text.find(words)
            .unwrap_or_else(|| panic!("no `{words}` in\n{text}"))
    })
    .collect();
    assert!(places.is_sorted(), "{text}");
    let done = table::to_text(&ForgetReport {
        dry_run: false,
        ..report
    });
    assert!(
        done.contains("forgot") && done.contains("gc` frees"),
        "{done}"
    );
}

#[test]
fn json_has_the_fields_of_the_contract() {
    let report = ForgetReport {
        dry_run: false,
        forgotten: vec![judged("a", "v", (1, 0), "why")],
        kept: Vec::new(),
        already_forgotten: Vec::new(),
    };
    let value = serde_json::to_value(report).unwrap();
    assert_eq!(value["forgotten"][0]["reasons"][0], "why");
    assert!(value["forgotten"][0].get("order").is_none());
    assert!(value["kept"].is_array() && value["dry_run"] == false);
}

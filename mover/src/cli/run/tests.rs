//! Results in text and JSON, and the exit code that goes with them.

use super::*;
use crate::cli::output::OutputMode;
use crate::cli::output::tests::captured;
use crate::pipeline::report::{BackupReport, LostRange, RestoreReport, VerifyReport};

const JSON: OutputMode = OutputMode {
    json: true,
    quiet: false,
    stdout_is_data: false,
};

fn reported(mode: OutputMode, outcome: Outcome) -> (Exit, String, String) {
    let (output, out, err) = captured(mode);
    let exit = report(&output, outcome);
    (exit, out.text(), err.text())
}

fn json(outcome: Outcome) -> Value {
    let (_, out, _) = reported(JSON, outcome);
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

fn backup() -> BackupReport {
    BackupReport {
        point: "ab".to_owned(),
        size_bytes: 7,
        ..BackupReport::default()
    }
}

#[test]
fn a_result_has_the_fields_of_the_report_at_the_top() {
    let line = json(Outcome::new(&backup(), Text::None).unwrap());
    assert_eq!(
        (&line["type"], &line["ok"], &line["exit_code"]),
        (&"result".into(), &true.into(), &0.into())
    );
    assert!(line["error"].is_null());
    for field in [
        "point",
        "volume",
        "parent",
        "size_bytes",
        "read_bytes",
        "zero_bytes",
        "unchanged_bytes",
        "deduplicated_bytes",
        "new_bytes",
        "stored_bytes",
        "resumed_bytes",
        "sampled_bytes",
        "put_requests",
        "changed_blocks",
        "changed_blocks_reason",
        "warnings",
        "duration_seconds",
    ] {
        assert!(line.get(field).is_some(), "backup has no `{field}`");
    }
}

#[test]
fn the_other_reports_have_their_fields() {
    let restore = json(Outcome::new(&RestoreReport::default(), Text::None).unwrap());
    for field in [
        "point",
        "target",
        "size_bytes",
        "written_bytes",
        "zero_bytes",
        "skipped_bytes",
        "duration_seconds",
    ] {
        assert!(restore.get(field).is_some(), "restore has no `{field}`");
    }
    let verify = json(Outcome::new(&VerifyReport::default(), Text::None).unwrap());
    assert!(verify["errors"].is_array());
}

#[test]
fn a_failure_is_a_result_too() {
    let error = Error::new(ErrorKind::WrongKey, "open the repository")
        .object("/r")
        .hint("try another");
    let outcome = Outcome {
        finding: Some(error),
        ..Outcome::default()
    };
    let (exit, out, err) = reported(JSON, outcome);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exit, Exit::Usage);
    assert_eq!(
        (&line["ok"], &line["exit_code"]),
        (&false.into(), &64.into())
    );
    assert_eq!(line["error"]["kind"], "wrong-key");
    assert_eq!(line["error"]["hint"], "try another");
    assert!(
        err.starts_with("error: open the repository (/r)\n"),
        "{err}"
    );
}

#[test]
fn findings_keep_the_report_and_exit_with_65() {
    let lost = LostRange {
        offset: 4,
        length: 5,
        why: "gone".to_owned(),
    };
    let report = RestoreReport {
        lost: vec![lost],
        ..RestoreReport::default()
    };
    let finding = Error::new(ErrorKind::Corrupt, "restore everything");
    let outcome = Outcome::new(&report, Text::Summary("lost".to_owned()))
        .unwrap()
        .with_finding(Some(finding));
    let line = json(outcome);
    assert_eq!(
        (&line["exit_code"], &line["lost"][0]["length"]),
        (&65.into(), &5.into())
    );
}

#[test]
fn quiet_keeps_answers_and_drops_summaries() {
    let quiet = OutputMode {
        quiet: true,
        ..OutputMode::default()
    };
    let outcome = |text| Outcome::new(&backup(), text).unwrap();
    assert_eq!(
        reported(quiet, outcome(Text::Summary("sum".to_owned()))).1,
        ""
    );
    assert_eq!(
        reported(quiet, outcome(Text::Answer("list".to_owned()))).1,
        "list\n"
    );
    assert_eq!(
        reported(
            OutputMode::default(),
            outcome(Text::Summary("sum".to_owned()))
        )
        .1,
        "sum\n"
    );
}

#[test]
fn a_report_must_be_a_record() {
    assert_eq!(
        Outcome::new(&5, Text::None).unwrap_err().kind(),
        ErrorKind::Internal
    );
}

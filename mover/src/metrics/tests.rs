//! The text is what a collector expects, and README lists every name.

use std::collections::BTreeSet;

use super::*;
use crate::pipeline::report::{LostRange, VerifyFinding};

fn filled() -> RunMetrics {
    let metrics = RunMetrics::new();
    metrics.observe_backup(&BackupReport {
        size_bytes: 100,
        new_bytes: 7,
        resumed_bytes: 3,
        ..BackupReport::default()
    });
    metrics.observe_store(&RequestCounts {
        put: 5,
        get_bytes: 9,
        ..RequestCounts::default()
    });
    metrics.observe_warnings(2);
    metrics.observe_gc(&GcReport {
        points_purged: 3,
        freed_bytes: 12,
        ..GcReport::default()
    });
    metrics.observe_engine(Some("threads"));
    metrics.observe_end(
        "backup",
        69,
        UNIX_EPOCH + Duration::from_secs(5),
        Duration::from_millis(1500),
    );
    metrics
}

fn names(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn values_are_in_the_text() {
    let text = filled().to_text().unwrap();
    for line in [
        "snaphaul_run_exit_code{command=\"backup\"} 69",
        "snaphaul_run_end_timestamp_seconds 5",
        "snaphaul_run_duration_seconds 1.5",
        "snaphaul_run_data_bytes{kind=\"new\"} 7",
        "snaphaul_run_data_bytes{kind=\"zero\"} 0",
        "snaphaul_volume_size_bytes 100",
        "snaphaul_backup_resumed_bytes 3",
        "snaphaul_store_requests_count{operation=\"put\"} 5",
        "snaphaul_store_transferred_bytes{direction=\"received\"} 9",
        "snaphaul_run_warnings_count 2",
        "snaphaul_gc_objects_count{kind=\"points\"} 3",
        "snaphaul_gc_data_bytes{kind=\"freed\"} 12",
        "snaphaul_io_engine_info{engine=\"threads\"} 1",
        "snaphaul_io_engine_info{engine=\"io_uring\"} 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line `{line}` in\n{text}"
        );
    }
}

#[test]
fn a_failed_run_shows_how_far_it_came() {
    let metrics = RunMetrics::new();
    let progress = Progress::default();
    Progress::add(&progress.done, 11);
    metrics.observe_progress(&progress);
    let text = metrics.to_text().unwrap();
    assert!(
        text.contains("\nsnaphaul_run_data_bytes{kind=\"done\"} 11\n"),
        "{text}"
    );
}

#[test]
fn restore_and_verify_have_their_own_values() {
    let metrics = RunMetrics::new();
    let lost = |length| LostRange {
        offset: 0,
        length,
        why: String::new(),
    };
    metrics.observe_restore(&RestoreReport {
        lost: vec![lost(3), lost(4)],
        written_bytes: 8,
        ..RestoreReport::default()
    });
    let finding = VerifyFinding {
        message: "gone".to_owned(),
        kind: "missing".to_owned(),
        object: "seg".to_owned(),
        volume: None,
        points: Vec::new(),
        ranges: Vec::new(),
    };
    metrics.observe_verify(&VerifyReport {
        points: 4,
        errors: vec![finding],
        ..VerifyReport::default()
    });
    let text = metrics.to_text().unwrap();
    assert!(text.contains("\nsnaphaul_restore_lost_bytes 7\n"), "{text}");
    assert!(
        text.contains("\nsnaphaul_verify_findings_count 1\n"),
        "{text}"
    );
    assert!(
        text.contains("\nsnaphaul_verify_points_count 4\n"),
        "{text}"
    );
}

#[test]
fn names_end_with_their_unit() {
    for name in names(&filled().to_text().unwrap()) {
        assert!(name.starts_with("snaphaul_"), "{name}");
        assert!(
            ["_bytes", "_seconds", "_count", "_code", "_info"]
                .iter()
                .any(|unit| name.ends_with(unit)),
            "{name}"
        );
    }
}

#[test]
fn readme_lists_every_metric_and_no_other() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let listed: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `snaphaul_"))
        .filter_map(|line| line.split(['`', '{']).next())
        .map(|name| format!("snaphaul_{name}"))
        .collect();
    assert_eq!(listed, names(&filled().to_text().unwrap()));
}

#[test]
fn peak_memory_is_known_on_linux() {
    assert!(peak_memory_bytes().unwrap() > 1 << 20);
}

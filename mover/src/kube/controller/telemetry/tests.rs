use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::kube::api::repository::MaintenanceRun;
use crate::metrics::register::{documented, known};
use crate::pipeline::report::GcReport;

fn volume(claim: &str) -> Volume {
    Volume {
        namespace: "ns".to_owned(),
        claim: claim.to_owned(),
        repository: "r".to_owned(),
    }
}

#[test]
fn what_can_happen_is_there_from_the_start() {
    let text = Telemetry::new().metrics().unwrap();
    for line in [
        "snaphaul_controller_leader 0",
        "snaphaul_controller_finished_total{kind=\"PodVolumeRestore\",phase=\"Canceled\"} 0",
        "snaphaul_controller_deadlines_missed_total{deadline=\"progress\",kind=\"PodVolumeBackup\"} 0",
        "snaphaul_controller_maintenance_runs_total{result=\"failed\",task=\"verify\"} 0",
        "snaphaul_controller_swept_total{kind=\"base\"} 0",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}

#[test]
fn gauges_of_a_volume_go_with_it() {
    let telemetry = Telemetry::new();
    let state = |new| VolumeState {
        new: Some(new),
        bases: Some((1, None)),
        ..VolumeState::default()
    };
    telemetry.volume(&volume("a"), state(7));
    telemetry.volumes([
        (volume("a"), VolumeState::default()),
        (volume("b"), state(8)),
    ]);
    let text = telemetry.metrics().unwrap();
    let line = |claim: &str, value: &str| {
        format!(
            "volume_last_point_new_bytes{{namespace=\"ns\",persistentvolumeclaim=\"{claim}\",repository=\"r\"}} {value}"
        )
    };
    assert!(
        text.contains(&line("a", "7")) && text.contains(&line("b", "8")),
        "{text}"
    );
    telemetry.volumes([(volume("b"), VolumeState::default())]);
    let text = telemetry.metrics().unwrap();
    assert!(
        !text.contains("\"a\"") && text.contains(&line("b", "8")),
        "{text}"
    );
    telemetry.volumes([]);
    assert!(
        !telemetry
            .metrics()
            .unwrap()
            .contains("persistentvolumeclaim")
    );
}

#[test]
fn metrics_of_a_repository_go_with_it() {
    let telemetry = Telemetry::new();
    let status = SnapshotRepositoryStatus {
        points: Some(3),
        last_gc: Some(MaintenanceRun {
            failures: 2,
            ..MaintenanceRun::began(Timestamp::UNIX_EPOCH)
        }),
        ..SnapshotRepositoryStatus::default()
    };
    telemetry.repository("store", true, &status);
    let report = GcReport {
        freed_bytes: 9,
        ..GcReport::default()
    };
    telemetry.maintained("store", Task::Gc, &Ok(Done::Gc(report)), Duration::ZERO);
    let text = telemetry.metrics().unwrap();
    for line in [
        "repository_ready{repository=\"store\"} 1",
        "repository_maintenance_failures{repository=\"store\",task=\"gc\"} 2",
        "repository_gc_freed_bytes_total{repository=\"store\"} 9",
        "maintenance_runs_total{result=\"ok\",task=\"gc\"} 1",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    assert!(
        !text.contains("repository_healthy{"),
        "nothing is known: {text}"
    );
    telemetry.synced("store", &Ok(Synced::default()));
    telemetry.forget_repository("store");
    assert!(
        !telemetry.metrics().unwrap().contains("\"store\""),
        "{text}"
    );
}

/// All that can be known of one volume and one repository.
fn filled() -> Telemetry {
    let telemetry = Telemetry::new();
    let now = || Some(Time(Timestamp::UNIX_EPOCH));
    let state = VolumeState {
        success: now(),
        point: now(),
        size: Some(1),
        new: Some(1),
        bases: Some((1, now())),
    };
    telemetry.volume(&volume("a"), state);
    let run = MaintenanceRun {
        completed: now(),
        findings: Some(0),
        ..MaintenanceRun::began(Timestamp::UNIX_EPOCH)
    };
    let mut status = SnapshotRepositoryStatus {
        points: Some(1),
        last_gc: Some(run.clone()),
        last_verify: Some(run),
        unfinished_sessions: Some(0),
        dead_bytes: Some(0),
        ..SnapshotRepositoryStatus::default()
    };
    crate::kube::controller::conditions::set(
        &mut status.conditions,
        crate::kube::api::conditions::HEALTHY,
        (
            crate::kube::controller::conditions::Is::True,
            crate::kube::api::conditions::Reason::Verified,
        ),
        "",
        (Timestamp::UNIX_EPOCH, None),
    );
    telemetry.repository("store", true, &status);
    telemetry.synced("store", &Ok(Synced::default()));
    telemetry
}

#[test]
fn every_metric_is_documented_with_its_labels_and_no_other() {
    assert_eq!(
        documented("snaphaul_controller_"),
        known(&filled().registry)
    );
}

#[test]
fn alerts_are_about_metrics_that_there_are() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../manifests/prometheus/alerts.yaml"
    );
    let rules = std::fs::read_to_string(path).unwrap();
    let documented: Vec<String> = ["snaphaul_controller_", "snaphaul_agent_"]
        .into_iter()
        .flat_map(documented)
        .collect();
    let mut seen = 0;
    for line in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
    {
        for (at, _) in line.match_indices("snaphaul_") {
            let name: String = line[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let is_known = documented
                .iter()
                .any(|row| row.split('{').next() == Some(&name));
            assert!(is_known, "{name} in {line}");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

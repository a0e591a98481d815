use super::*;
use crate::kube::api::repository::MaintenanceRun;
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
            ..MaintenanceRun::began(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)
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
    telemetry.forget_repository("store");
    assert!(
        !telemetry.metrics().unwrap().contains("\"store\""),
        "{text}"
    );
}

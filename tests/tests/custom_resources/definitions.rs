//! The definitions as they are served: defaults, descriptions, selectors, and that our types can read what they admit.

use anyhow::{Context, Result, ensure};
use mover::kube::api::{PodVolumeBackup, PodVolumeRestore, SnapshotRepository};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tests::cluster::Cluster;

use super::objects::{BACKUP, RESTORE, backup, repository, restore};
use super::{manifests, text};

/// Applying twice changes nothing: no field is defaulted or normalised behind the back of the manifests.
pub(super) fn the_base_applies_and_stays_as_it_is(cluster: &Cluster) -> Result<()> {
    let base = manifests().join("base");
    let base = text(&base)?;
    cluster.kubectl(&["diff", "--server-side", "-k", base])?;
    let answer = cluster.kubectl(&["apply", "--server-side", "--dry-run=server", "-k", base])?;
    for kind in [
        "daemonset",
        "deployment",
        "validatingadmissionpolicy",
        "customresourcedefinition",
    ] {
        ensure!(answer.contains(kind), "no {kind} in the base:\n{answer}");
    }
    let level = cluster.kubectl(&[
        "get",
        "namespace",
        "snaphaul-system",
        r"--output=jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}",
    ])?;
    ensure!(level == "privileged", "{level}");
    Ok(())
}

/// As the API server publishes it, and as `kubectl explain` prints it.
pub(super) fn every_field_is_explained(cluster: &Cluster) -> Result<()> {
    let published = cluster.kubectl(&["get", "--raw=/openapi/v3/apis/snaphaul.dev/v1alpha1"])?;
    let published: Value = serde_json::from_str(&published)?;
    for kind in ["PodVolumeBackup", "PodVolumeRestore", "SnapshotRepository"] {
        let schema = &published["components"]["schemas"][format!("dev.snaphaul.v1alpha1.{kind}")];
        let mut count = 0;
        for part in ["spec", "status"] {
            explained(
                &format!("{kind}.{part}"),
                &schema["properties"][part],
                &mut count,
            )?;
        }
        ensure!(count > 25, "{kind} has {count} fields only");
        for path in [
            kind.to_owned(),
            format!("{kind}.spec"),
            format!("{kind}.status"),
        ] {
            let page =
                cluster.kubectl(&["explain", "--api-version=snaphaul.dev/v1alpha1", &path])?;
            ensure!(
                page.contains("FIELDS") && !page.contains("<no description>"),
                "{page}"
            );
        }
    }
    let page = cluster.kubectl(&[
        "explain",
        "--api-version=snaphaul.dev/v1alpha1",
        "podvolumebackup.spec.deletionPolicy",
    ])?;
    ensure!(
        page.contains("- Retain: Nothing: the point stays restorable."),
        "{page}"
    );
    Ok(())
}

fn explained(path: &str, schema: &Value, count: &mut usize) -> Result<()> {
    let words = schema["description"].as_str().unwrap_or_default();
    ensure!(words.len() > 8, "{path} is described by {words:?}");
    *count += 1;
    let inner = if schema["type"] == "array" {
        &schema["items"]
    } else {
        schema
    };
    for (name, field) in inner["properties"].as_object().into_iter().flatten() {
        explained(&format!("{path}.{name}"), field, count)?;
    }
    Ok(())
}

pub(super) fn defaults_appear(cluster: &Cluster) -> Result<()> {
    cluster.namespace("defaults", &[])?;
    cluster.apply(&backup("defaults", "one", BACKUP))?;
    cluster.apply(&restore("defaults", "one", RESTORE))?;
    cluster.apply(&repository(
        "defaults",
        "directory: {path: /backups}, unencrypted: true",
    ))?;
    for (kind, path, expected) in [
        ("podvolumebackups", ".spec.parentPolicy", "Auto"),
        ("podvolumebackups", ".spec.changedBlocksPolicy", "Auto"),
        ("podvolumebackups", ".spec.attachStrategy", "Auto"),
        ("podvolumebackups", ".spec.baseSnapshotPolicy", "Auto"),
        ("podvolumebackups", ".spec.deletionPolicy", "Retain"),
        ("podvolumerestores", ".spec.mode", "NewClaim"),
        ("podvolumerestores", ".spec.attachStrategy", "Auto"),
        ("snapshotrepositories", ".spec.sync", "None"),
        (
            "snapshotrepositories",
            ".spec.maintenance.gcInterval",
            "24h",
        ),
        (
            "snapshotrepositories",
            ".spec.maintenance.verifyInterval",
            "24h",
        ),
        (
            "snapshotrepositories",
            ".spec.maintenance.verifyLevel",
            "Sample",
        ),
        (
            "snapshotrepositories",
            ".spec.maintenance.verifySamplePercent",
            "1",
        ),
    ] {
        let name = if kind == "snapshotrepositories" {
            "defaults"
        } else {
            "one"
        };
        let value = cluster.kubectl(&[
            "get",
            &format!("{kind}.snaphaul.dev"),
            name,
            "--namespace=defaults",
            &format!("--output=jsonpath={{{path}}}"),
        ])?;
        ensure!(value == expected, "{kind} {path} is {value:?}");
    }
    Ok(())
}

/// Agents watch by node; people look by phase.
pub(super) fn fields_select(cluster: &Cluster) -> Result<()> {
    cluster.namespace("selection", &[])?;
    for (kind, object) in [
        (
            "podvolumebackups.snaphaul.dev",
            backup as fn(&str, &str, &str) -> String,
        ),
        ("podvolumerestores.snaphaul.dev", restore),
    ] {
        let spec = if kind.contains("backup") {
            BACKUP
        } else {
            RESTORE
        };
        for (name, node, phase) in [
            ("a", "one", "Prepared"),
            ("b", "two", "Prepared"),
            ("c", "two", "Failed"),
        ] {
            cluster.apply(&object("selection", name, spec))?;
            let status = format!(r#"{{"status": {{"node": "{node}", "phase": "{phase}"}}}}"#);
            let target = [kind, name, "--namespace=selection", "--patch", &status];
            let patch = ["patch", "--subresource=status", "--type=merge"];
            cluster.kubectl(&[&patch[..], &target].concat())?;
        }
        for (selector, expected) in [
            ("status.node=two", "b c"),
            ("status.phase=Prepared", "a b"),
            ("status.node=two,status.phase=Failed", "c"),
            ("status.node=three", ""),
        ] {
            let names = cluster.kubectl(&[
                "get",
                kind,
                "--namespace=selection",
                &format!("--field-selector={selector}"),
                "--output=jsonpath={.items[*].metadata.name}",
            ])?;
            ensure!(names == expected, "{kind} {selector}: {names:?}");
        }
    }
    Ok(())
}

/// One object that our types cannot read would make a watch fail for all of them: whatever spelling the API server takes, they take.
pub(super) fn what_is_admitted_can_be_read(cluster: &Cluster) -> Result<()> {
    cluster.namespace("spellings", &[])?;
    let mut admitted = 0;
    for (index, spec) in spellings().iter().enumerate() {
        let name = format!("number-{index}");
        if cluster.apply(&restore("spellings", &name, spec)).is_ok() {
            admitted += 1;
            read::<PodVolumeRestore>(cluster, "podvolumerestores", &name)
                .with_context(|| format!("admitted, but not read: {spec}"))?;
        }
    }
    ensure!(admitted >= 12, "only {admitted} were admitted");
    for (index, more) in [
        "ttlSecondsAfterFinished: 1.0",
        "activeDeadlineSeconds: 1e3",
        "cancel: false",
        "parentPolicy: null",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("number-{index}");
        cluster.apply(&backup("spellings", &name, &format!("{BACKUP}, {more}")))?;
        read::<PodVolumeBackup>(cluster, "podvolumebackups", &name).context(*more)?;
    }
    let spec = "s3: {bucket: backups}, encryptionSecretRef: {name: key}, \
         allowedNamespaces: {matchExpressions: [{key: a, operator: Exists}]}, grants: [{from: {namespace: a}, to: [b]}], \
         maintenance: {verifySamplePercent: 1.0, gcInterval: 90m}";
    cluster.apply(&repository("spellings", spec))?;
    read::<SnapshotRepository>(cluster, "snapshotrepositories", "spellings")
}

fn spellings() -> Vec<String> {
    let source = "source: {backupName: one}, target: {name: data";
    let mut all: Vec<String> = [
        "10Gi",
        "1",
        "1073741824",
        "'1.5Gi'",
        "'1e3'",
        "1E9",
        "'.5Gi'",
        "+1Gi",
        "100m",
        "1e30",
    ]
    .iter()
    .map(|size| format!("{source}, resources: {{requests: {{storage: {size}}}}}}}"))
    .collect();
    let times = [
        "2026-01-31T06:00:00Z",
        "2026-01-31T06:00:00.123456789+14:00",
        "2026-01-31T06:00:00-00:00",
        "2026-01-31t06:00:00z",
        "2026-01-31T06:00:00",
        "2026-01-31T06:00:00x5Z",
        "2026-01-31T06:00Z",
        "2026-02-31T06:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T23:59:60Z",
        "2026-01-31T23:59:61Z",
        "2026-01-31T06:00:00+99:99",
        "2026-01-31T06:00:00.1234567890123Z",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "2026-01-31 06:00:00Z",
        "2026-01-31",
    ];
    all.extend(times.iter().map(|time| {
        format!("source: {{volume: {{claimName: data, asOf: '{time}'}}}}, repositoryRef: {{name: a}}, target: {{name: data}}")
    }));
    all.push(format!(
        "{source}, labels: {{a: b}}, annotations: {{}}, volumeMode: null, accessModes: null}}"
    ));
    all.push(
        "source: {backupName: one, pointID: null, volume: null}, target: {name: data}, mode: null"
            .to_owned(),
    );
    all
}

fn read<T: DeserializeOwned>(cluster: &Cluster, kind: &str, name: &str) -> Result<()> {
    let kind = format!("{kind}.snaphaul.dev");
    let answer =
        cluster.kubectl(&["get", &kind, name, "--namespace=spellings", "--output=json"])?;
    serde_json::from_str::<T>(&answer)?;
    Ok(())
}

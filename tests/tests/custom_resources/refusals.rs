//! What the definitions refuse, with the words that a person reads.

use anyhow::{Context, Result, ensure};
use tests::cluster::Cluster;

use super::objects::{BACKUP, REPOSITORY, RESTORE, backup, repository, restore};
use super::refused;

const CLAIM: &str = "source: {persistentVolumeClaim: {name: data}}";
const ONE_SOURCE: &str = "exactly one of persistentVolumeClaim, pod and volumeSnapshot must be set";
const ONE_POINT: &str = "exactly one of backupName, pointID and volume must be set";
const AS_IT_IS: &str = "InPlace and Replace take the claim as it is: only target.name can be set";
const CHANGED_BACKUP: &str =
    "only cancel, deletionPolicy and ttlSecondsAfterFinished can be changed";
const CHANGED_RESTORE: &str = "only cancel and ttlSecondsAfterFinished can be changed";

/// Specs of backups and what is said of them.
fn backups() -> Vec<(String, &'static str)> {
    let with = |more: &str| format!("{BACKUP}, {more}");
    let sources = |sources: &str| format!("source: {{{sources}}}, repositoryRef: {{name: a}}");
    vec![
        (
            sources("persistentVolumeClaim: {name: a}, volumeSnapshot: {name: b}"),
            ONE_SOURCE,
        ),
        (
            sources("pod: {name: a, volume: b}, volumeSnapshot: {name: b}"),
            ONE_SOURCE,
        ),
        (sources(""), ONE_SOURCE),
        (
            sources("persistentVolumeClaim: {name: a}, pod: null"),
            "spec.source.pod in body must be of type object",
        ),
        (
            "repositoryRef: {name: a}".to_owned(),
            "spec.source: Required value",
        ),
        (CLAIM.to_owned(), "spec.repositoryRef: Required value"),
        (
            sources("pod: {name: a}"),
            "spec.source.pod.volume: Required value",
        ),
        (
            sources("persistentVolumeClaim: {name: ''}"),
            "should be at least 1 chars long",
        ),
        (
            sources("persistentVolumeClaim: {name: a, namespace: b}"),
            "namespace",
        ),
        (
            format!("{CLAIM}, repositoryRef: {{name: a, namespace: b}}"),
            "namespace",
        ),
        (
            with("parentPolicy: Sometimes"),
            "supported values: \"Auto\", \"None\"",
        ),
        (
            with("deletionPolicy: Keep"),
            "supported values: \"Retain\", \"Delete\"",
        ),
        (
            with("attachStrategy: csi"),
            "supported values: \"Auto\", \"Pod\", \"CSI\", \"Direct\"",
        ),
        (
            with("activeDeadlineSeconds: 0"),
            "should be greater than or equal to 1",
        ),
        (
            with("ttlSecondsAfterFinished: -1"),
            "should be greater than or equal to 0",
        ),
        (
            with("ttlSecondsAfterFinished: 1e30"),
            "spec.ttlSecondsAfterFinished",
        ),
        (
            with("activeDeadlineSeconds: 1.5"),
            "spec.activeDeadlineSeconds",
        ),
    ]
}

/// The same of restores.
fn restores() -> Vec<(String, &'static str)> {
    let with = |more: &str| format!("{RESTORE}, {more}");
    let of = |source: &str| {
        format!("source: {{{source}}}, repositoryRef: {{name: a}}, target: {{name: data}}")
    };
    let into =
        |target: &str| format!("source: {{backupName: one}}, target: {{name: data, {target}}}");
    let needs_repository = "repositoryRef is needed unless the source is a backupName";
    vec![
        (of("backupName: a, pointID: '0123abcd'"), ONE_POINT),
        (of("pointID: '0123abcd', volume: {claimName: a}"), ONE_POINT),
        (of(""), ONE_POINT),
        (
            "source: {pointID: '0123abcd'}, target: {name: data}".to_owned(),
            needs_repository,
        ),
        (
            "source: {volume: {claimName: a}}, target: {name: data}".to_owned(),
            needs_repository,
        ),
        (
            of("pointID: NOT-HEX"),
            "should match '^[0-9a-f]+(-[0-9a-f]*)?$'",
        ),
        (
            of("volume: {claimName: a, asOf: yesterday}"),
            "must be of type date-time",
        ),
        (
            "source: {backupName: one}".to_owned(),
            "spec.target: Required value",
        ),
        (
            with("mode: Overwrite"),
            "supported values: \"NewClaim\", \"InPlace\", \"Replace\"",
        ),
        (
            format!("{}, mode: InPlace", into("storageClassName: fast")),
            AS_IT_IS,
        ),
        (
            format!(
                "{}, mode: Replace",
                into("resources: {requests: {storage: 1Gi}}")
            ),
            AS_IT_IS,
        ),
        (
            format!("{}, mode: Replace", into("volumeMode: Block")),
            AS_IT_IS,
        ),
        (
            format!("{}, mode: InPlace", into("accessModes: [ReadWriteOnce]")),
            AS_IT_IS,
        ),
        (into("namespace: elsewhere"), "namespace"),
    ]
    .into_iter()
    .chain(targets())
    .collect()
}

/// The same of the claims that they ask for.
fn targets() -> Vec<(String, &'static str)> {
    let into =
        |target: &str| format!("source: {{backupName: one}}, target: {{name: data, {target}}}");
    let no_size = "storage must be a size above 0, e.g. 10Gi";
    vec![
        (
            into("accessModes: [Sometimes]"),
            "ReadWriteOnce|ReadOnlyMany|ReadWriteMany|ReadWriteOncePod",
        ),
        (into("accessModes: []"), "should have at least 1 items"),
        (
            into("volumeMode: Raw"),
            "supported values: \"Block\", \"Filesystem\"",
        ),
        (into("resources: {requests: {storage: '0'}}"), no_size),
        (into("resources: {requests: {storage: 0}}"), no_size),
        (into("resources: {requests: {storage: -1Gi}}"), no_size),
        (
            into("resources: {requests: {storage: much}}"),
            "spec.target.resources.requests.storage",
        ),
    ]
}

/// The same of repositories.
fn repositories() -> Vec<(String, &'static str)> {
    let s3 =
        |more: &str| format!("s3: {{bucket: backups, {more}}}, encryptionSecretRef: {{name: key}}");
    let directory = |path: &str| format!("directory: {{path: '{path}'}}, unencrypted: true");
    let with = |more: &str| format!("{REPOSITORY}, {more}");
    let one_place = "exactly one of s3 and directory must be set";
    let key = "name the secret with the key in encryptionSecretRef, or set unencrypted: true";
    let endpoint = "should match '^https?://[^@]+$'";
    let prefix = "prefix must be without slashes at its ends and without empty, '.' and '..' parts";
    vec![
        (with("directory: {path: /backups}"), one_place),
        ("encryptionSecretRef: {name: key}".to_owned(), one_place),
        ("s3: {bucket: backups}".to_owned(), key),
        ("s3: {bucket: backups}, unencrypted: false".to_owned(), key),
        (with("unencrypted: true"), key),
        (s3("endpoint: 'https://user:secret@minio:9000'"), endpoint),
        (s3("endpoint: 'minio:9000'"), endpoint),
        (s3("prefix: a/"), prefix),
        (s3("prefix: /a"), prefix),
        (s3("prefix: a/../b"), prefix),
        (s3("prefix: ''"), prefix),
        (
            s3("caBundle: certificate"),
            "caBundle must hold certificates as PEM",
        ),
        (
            "s3: {bucket: Not_A_Bucket}, encryptionSecretRef: {name: key}".to_owned(),
            "spec.s3.bucket",
        ),
        (directory("backups"), "should match '^/[^/]'"),
        (directory("/a/../b"), "the path must not contain '..'"),
        (
            with("sync: Some"),
            "supported values: \"None\", \"Latest\", \"All\"",
        ),
        (
            with("maintenance: {verifySamplePercent: 101}"),
            "should be less than or equal to 100",
        ),
        (
            with("maintenance: {verifySamplePercent: 0}"),
            "should be greater than or equal to 1",
        ),
        (
            with("maintenance: {gcInterval: 1w}"),
            "spec.maintenance.gcInterval",
        ),
        (
            with("maintenance: {verifyInterval: '-1h'}"),
            "spec.maintenance.verifyInterval",
        ),
        (
            with("maintenance: {verifyLevel: Deep}"),
            "supported values: \"Metadata\", \"Sample\", \"Data\"",
        ),
        (
            with("grants: [{from: {namespace: a}, to: []}]"),
            "should have at least 1 items",
        ),
        (
            with("grants: [{from: {}, to: [b]}]"),
            "from.namespace: Required value",
        ),
        (
            with("allowedNamespaces: {matchExpressions: [{key: a, operator: Near}]}"),
            "Unsupported value: \"Near\"",
        ),
    ]
}

pub(super) fn bad_objects_are_refused(cluster: &Cluster) -> Result<()> {
    cluster.namespace("refusals", &[])?;
    let cases = [
        (
            backups(),
            (|spec: &str| backup("refusals", "bad", spec)) as fn(&str) -> String,
        ),
        (restores(), |spec| restore("refusals", "bad", spec)),
        (repositories(), |spec| repository("refusals", spec)),
    ];
    for (specs, object) in cases {
        for (spec, words) in specs {
            let answer = refused(&spec, cluster.apply(&object(&spec)))?;
            ensure!(
                answer.contains(words),
                "{spec} is refused with other words:\n{answer}"
            );
        }
    }
    Ok(())
}

/// What a spec was, what it is to be, and what is said of that.
type Change = (&'static str, &'static str, &'static str);

const BACKUP_CHANGES: &[Change] = &[
    (
        BACKUP,
        "source: {persistentVolumeClaim: {name: other}}, repositoryRef: {name: backups}",
        CHANGED_BACKUP,
    ),
    (
        BACKUP,
        "source: {volumeSnapshot: {name: data}}, repositoryRef: {name: backups}",
        CHANGED_BACKUP,
    ),
    (
        BACKUP,
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: other}",
        CHANGED_BACKUP,
    ),
    (
        BACKUP,
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, volumeSnapshotClassName: a",
        CHANGED_BACKUP,
    ),
    (
        BACKUP,
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, activeDeadlineSeconds: 5",
        CHANGED_BACKUP,
    ),
    (
        BACKUP,
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, baseSnapshotPolicy: Drop",
        CHANGED_BACKUP,
    ),
    (
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, cancel: true",
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, cancel: false",
        "a cancelled backup cannot be continued: create another one",
    ),
    (
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}, cancel: true",
        BACKUP,
        "a cancelled backup cannot be continued: create another one",
    ),
];

const RESTORE_CHANGES: &[Change] = &[
    (
        RESTORE,
        "source: {backupName: two}, target: {name: data}",
        CHANGED_RESTORE,
    ),
    (
        RESTORE,
        "source: {backupName: one}, target: {name: other}",
        CHANGED_RESTORE,
    ),
    (
        RESTORE,
        "source: {backupName: one}, target: {name: data}, mode: Replace",
        CHANGED_RESTORE,
    ),
    (
        RESTORE,
        "source: {backupName: one}, target: {name: data}, repositoryRef: {name: a}",
        CHANGED_RESTORE,
    ),
    (
        "source: {backupName: one}, target: {name: data}, cancel: true",
        RESTORE,
        "a cancelled restore cannot be continued: create another one",
    ),
];

const REPOSITORY_CHANGES: &[Change] = &[
    (
        REPOSITORY,
        "s3: {bucket: other}, encryptionSecretRef: {name: key}",
        "bucket and prefix cannot be changed",
    ),
    (
        REPOSITORY,
        "s3: {bucket: backups, prefix: a}, encryptionSecretRef: {name: key}",
        "bucket and prefix cannot be changed",
    ),
    (
        REPOSITORY,
        "directory: {path: /backups}, encryptionSecretRef: {name: key}",
        "the kind of place cannot be changed",
    ),
    (
        REPOSITORY,
        "s3: {bucket: backups}, unencrypted: true",
        "encryption is fixed for the life of a repository",
    ),
    (
        "directory: {path: /backups}, unencrypted: true",
        "directory: {path: /other}, unencrypted: true",
        "the path cannot be changed",
    ),
];

pub(super) fn forbidden_changes_are_refused(cluster: &Cluster) -> Result<()> {
    cluster.namespace("changes", &[])?;
    let cases = [
        (
            BACKUP_CHANGES,
            (|name: &str, spec: &str| backup("changes", name, spec)) as fn(&str, &str) -> String,
        ),
        (RESTORE_CHANGES, |name, spec| restore("changes", name, spec)),
        (REPOSITORY_CHANGES, |name, spec| {
            repository(&format!("changes-{name}"), spec)
        }),
    ];
    for (changes, object) in cases {
        for (index, (before, after, words)) in changes.iter().enumerate() {
            let name = format!("number-{index}");
            cluster
                .apply(&object(&name, before))
                .with_context(|| (*before).to_owned())?;
            let answer = refused(after, cluster.apply(&object(&name, after)))?;
            ensure!(
                answer.contains(words),
                "{after} is refused with other words:\n{answer}"
            );
        }
    }
    Ok(())
}

/// What the messages above say can be changed can be.
pub(super) fn allowed_changes_are_admitted(cluster: &Cluster) -> Result<()> {
    cluster.namespace("allowed", &[])?;
    for more in [
        "deletionPolicy: Delete",
        "ttlSecondsAfterFinished: 60",
        "cancel: false",
        "cancel: true",
    ] {
        cluster.apply(&backup("allowed", "one", &format!("{BACKUP}, {more}")))?;
    }
    for more in ["ttlSecondsAfterFinished: 60", "cancel: true"] {
        cluster.apply(&restore("allowed", "one", &format!("{RESTORE}, {more}")))?;
    }
    for spec in [
        REPOSITORY,
        "s3: {bucket: backups, endpoint: 'http://127.0.0.1:9000', pathStyle: true, region: a}, encryptionSecretRef: {name: other}",
        "s3: {bucket: backups}, encryptionSecretRef: {name: key}, sync: All, maintenance: {gcInterval: 0s, verifyInterval: 7d, verifyLevel: Data}",
    ] {
        cluster.apply(&repository("allowed", spec))?;
    }
    Ok(())
}

//! `SnapshotRepository`: where points are stored, and who may use the place.
//!
//! Owns: its fields, rules and defaults. Must not: open repositories.

#![expect(
    clippy::duplicated_attributes,
    reason = "printed columns are attributes that share words"
)]
#![expect(
    unreachable_pub,
    reason = "the derive of the schema generates what nobody names"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;

/// A place for recovery points: a prefix of a bucket, or a directory that every agent sees. Deleting this object never deletes data.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "snaphaul.dev",
    version = "v1alpha1",
    kind = "SnapshotRepository",
    plural = "snapshotrepositories",
    shortname = "srepo",
    category = "snaphaul",
    status = "SnapshotRepositoryStatus",
    derive = "PartialEq",
    doc = "A place for recovery points: a prefix of a bucket, or a directory that every agent sees. Deleting this object never deletes data.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Healthy')].status"
    ),
    printcolumn(name = "Location", type_ = "string", json_path = ".status.location"),
    printcolumn(name = "Points", type_ = "integer", json_path = ".status.points"),
    printcolumn(
        name = "Collected",
        type_ = "date",
        json_path = ".status.lastGc.completed",
        priority = "1"
    ),
    printcolumn(
        name = "Verified",
        type_ = "date",
        json_path = ".status.lastVerify.completed",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = "1"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.s3) != has(self.directory)").message("exactly one of s3 and directory must be set"),
    validation = Rule::new("has(self.s3) == has(oldSelf.s3) && has(self.directory) == has(oldSelf.directory)")
        .message("the kind of place cannot be changed: create another SnapshotRepository"),
    validation = Rule::new("has(self.encryptionSecretRef) == has(oldSelf.encryptionSecretRef)")
        .message("encryption is fixed for the life of a repository: create another SnapshotRepository"),
    validation = Rule::new("has(self.encryptionSecretRef) != (has(self.unencrypted) && self.unencrypted)")
        .message("name the secret with the key in encryptionSecretRef, or set unencrypted: true to store data that everyone with access to the place can read")
)]
pub struct SnapshotRepositorySpec {
    /// A bucket. Exactly one of `s3` and `directory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Location>,
    /// A directory that is mounted into controller and agents at the same path, from a volume that all of them share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryLocation>,
    /// Secret in the system namespace with the key `passphrase`, or `key` (at least 32 random bytes). Without it the data is lost: keep it elsewhere too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_secret_ref: Option<NameRef>,
    /// Stores data unencrypted. Only for places that nobody else can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unencrypted: Option<bool>,
    /// Namespaces whose backups and restores may name this repository, by their labels. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
    /// Namespaces that may restore points of other namespaces or clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub grants: Vec<Grant>,
    /// How the repository is kept healthy.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Which points get a PodVolumeBackup in this cluster, where they have none: after a loss of the cluster or its etcd, or in a new cluster.
    /// They appear in the namespace that each point records, where a namespace of this name exists, allowedNamespaces selects it, and it is
    /// the very namespace (by cluster UID and namespace UID) or a grant names both: a restored namespace has a new UID, and needs one.
    /// They are Completed from the start, take no snapshot and move no data; they have the deletionPolicy Retain, the name
    /// `point-POINTID` and the label `snaphaul.dev/synced` (`own`, or `granted`).
    ///
    /// Points are offered once to each namespace: a PodVolumeBackup that somebody deletes does not come back. Points that other clusters add
    /// later are not offered. To offer everything again, set `None`, wait until `status.sync` is gone, and set this anew. What was made stays
    /// as long as its point: it goes by itself once the point is forgotten or removed, unless its deletionPolicy was changed to Delete. At most 5000 exist for a
    /// repository; restores reach the other points by id or volume. With deletionPolicy Delete the point goes with a backup
    /// labelled `own`; points of others are forgotten by `snaphaul forget`.
    #[serde(default)]
    pub sync: Sync,
}

/// A prefix of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.bucket == oldSelf.bucket && (has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')")
        .message("bucket and prefix cannot be changed: create another SnapshotRepository"),
    validation = Rule::new("!has(self.prefix) || !self.prefix.split('/').exists(part, part in ['', '.', '..'])")
        .message("prefix must be without slashes at its ends and without empty, '.' and '..' parts"),
    validation = Rule::new("!has(self.caBundle) || self.caBundle.contains('-----BEGIN CERTIFICATE-----')")
        .message("caBundle must hold certificates as PEM")
)]
pub struct S3Location {
    /// Name of the bucket. It must exist.
    #[schemars(
        length(min = 3, max = 63),
        regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    )]
    pub bucket: String,
    /// Beginning of every object's key, without slashes at its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// Region, where the endpoint needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub region: Option<String>,
    /// URL of a server other than AWS, e.g. `https://minio.storage.svc:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^@]+$"))]
    pub endpoint: Option<String>,
    /// Names the bucket in the path of URLs, as most servers other than AWS need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// PEM certificates of the authority that signed the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Secret in the system namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `cloud` in the form of AWS's credentials file.
    /// Absent: what the agents' environment offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameRef>,
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.path == oldSelf.path").message("the path cannot be changed: create another SnapshotRepository"),
    validation = Rule::new("!self.path.split('/').exists(part, part == '..')").message("the path must not contain '..'")
)]
pub struct DirectoryLocation {
    /// Absolute path inside the containers of controller and agents.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^/]"))]
    pub path: String,
}

/// Whose points may be restored by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Where the points were made.
    pub from: GrantSource,
    /// Namespaces of this cluster that may restore them.
    #[schemars(length(min = 1, max = 256))]
    pub to: Vec<String>,
}

/// Where points were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantSource {
    /// UID of the namespace `kube-system` of the cluster. Absent: this cluster.
    #[serde(
        default,
        rename = "clusterUID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub cluster_uid: Option<String>,
    /// Name of the namespace there.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

/// Times such as `30m`, `24h` or `7d`.
const INTERVAL: &str = "^[0-9]{1,5}(s|m|h|d)$";

/// How a repository is kept healthy. The controller does it, one thing at a time; backups and restores go on meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Time from the end of one garbage collection to the next, e.g. `24h` or `7d`; `0s` turns it off. What was deleted stays restorable until
    /// then, and takes its space.
    #[serde(default = "daily")]
    #[schemars(regex(pattern = INTERVAL))]
    pub gc_interval: String,
    /// Time from the end of one verification to the next; `0s` turns it off.
    #[serde(default = "daily")]
    #[schemars(regex(pattern = INTERVAL))]
    pub verify_interval: String,
    /// How deep a verification looks.
    #[serde(default)]
    pub verify_level: VerifyDepth,
    /// Percent of the stored data that each verification of the level Sample reads, what was verified longest ago first.
    #[serde(default = "sample")]
    #[schemars(range(min = 1, max = 100))]
    pub verify_sample_percent: u8,
}

/// How deep a verification looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyDepth {
    /// Everything but the data itself: records, maps, and that every object is there and whole in its structure.
    Metadata,
    /// And a share of the data.
    #[default]
    Sample,
    /// And all data, which is read from the store.
    Data,
}

fn daily() -> String {
    "24h".to_owned()
}

fn sample() -> u8 {
    1
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            gc_interval: daily(),
            verify_interval: daily(),
            verify_level: VerifyDepth::default(),
            verify_sample_percent: sample(),
        }
    }
}

/// Which points of a repository get a PodVolumeBackup where they have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sync {
    /// None; restores name points by id or volume.
    #[default]
    None,
    /// The newest of each volume, at the time when its namespace is offered them.
    Latest,
    /// Every point.
    All,
}

/// What is known of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRepositoryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether agents can use it. `Healthy`: whether everything that was stored is still there and right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The place as a URL, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Id that the repository was given when it was made. Agents refuse another one in the same place.
    #[serde(
        default,
        rename = "repositoryID",
        skip_serializing_if = "Option::is_none"
    )]
    pub repository_id: Option<String>,
    /// Number of points at the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<i64>,
    /// The last garbage collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<MaintenanceRun>,
    /// The last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verify: Option<MaintenanceRun>,
    /// When garbage is collected next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_gc: Option<Time>,
    /// When the repository is verified next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_verify: Option<Time>,
    /// Points that were found damaged and are still there: the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged_points: Vec<String>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_point_count: Option<i64>,
    /// Backups, restores and verifications that neither ended nor were given up when garbage was collected; what they use was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_sessions: Option<i64>,
    /// Estimate of the bytes that nothing needs and that stay in objects that are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_bytes: Option<i64>,
    /// What `spec.sync` brought. Absent where nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What `spec.sync` brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// When any of the following changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
    /// PodVolumeBackups of this repository that sync made and that are there.
    #[serde(default)]
    pub backups: i64,
    /// Points that no namespace may see: there is none of the recorded name, allowedNamespaces leaves it out, or no grant names it.
    #[serde(default)]
    pub unserved_points: i64,
    /// Points that have no PodVolumeBackup because there would be too many, or because another resource has its name.
    #[serde(default)]
    pub omitted_points: i64,
    /// What was offered already and does not come back when somebody deletes it: a fingerprint for each namespace and each namespace whose
    /// points it was offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub offered: Vec<String>,
}

/// One run of garbage collection or verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceRun {
    /// When it began.
    pub started: Time,
    /// When it ended. Absent while it runs, and where the controller ended first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// Whether it did all of its work and found nothing wrong.
    #[serde(default)]
    pub succeeded: bool,
    /// Runs in a row that could not do their work. They are tried again sooner than the interval says, and later each time.
    #[serde(default)]
    pub failures: i64,
    /// What it did or found, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the last one ended that did its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Time>,
    /// Bytes that it deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<i64>,
    /// Bytes that it read from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<i64>,
    /// Damaged or missing objects that it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<i64>,
}

impl MaintenanceRun {
    /// One that began now and has done nothing yet.
    #[must_use]
    pub fn began(now: Timestamp) -> Self {
        Self {
            started: Time(now),
            finished: None,
            succeeded: false,
            failures: 0,
            message: None,
            completed: None,
            freed_bytes: None,
            read_bytes: None,
            findings: None,
        }
    }
}

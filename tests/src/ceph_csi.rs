//! Images as ceph-csi leaves them in a pool, made through the command `rbd` (Kubernetes and ceph-csi themselves are not run).
//!
//! Owns: their names, the order of the steps that make them, and CSI handles. Must not: be used to check itself: tests look
//! at the result through `rbd info` and `rbd snap ls`.
//!
//! ```text
//!   csi-vol-Y ── trash-namespace snapshot 4 (was csi-snap-A) ◄─parent─ csi-snap-A ── csi-snap-A@csi-snap-A ◄─parent─ csi-vol-Z
//!             └─ trash-namespace snapshot 6 (was csi-snap-B) ◄─parent─ csi-snap-B ── csi-snap-B@csi-snap-B
//! ```
//!
//! From ceph-csi's sources: `internal/rbd/controllerserver.go` (`doSnapshotClone`), `internal/rbd/snapshot.go`
//! (`createRBDClone`), `internal/journal/voljournal.go` (names), `internal/util/volid.go` (handles).

use anyhow::{Context, Result};

use crate::rbd_pool::RbdPool;

/// A volume's image, `csi-vol-UUID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The last part of its handle.
    pub uuid: String,
    /// The image's id, which stays when the image goes into the trash.
    pub image_id: String,
}

impl Volume {
    /// Name of the image.
    #[must_use]
    pub fn image(&self) -> String {
        format!("csi-vol-{}", self.uuid)
    }
}

/// A snapshot's image, `csi-snap-UUID`, with one snapshot of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last part of its handle.
    pub uuid: String,
    /// The image's id.
    pub image_id: String,
}

impl Snapshot {
    /// Name of the image and of the snapshot on it.
    #[must_use]
    pub fn image(&self) -> String {
        format!("csi-snap-{}", self.uuid)
    }

    /// `IMAGE@SNAPSHOT`, which is what a backup reads.
    #[must_use]
    pub fn spec(&self) -> String {
        format!("{0}@{0}", self.image())
    }
}

/// A pool that a storage class of ceph-csi names.
#[derive(Clone, Debug)]
pub struct CephCsi {
    pool: RbdPool,
    features: String,
}

impl CephCsi {
    /// `features` are the storage class's `imageFeatures`, as `rbd create --image-feature` takes them.
    #[must_use]
    pub fn new(pool: RbdPool, features: &str) -> Self {
        Self {
            pool,
            features: features.to_owned(),
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &RbdPool {
        &self.pool
    }

    /// CreateVolume without a source.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn create_volume(&self, bytes: u64) -> Result<Volume> {
        let uuid = new_uuid()?;
        let spec = self.pool.spec(&format!("csi-vol-{uuid}"));
        let size = format!("{bytes}B");
        self.pool.rbd(&[
            "create",
            "--size",
            &size,
            "--image-feature",
            &self.features,
            &spec,
        ])?;
        self.volume(uuid)
    }

    /// CreateVolume with a snapshot as its source: a clone of the snapshot's own image.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn restore_volume(&self, source: &Snapshot) -> Result<Volume> {
        let uuid = new_uuid()?;
        self.clone_image(&source.spec(), &format!("csi-vol-{uuid}"), &self.features)?;
        self.volume(uuid)
    }

    /// CreateSnapshot: the snapshot on the volume lives only until its clone exists. As that clone needs it, its removal moves
    /// it to the trash namespace under a random name.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn create_snapshot(&self, source: &Volume) -> Result<Snapshot> {
        let uuid = new_uuid()?;
        let name = format!("csi-snap-{uuid}");
        let taken = format!("{}@{name}", source.image());
        self.snap("create", &taken)?;
        self.clone_image(&taken, &name, "layering,deep-flatten")?;
        self.snap("rm", &taken)?;
        self.snap("create", &format!("{name}@{name}"))?;
        let image_id = self.image_id(&name)?;
        Ok(Snapshot { uuid, image_id })
    }

    /// DeleteVolume: the image goes into the trash, where it stays as long as snapshots of it have clones.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn delete_volume(&self, volume: &Volume) -> Result<()> {
        let spec = self.pool.spec(&volume.image());
        self.pool.rbd(&["trash", "mv", &spec]).map(drop)
    }

    /// DeleteSnapshot: with the clone goes the trashed snapshot of the volume that it came from.
    ///
    /// # Errors
    /// Where the cluster refuses, as it does while a volume was restored from it and not flattened.
    pub fn delete_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        self.snap("rm", &snapshot.spec())?;
        let spec = self.pool.spec(&snapshot.image());
        self.pool.rbd(&["rm", "--no-progress", &spec]).map(drop)
    }

    /// What ceph-csi has the manager do to old snapshots in the background: the clone gets all data and forgets its parent.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn flatten(&self, snapshot: &Snapshot) -> Result<()> {
        let spec = self.pool.spec(&snapshot.image());
        self.pool
            .rbd(&["flatten", "--no-progress", &spec])
            .map(drop)
    }

    /// The CSI handle of a volume or snapshot of this pool.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn handle(&self, cluster_id: &str, uuid: &str) -> Result<String> {
        Ok(handle(cluster_id, self.pool.id()?, uuid))
    }

    fn volume(&self, uuid: String) -> Result<Volume> {
        let image_id = self.image_id(&format!("csi-vol-{uuid}"))?;
        Ok(Volume { uuid, image_id })
    }

    fn image_id(&self, image: &str) -> Result<String> {
        let info = self.pool.info(image)?;
        let id = info["id"].as_str().context("an image has an id")?;
        Ok(id.to_owned())
    }

    fn snap(&self, verb: &str, snapshot: &str) -> Result<()> {
        let spec = self.pool.spec(snapshot);
        self.pool
            .rbd(&["snap", verb, "--no-progress", &spec])
            .map(drop)
    }

    /// Format 2 of clones is the one whose parent snapshot need not be protected and may be trashed.
    fn clone_image(&self, from: &str, to: &str, features: &str) -> Result<()> {
        let (from, to) = (self.pool.spec(from), self.pool.spec(to));
        let options = [
            "--rbd-default-clone-format",
            "2",
            "--image-feature",
            features,
        ];
        self.pool
            .rbd(&[&["clone"], &options[..], &[&from, &to]].concat())
            .map(drop)
    }
}

/// `0001-LENGTH-CLUSTER-POOL-UUID`, lengths and pool in hexadecimal.
#[must_use]
pub fn handle(cluster_id: &str, pool_id: i64, uuid: &str) -> String {
    format!(
        "0001-{:04x}-{cluster_id}-{pool_id:016x}-{uuid}",
        cluster_id.len()
    )
}

fn new_uuid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.trim().to_owned())
}

//! The cluster of the cases, and images in it.
//!
//! Owns: the connection and names that no two cases share. Must not: compare anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use changed_blocks::rbd::{
    Access, Cluster, ClusterOptions, Image, ImageName, Library, Pool, SnapshotName,
};
use tests::ceph::{BlockCeph, Ceph};

/// Name of the pool of all cases.
pub(crate) const POOL: &str = "images";

/// A running cluster with one pool.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) pool: Pool,
    pub(crate) cluster: Cluster,
    pub(crate) ceph: BlockCeph,
    images: AtomicU32,
}

impl Site {
    pub(crate) fn start() -> Result<Self> {
        let ceph = Ceph::start_block()?;
        ceph.pool(POOL)?;
        let cluster = Cluster::connect(&Library::load()?, &options(&ceph))?;
        Ok(Self {
            pool: cluster.pool(POOL, "")?,
            cluster,
            ceph,
            images: AtomicU32::new(0),
        })
    }

    /// A name that no other case uses.
    pub(crate) fn name(&self, kind: &str) -> String {
        let number = self.images.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{number}")
    }

    /// Makes an image of `bytes` bytes with objects of 1 MiB.
    pub(crate) fn create(&self, bytes: u64, features: &str) -> Result<String> {
        let name = self.name("image");
        let spec = format!("{POOL}/{name}");
        let size = format!("{bytes}B");
        self.ceph.rbd(&[
            "create",
            &spec,
            "--size",
            &size,
            "--object-size",
            "1M",
            "--image-feature",
            features,
        ])?;
        Ok(name)
    }

    /// Opens an image, at a snapshot where one is named.
    pub(crate) fn open(
        &self,
        name: &str,
        snapshot: Option<&str>,
        access: Access,
    ) -> Result<Arc<Image>> {
        let snapshot = snapshot.map(SnapshotName::Name);
        Ok(Arc::new(Image::open(
            &self.pool,
            ImageName::Name(name),
            snapshot,
            access,
        )?))
    }
}

/// How the cluster is reached by its own configuration.
pub(crate) fn options(ceph: &BlockCeph) -> ClusterOptions {
    ClusterOptions {
        conf: Some(ceph.conf()),
        ..ClusterOptions::default()
    }
}

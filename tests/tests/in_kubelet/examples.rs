//! The examples, in their order, as somebody with the rights that they give.

use anyhow::{Result, ensure};
use tests::cluster::examples;

use crate::site::{LIMIT, NAMESPACE, Site, is_final, pod_with, wait_for_pod};

/// Everything that is allocated, while the pod that has the volume goes on.
pub(crate) fn backup(site: &mut Site) -> Result<()> {
    let hash = site.write(0, 48)?;
    site.backup("database-1")?;
    let object = site.completed("database-1", &hash)?;
    let bytes = object["status"]["incrementalBytes"].as_i64();
    ensure!(bytes > Some(40 << 20), "stored {bytes:?} of 48 MiB");
    Ok(())
}

/// The driver says what changed since, and about that much is stored.
pub(crate) fn incremental(site: &mut Site) -> Result<()> {
    let hash = site.write(20, 3)?;
    site.backup("database-2")?;
    let object = site.completed("database-2", &hash)?;
    let status = &object["status"];
    let bytes = status["incrementalBytes"].as_i64();
    ensure!(bytes < Some(8 << 20), "stored {bytes:?} of 3 MiB");
    ensure!(status["changedBlocks"]["source"] == "csi", "{status}");
    Ok(())
}

/// The first backup, into a claim that another pod uses then: the bytes of that time, not those of now.
pub(crate) fn restore(site: &mut Site) -> Result<()> {
    let hash = site.write(100, 1)?;
    site.backup("database-3")?;
    site.completed("database-3", &hash)?;
    site.write(0, 48)?;
    let text = examples::filled("05-restore.yaml", &[("database-1", "database-3")])?;
    site.developer.apply(&text)?;
    let object = site.wait_for("podvolumerestores", "database-look", is_final)?;
    ensure!(
        object["status"]["phase"] == "Completed",
        "{}",
        object["status"]
    );
    site.cluster.apply(&pod_with("look", "database-restored"))?;
    wait_for_pod(&site.cluster, "look")?;
    let restored = site.hash("look")?;
    ensure!(restored == hash, "the claim holds other bytes");
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    for object in ["pod/look", "pvc/database-restored"] {
        site.cluster
            .kubectl(&["delete", object, "--namespace", NAMESPACE, &timeout])?;
    }
    Ok(())
}

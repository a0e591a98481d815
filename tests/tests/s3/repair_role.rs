//! The role that repairs: what it mends in a bucket that it may not delete from, and what it may not do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cases::Site;

use super::roles::{Rig, refused};

/// Mends whatever a point needs beside its chunks, whether it was overwritten or hidden, forgets what it committed again, and cannot
/// delete or store chunks.
pub(crate) fn the_repair_role(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 37)?;
    rig.role("backup")?.backup(&rig.image.path, "disk", &[])?;
    let repair = rig.role("repair")?;
    let kinds = [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "map/",
    ];
    for (round, kind) in kinds.into_iter().cycle().take(2 * kinds.len()).enumerate() {
        let objects = damaged(&rig, kind, round >= kinds.len())?;
        let hurt = || format!("round {round}: {objects:?}");
        // The window of the locks has ended: what is used again needs longer ones.
        std::thread::sleep(Duration::from_millis(1100));
        let result = repair.ok(&["repair"]).with_context(hurt)?.json()?;
        let repaired = result["repaired"].to_string();
        ensure!(
            objects.iter().any(|object| repaired.contains(object)),
            "{}: {result}",
            hurt()
        );
        // A right that is missing would be told; that a second copy was read is told as well.
        let warnings = result["warnings"].as_array().context("warnings")?;
        ensure!(
            warnings
                .iter()
                .all(|warning| warning.to_string().contains("second copy")),
            "{}: {result}",
            hurt()
        );
        rig.role("restore")?
            .ok(&["verify", "--all", "--level", "data"])
            .with_context(hurt)?;
    }
    let target = site.scratch.join("out");
    repair.restore("disk@latest", &target, &[])?;
    rig.image.assert_same(&target)?;
    ensure!(
        rig.repo
            .objects("open/")?
            .iter()
            .all(|name| !name.contains("/r-")),
        "a reader's record was left"
    );
    // What it cannot mend it marks, so that the next backup stores it again.
    rig.repo.remove(&rig.repo.objects("seg/")?.remove(0))?;
    repair.fails(65, &["repair"])?.names("salvage")?;
    let marks = rig.repo.objects("quarantine/")?;
    ensure!(marks.len() == 1, "{marks:?}");
    rig.role("backup")?.backup(&rig.image.path, "disk", &[])?;
    rig.role("restore")?
        .ok(&["verify", "disk@latest", "--level", "data"])?;
    refused(&repair, &["backup", &rig.image.path.display().to_string()])?;
    let thief = rig.thief("repair")?;
    ensure!(rig.deletable(&thief)?.is_empty());
    let worked = rig.writable(&thief)?;
    let own = [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "map/", "tomb/", "beat/",
    ];
    ensure!(worked == own, "the repair role wrote {worked:?}");
    Ok(())
}

/// Hurts the objects of a kind that the point may need: other bytes are put over them, or a delete hides them.
fn damaged(rig: &Rig, kind: &str, hide: bool) -> Result<Vec<String>> {
    let points = rig.repo.ok(&["points"])?.json()?;
    let points = points["points"].as_array().cloned().unwrap_or_default();
    let standing = points.iter().find(|point| point["status"] == "complete");
    let id = standing
        .and_then(|point| point["point"].as_str())
        .context("a whole point")?;
    let session = id.split('-').next().unwrap_or_default();
    let mut names = rig.repo.objects(kind)?;
    match kind {
        // One of two copies.
        "config" | "keys/" => names.truncate(1),
        // Any of them may hold pages of it.
        "map/" => {}
        _ => names.retain(|name| name.contains(&format!("-{session}"))),
    }
    for name in &names {
        if hide {
            rig.repo.remove(name)?;
        } else {
            rig.repo
                .write(name, b"other bytes than those that were stored")?;
        }
    }
    Ok(names)
}

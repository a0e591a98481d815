//! More volumes than slots.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bed::{Bed, phase};

const COUNT: usize = 50;
/// Volumes that may be exposed on a node at once, one more than its slots.
const EXPOSED: usize = 3;

/// Fifty backups at once on a node with two slots: all end, and never more than three volumes are exposed.
pub(crate) fn fifty(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 4)?;
    bed.count()?;
    let names: Vec<String> = (0..COUNT).map(|index| format!("one-{index}")).collect();
    for name in &names {
        bed.backup(name, "data", &json!({"baseSnapshotPolicy": "Drop"}), &image)?;
    }
    let mut most = 0;
    for name in &names {
        loop {
            most = most.max(bed.node.processes().len());
            if crate::bed::is_final(&phase(&bed.backup_object(name)?)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        bed.completed(name)?;
    }
    ensure!(most <= EXPOSED, "{most} volumes were exposed at once");
    ensure!(most > 1, "they ran one after the other");
    Ok(())
}

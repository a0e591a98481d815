//! What a driver can do, and what that means for backups.
//!
//! Owns: the report and its sentences. Must not: ask the driver.

use std::collections::BTreeMap;

use serde::Serialize;

use super::driver::Driver;
use super::profile::{BasePolicy, CloneCost, Profile};

/// Answer of `snaphaul csi info`.
#[derive(Clone, Debug, Serialize)]
pub struct DriverReport {
    /// Name of the driver.
    pub driver: String,
    /// Its version.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// Where this node is, where the driver cares.
    pub topology: Option<BTreeMap<String, String>>,
    /// What it can do, by words that stay the same.
    pub abilities: BTreeMap<&'static str, bool>,
    /// What is known of it.
    pub profile: Profile,
    /// Whether its volumes can be backed up.
    pub backups: bool,
    /// Whether a backup reads only what changed.
    pub incremental: bool,
    /// Whether one snapshot is kept for each volume.
    pub keeps_base: bool,
    /// What all that means, in sentences.
    pub meaning: Vec<String>,
}

impl DriverReport {
    /// Of a driver.
    #[must_use]
    pub fn of(driver: &Driver) -> Self {
        let abilities = &driver.abilities;
        let obstacle = driver.obstacle();
        Self {
            driver: driver.name.clone(),
            version: driver.version.clone(),
            node: driver.node.clone(),
            topology: driver.topology.clone(),
            abilities: BTreeMap::from([
                ("controller", abilities.controller),
                ("volumes", abilities.volumes),
                ("snapshots", abilities.snapshots),
                ("list-snapshots", abilities.list_snapshots),
                ("group-snapshots", abilities.group_snapshots),
                ("snapshot-metadata", abilities.snapshot_metadata),
                ("attach", abilities.attach),
                ("attach-readonly", abilities.attach_readonly),
                ("stage", abilities.stage),
                ("topology", abilities.topology),
            ]),
            profile: driver.profile.clone(),
            backups: obstacle.is_none(),
            incremental: obstacle.is_none() && abilities.snapshot_metadata,
            keeps_base: obstacle.is_none() && driver.needs_base(),
            meaning: meaning(driver, obstacle),
        }
    }
}

fn meaning(driver: &Driver, obstacle: Option<&str>) -> Vec<String> {
    if let Some(why) = obstacle {
        return Vec::from([format!("Its volumes cannot be backed up this way: {why}.")]);
    }
    let mut lines = Vec::from(["`snaphaul backup csi:VOLUME_ID` takes a snapshot, makes a volume of it, attaches that to this node \
         and removes both."
        .to_owned()]);
    lines.push(
        match (driver.abilities.snapshot_metadata, driver.profile.base_snapshot) {
            (true, BasePolicy::Keep) => {
                "The driver tells what changed: a backup reads just that. One snapshot of each volume stays for it; \
                 `snaphaul csi release VOLUME_ID` removes it, `--keep-base never` keeps none."
            }
            (true, BasePolicy::Drop) => {
                "The driver tells what is allocated. What changed it tells only against a change id, which this command does not \
                 know: each backup reads what is allocated, and stores what changed."
            }
            (false, _) => {
                "The driver does not tell what changed: each backup reads the whole volume, and stores what changed."
            }
        }
        .to_owned(),
    );
    lines.push(
        match driver.profile.clone_cost {
            CloneCost::CopyOnWrite => "A volume made of a snapshot shares its blocks: it costs no time or space worth mentioning.",
            CloneCost::Copy => "A volume made of a snapshot is a full copy: each backup takes the time and the space for that.",
            CloneCost::Unknown => "What a volume made of a snapshot costs is not known of this driver.",
        }
        .to_owned(),
    );
    if driver.abilities.attach {
        lines.push("Volumes are attached to this node by the storage system first.".to_owned());
    }
    if let Some(most) = driver.profile.max_snapshots_per_volume {
        lines.push(format!(
            "A volume has at most {most} snapshots: a backup needs one of them for a while."
        ));
    }
    lines
}

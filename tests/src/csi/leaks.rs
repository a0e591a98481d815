//! What drivers and their callers can leave behind, counted.
//!
//! Owns: reading it from the kernel and from folders. Must not: clean up, except in [`sweep`], which the end of a rig calls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// What is held at one moment. Tests take it before and after and expect the same, or name the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Loop devices over files of the driver, as `/dev/loopN FILE`. By file: others on the machine have devices as well.
    pub loop_devices: BTreeSet<String>,
    /// Mount points in the kubelet's folder, one entry a mount, so that what is mounted twice counts twice.
    pub mounts: Vec<PathBuf>,
    /// Everything below the kubelet's folder: staging folders, targets, and folders made for them.
    pub paths: BTreeSet<PathBuf>,
    /// Handles of volumes, as the driver lists them.
    pub volumes: BTreeSet<String>,
    /// Handles of snapshots, as the driver lists them.
    pub snapshots: BTreeSet<String>,
}

impl Leaks {
    /// What is in `self` and was not in `before`, one line each; empty where nothing was left.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut note =
            |what: &str, name: &dyn std::fmt::Display| lines.push(format!("{what} {name}"));
        for device in self.loop_devices.difference(&before.loop_devices) {
            note("loop device", device);
        }
        let mut known = before.mounts.clone();
        for mount in &self.mounts {
            match known.iter().position(|old| old == mount) {
                Some(place) => drop(known.swap_remove(place)),
                None => note("mount", &mount.display()),
            }
        }
        for path in self.paths.difference(&before.paths) {
            note("path", &path.display());
        }
        for volume in self.volumes.difference(&before.volumes) {
            note("volume", volume);
        }
        for snapshot in self.snapshots.difference(&before.snapshots) {
            note("snapshot", snapshot);
        }
        lines
    }
}

/// Loop devices over files below `state`, mounts and paths below `kubelet`. Volumes and snapshots stay empty.
///
/// # Errors
/// Where the kernel's tables cannot be read.
pub fn on_this_machine(state: &Path, kubelet: &Path) -> Result<Leaks> {
    let devices = loop_devices(state)?;
    Ok(Leaks {
        loop_devices: devices
            .iter()
            .map(|(device, file)| format!("{} {}", device.display(), file.display()))
            .collect(),
        mounts: mounts(kubelet)?,
        paths: below(kubelet)?,
        ..Leaks::default()
    })
}

/// Loop devices over files below `folder`, removed files included.
///
/// # Errors
/// Where `/sys/block` cannot be read.
pub fn loop_devices(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block").context("list /sys/block")? {
        let entry = entry?;
        // Devices come and go while others use them: one without a file is free.
        let Ok(file) = std::fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        let file = file.trim_end_matches('\n');
        let file = PathBuf::from(file.strip_suffix(" (deleted)").unwrap_or(file));
        if file.starts_with(folder) {
            found.push((Path::new("/dev").join(entry.file_name()), file));
        }
    }
    found.sort();
    Ok(found)
}

/// Mount points below `folder`, in the order in which they were mounted.
///
/// # Errors
/// Where the kernel's table cannot be read.
pub fn mounts(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(folder))
        .collect())
}

/// The kernel writes space, tab, line feed and backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| {
            text.replace(code, plain)
        })
}

/// Everything below a folder. What vanishes while it is read is not there.
fn below(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    let mounted = mounts(folder)?;
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            // The content of a mounted volume is the volume's.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !mounted.contains(&entry.path())
            {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// Takes away what a failed test left: mounts below `kubelet`, then loop devices over files below `state`. Best effort, for the
/// end of a rig only.
pub fn sweep(state: &Path, kubelet: &Path) {
    for mount in mounts(kubelet).unwrap_or_default().iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(mount).status();
    }
    for (device, _) in loop_devices(state).unwrap_or_default() {
        let _ = Command::new("losetup").arg("--detach").arg(device).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_new_and_counts_mounts() {
        let before = Leaks {
            mounts: vec!["/k/a".into()],
            volumes: ["v1".to_owned()].into(),
            ..Leaks::default()
        };
        let mut after = before.clone();
        assert_eq!(after.since(&before), Vec::<String>::new());
        after.mounts.push("/k/a".into());
        after.volumes = ["v2".to_owned()].into();
        assert_eq!(after.since(&before), ["mount /k/a", "volume v2"]);
    }

    #[test]
    fn reads_names_as_the_kernel_writes_them() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}

//! A driver, a repository, and volumes with a mirror of what they must hold.
//!
//! Owns: the flags of a command line, writing to a volume as its user would, and what may be left. Must not: break anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::Client;
use tests::csi::leaks::Leaks;
use tests::image::{Image, MIB, first_difference};
use tests::random::Random;
use tests::repo::{Repo, fresh};
use tests::scratch::Scratch;
use tests::snaphaul::{Outcome, Snaphaul};
use tests::test_driver::TestDriver;

/// Where devices appear; the kubelet's part of it stays.
const OUR_PLACE: &str = "plugins/kubernetes.io/csi/snaphaul";

pub(crate) struct Rig<'a> {
    pub(crate) plugin: &'a dyn Plugin,
    pub(crate) client: Client,
    pub(crate) scratch: Scratch,
    pub(crate) repo: Repo,
    pub(crate) random: Random,
    flags: Vec<String>,
}

pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) name: String,
    mirror: Image,
    writer: Attached,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(name: &str, plugin: &'a dyn Plugin) -> Result<Self> {
        let (scratch, repo, random) = fresh(name)?;
        std::fs::create_dir_all(plugin.kubelet().join(OUR_PLACE))?;
        Ok(Self {
            flags: flags(plugin, &scratch),
            client: plugin.client()?,
            plugin,
            scratch,
            repo,
            random,
        })
    }

    /// The same rig on a driver that was started again.
    pub(crate) fn again(plugin: &'a dyn Plugin, scratch: Scratch, repo: Repo) -> Result<Self> {
        Ok(Self {
            flags: flags(plugin, &scratch),
            client: plugin.client()?,
            plugin,
            scratch,
            repo,
            random: Random::from_environment("csi-again"),
        })
    }

    /// A volume that is in use: attached elsewhere and written to.
    pub(crate) fn volume(&mut self, name: &str, size: u64) -> Result<Volume> {
        let mut volume = self.empty_volume(name, size)?;
        volume.write(size / 4, size / 4, &mut self.random)?;
        Ok(volume)
    }

    /// The same before anybody has written to it.
    pub(crate) fn empty_volume(&self, name: &str, size: u64) -> Result<Volume> {
        let made = self.client.create_volume(name, size, None)?;
        let context = self
            .client
            .controller_publish(&made, "node-1")
            .unwrap_or_default();
        let block = tests::csi::client::block();
        let writer = Attached::new(self.plugin, name, &made, &block, context)?;
        let mirror = Image::sparse(&self.scratch.join(&format!("{name}.img")), size)?;
        Ok(Volume {
            id: made.volume_id,
            name: name.to_owned(),
            mirror,
            writer,
        })
    }

    /// The words of a backup.
    pub(crate) fn backup_words(&self, volume: &Volume, more: &[&str]) -> Vec<String> {
        let source = format!("csi:{}", volume.id);
        let mut words = vec!["backup".to_owned(), source, "--volume".to_owned()];
        words.push(volume.name.clone());
        words.extend(more.iter().map(ToString::to_string));
        words.extend(self.flags.iter().cloned());
        words
    }

    pub(crate) fn command(&self, words: &[String]) -> Result<Snaphaul> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.repo.command(&words)
    }

    /// Runs a backup to whatever end.
    pub(crate) fn backup(&self, volume: &Volume, more: &[&str]) -> Result<Outcome> {
        self.command(&self.backup_words(volume, more))?.run()
    }

    /// Runs a backup that must succeed, and compares the point.
    pub(crate) fn good_backup(&self, volume: &Volume, more: &[&str]) -> Result<Outcome> {
        let outcome = self.backup(volume, more)?.expect(0)?;
        self.check_point(volume, &outcome)?;
        Ok(outcome)
    }

    /// The point holds what the volume holds.
    pub(crate) fn check_point(&self, volume: &Volume, outcome: &Outcome) -> Result<()> {
        let target = self.scratch.join(&format!("{}.restored", volume.name));
        self.repo
            .restore(&outcome.string("point")?, &target, &["--force"])?;
        volume.mirror.assert_same(&target)
    }

    /// Runs `csi WORDS…` that must succeed.
    pub(crate) fn csi(&self, words: &[&str]) -> Result<Outcome> {
        self.csi_command(&self.csi_words(words))?.run()?.expect(0)
    }

    /// The words of `csi WORDS…`.
    pub(crate) fn csi_words(&self, words: &[&str]) -> Vec<String> {
        let mut all = vec!["csi".to_owned()];
        all.extend(words.iter().map(ToString::to_string));
        // Devices of its own it has none.
        let mut flags = self.flags.clone();
        if let Some(kubelet) = flags.iter().position(|flag| flag == "--kubelet-root") {
            flags.drain(kubelet..kubelet + 2);
        }
        all.extend(flags);
        all
    }

    /// A command without a repository.
    pub(crate) fn csi_command(&self, words: &[String]) -> Result<Snaphaul> {
        Ok(Snaphaul::new(words)?.args(&["--json"]))
    }

    /// The words of a restore to a new volume.
    pub(crate) fn restore_words(&self, point: &str) -> Vec<String> {
        let mut words = vec!["restore".to_owned(), point.to_owned(), "csi:new".to_owned()];
        words.extend(self.flags.iter().cloned());
        words
    }

    /// A volume of the driver holds what the volume holds.
    pub(crate) fn check_volume(&self, id: &str, volume: &Volume) -> Result<()> {
        let made = csi_proto::csi::Volume {
            volume_id: id.to_owned(),
            ..csi_proto::csi::Volume::default()
        };
        let block = tests::csi::client::block();
        let context = self
            .client
            .controller_publish(&made, "node-1")
            .unwrap_or_default();
        let reader = Attached::new(self.plugin, "reader", &made, &block, context)?;
        let differs = first_difference(&volume.mirror.path, reader.path(), 0, volume.mirror.size)?;
        ensure!(differs.is_none(), "volume {id} differs at {differs:?}");
        reader.detach()?;
        let _ = self.client.controller_unpublish(id, "node-1");
        Ok(())
    }

    /// What the driver was asked last and what the journals say, for the error of a test.
    pub(crate) fn shown(&self, driver: &TestDriver) -> String {
        let journals = texts(&self.scratch.join("state/csi/sessions"));
        format!("{}\n{journals}", driver.last_calls())
    }

    /// What is there beside what was there before: exactly these numbers of snapshots and volumes, and nothing else.
    pub(crate) fn left(&self, before: &Leaks, snapshots: usize, volumes: usize) -> Result<()> {
        let is_right = |left: &[String]| {
            let count = |what: &str| left.iter().filter(|line| line.starts_with(what)).count();
            (count("snapshot "), count("volume ")) == (snapshots, volumes)
                && left.len() == snapshots + volumes + self.loop_devices(left, volumes)
        };
        let left = self.plugin.left_once(before, &is_right)?;
        ensure!(
            is_right(&left),
            "left: {left:#?}, not {snapshots} snapshots and {volumes} volumes"
        );
        let journals = self.scratch.join("state/csi/sessions");
        let open = std::fs::read_dir(&journals).map_or(0, Iterator::count);
        ensure!(open == 0, "{open} journals are left");
        Ok(())
    }

    /// A driver that holds a loop device for each volume, attached or not, has one for each volume that stays.
    fn loop_devices(&self, left: &[String], volumes: usize) -> usize {
        let held = left.iter().filter(|line| line.starts_with("loop device"));
        held.count().min(volumes)
    }
}

impl Volume {
    /// Writes noise, and brings it to the disk, where a snapshot finds it.
    pub(crate) fn write(&mut self, offset: u64, len: u64, random: &mut Random) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(len)?];
        random.fill(&mut bytes);
        let device = File::options().write(true).open(self.writer.path())?;
        device.write_all_at(&bytes, offset)?;
        device.sync_all()?;
        let mirror = File::options().write(true).open(&self.mirror.path)?;
        mirror.write_all_at(&bytes, offset)?;
        Ok(())
    }
}

fn flags(plugin: &dyn Plugin, scratch: &Scratch) -> Vec<String> {
    let state = scratch.join("state");
    let flags = [
        ("--csi-socket", plugin.socket()),
        ("--kubelet-root", plugin.kubelet()),
        ("--csi-state", &state),
    ];
    flags
        .map(|(flag, path)| [flag.to_owned(), path.display().to_string()])
        .concat()
}

/// The same words with another value of a flag.
pub(crate) fn with_flag(mut words: Vec<String>, flag: &str, value: &str) -> Result<Vec<String>> {
    let at = words.iter().position(|word| word == flag);
    words[at.context("the flag is there")? + 1] = value.to_owned();
    Ok(words)
}

/// Who told what changed, and why.
pub(crate) fn says(outcome: &Outcome, who: &str, why: &str) -> Result<()> {
    let told = (
        outcome.string("changed_blocks")?,
        outcome.string("changed_blocks_reason")?,
    );
    // Every thirty points everything is read once.
    if why == DELTA && told.1.starts_with("30 points") {
        return Ok(());
    }
    ensure!(
        told.0 == who && told.1.contains(why),
        "not {who} for `{why}`: {told:?}"
    );
    Ok(())
}

/// The files below a folder, one after the other.
pub(crate) fn texts(folder: &Path) -> String {
    let shown = files(folder).into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        format!("{}\n{text}", file.display())
    });
    shown.collect()
}

/// The files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

/// What a run says that read only what changed.
pub(crate) const DELTA: &str = "what changed since";

/// Small: faults are about calls, not about data.
pub(crate) const SMALL: u64 = 4 * MIB;

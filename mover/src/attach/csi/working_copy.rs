//! Makes the device: from a snapshot, or empty.
//!
//! ```text
//!   KUBELET/plugins/kubernetes.io/csi/snaphaul/SESSION/staging
//!                                                     /publish/device
//! ```
//!
//! Owns: the steps forward, each announced in the journal first. Must not: take anything back (`undo` does), or use an id of the
//! driver in a path.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csi_proto::Code;

use super::answer::{Outcome, Purpose};
use super::call::{CallError, Pause};
use super::driver::{Driver, MadeSnapshot, MadeVolume};
use super::journal::Journal;
use super::state::{Entry, WantedSnapshot, WantedVolume};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

pub(super) const STAGING: &str = "staging";
pub(super) const PUBLISH: &str = "publish";
const DEVICE: &str = "device";
/// A device is looked for more and more rarely.
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// One run on its way to a device.
#[derive(Debug)]
pub(super) struct WorkingCopy<'a> {
    pub driver: &'a Driver,
    pub journal: &'a mut Journal,
    pub stop: &'a StopFlag,
}

impl WorkingCopy<'_> {
    /// Takes a snapshot and waits until volumes can be made from it.
    pub(super) fn snapshot(&mut self, wanted: &WantedSnapshot) -> Result<MadeSnapshot> {
        self.journal.write(&Entry::SnapshotWanted(wanted.clone()))?;
        let started = Instant::now();
        let mut pause = Pause::new();
        let mut snapshot = self.created_snapshot(wanted)?;
        self.journal.write(&Entry::SnapshotMade {
            id: snapshot.id.clone(),
            created: snapshot.created,
        })?;
        snapshot.check_source(wanted)?;
        // The same request again tells, and it tells of errors of the storage, too.
        while !snapshot.ready {
            if started.elapsed() > self.driver.caller().deadlines.snapshot {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("wait for the snapshot: {} is still at it", self.driver.name),
                )
                .object(&snapshot.id)
                .hint("look at the storage system, or give --csi-deadline more time"));
            }
            if !self.driver.caller().rest(pause.next(), Some(self.stop)) {
                self.stop.check()?;
            }
            let again = self
                .driver
                .create_snapshot(wanted, Purpose::Make, Some(self.stop))?;
            if again.id != snapshot.id {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "{} answers with another snapshot for the same name",
                        self.driver.name
                    ),
                )
                .object(&again.id)
                .hint("report it to the makers of the driver, and delete that snapshot by hand"));
            }
            snapshot = again;
        }
        self.driver.timing().snapshot_exists();
        Ok(snapshot)
    }

    fn created_snapshot(&mut self, wanted: &WantedSnapshot) -> Result<MadeSnapshot> {
        let answer = self
            .driver
            .create_snapshot(wanted, Purpose::Make, Some(self.stop));
        answer.or_else(|failed| {
            self.note_refusal(&failed, &Entry::SnapshotRefused)?;
            Err(failed.error)
        })
    }

    /// Makes a volume.
    pub(super) fn volume(&mut self, wanted: &WantedVolume) -> Result<MadeVolume> {
        self.asked_volume(wanted)?.map_err(Error::from)
    }

    /// Makes a volume of a snapshot, and tells how large it was to be. Some drivers tell of a snapshot how much it holds, not how
    /// large its volume is: the larger of both is asked for, and where the driver makes no such volume the size of the snapshot.
    pub(super) fn clone_of(
        &mut self,
        wanted: &WantedVolume,
        capacity: i64,
    ) -> Result<(MadeVolume, i64)> {
        let bytes = wanted.bytes.max(capacity);
        let is_larger = wanted.bytes > 0 && bytes > wanted.bytes;
        let larger = WantedVolume {
            bytes,
            ..wanted.clone()
        };
        match self.asked_volume(&larger)? {
            Err(failed)
                if is_larger
                    && failed.outcome == Outcome::NotDone
                    && failed.code == Some(Code::OutOfRange) =>
            {
                tracing::info!(error = %failed.error, bytes, "ask for the size of the snapshot");
                Ok((self.volume(wanted)?, wanted.bytes))
            }
            answer => Ok((answer?, bytes)),
        }
    }

    fn asked_volume(
        &mut self,
        wanted: &WantedVolume,
    ) -> Result<std::result::Result<MadeVolume, CallError>> {
        self.journal.write(&Entry::VolumeWanted(wanted.clone()))?;
        let answer = self
            .driver
            .create_volume(wanted, Purpose::Make, Some(self.stop));
        let volume = match answer {
            Ok(volume) => volume,
            Err(failed) => {
                self.note_refusal(&failed, &Entry::VolumeRefused)?;
                return Ok(Err(failed));
            }
        };
        note_volume(self.journal, &volume)?;
        volume.check_filled(wanted)?;
        Ok(Ok(volume))
    }

    /// A final refusal is noted, so that nobody asks again.
    fn note_refusal(&mut self, failed: &CallError, entry: &Entry) -> Result<()> {
        if failed.outcome == Outcome::NotDone {
            self.journal.write(entry)?;
        }
        Ok(())
    }

    /// Makes the device of a volume appear below `devices`.
    pub(super) fn device(
        &mut self,
        mut volume: MadeVolume,
        devices: &Path,
        readonly: bool,
    ) -> Result<PathBuf> {
        let abilities = self.driver.abilities.clone();
        let folder = devices.join(self.journal.session());
        let (staging, publish) = (folder.join(STAGING), folder.join(PUBLISH));
        self.journal.write(&Entry::FolderWanted {
            path: folder.clone(),
        })?;
        make_folders(&[&staging, &publish])?;
        if abilities.attach {
            let node = self.driver.node.clone();
            self.journal.write(&Entry::AttachWanted { node })?;
            self.driver.attach(&mut volume, readonly, Some(self.stop))?;
        }
        let staged = abilities.stage.then_some(staging.as_path());
        if let Some(path) = staged {
            self.journal.write(&Entry::StageWanted {
                path: path.to_owned(),
            })?;
            self.driver.stage(&volume, path, Some(self.stop))?;
        }
        let target = publish.join(DEVICE);
        self.journal.write(&Entry::PublishWanted {
            path: target.clone(),
        })?;
        self.publish(&volume, (staged, &target), readonly)?;
        self.driver.timing().of_driver(|| self.appeared(&target))?;
        Ok(target)
    }

    /// Not every driver takes a block volume for reading only. The clone is ours, and is opened for reading only all the same.
    fn publish(
        &self,
        volume: &MadeVolume,
        paths: (Option<&Path>, &Path),
        readonly: bool,
    ) -> Result<()> {
        match self
            .driver
            .publish(volume, paths, readonly, Some(self.stop))
        {
            Err(failed)
                if readonly
                    && matches!(
                        failed.code,
                        Some(Code::InvalidArgument | Code::FailedPrecondition)
                    ) =>
            {
                tracing::info!(error = %failed.error, "publish again, not for reading only");
                let again = self.driver.publish(volume, paths, false, Some(self.stop));
                again.map_err(Error::from)
            }
            other => other.map_err(Error::from),
        }
    }

    /// Waits for the device: some drivers answer before their kernel does.
    fn appeared(&self, path: &Path) -> Result<()> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(5));
        loop {
            let metadata = fs::metadata(path);
            if metadata
                .as_ref()
                .is_ok_and(|metadata| metadata.file_type().is_block_device())
            {
                return Ok(());
            }
            if started.elapsed() > self.driver.caller().deadlines.device {
                let why = match metadata {
                    Ok(_) => "something that is no block device".to_owned(),
                    Err(error) => format!("nothing: {error}"),
                };
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("find the device that {} published: there is {why}", self.driver.name),
                )
                .object(path.display())
                .hint("the driver must see the folder of --kubelet-root as this process does, and share its mounts"));
            }
            if !self.driver.caller().rest(pause, Some(self.stop)) {
                self.stop.check()?;
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }
}

/// Notes a volume as ours, which is deleted in the end.
///
/// # Errors
/// `Io` where it is the one that the run backs up, or the line cannot be brought to the disk.
pub(super) fn note_volume(journal: &mut Journal, volume: &MadeVolume) -> Result<()> {
    let begun = journal.state().begun.as_ref();
    volume.check_new(begun.and_then(|begun| begun.volume.as_deref()))?;
    let id = volume.id.clone();
    journal.write(&Entry::VolumeMade { id })
}

fn make_folders(folders: &[&Path]) -> Result<()> {
    for folder in folders {
        fs::create_dir_all(folder).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
                _ => ErrorKind::Io,
            };
            Error::new(kind, "make a folder for the device")
                .object(folder.display())
                .hint("run as root; --kubelet-root names the folder that the driver shares with this node")
                .source(error)
        })?;
    }
    Ok(())
}

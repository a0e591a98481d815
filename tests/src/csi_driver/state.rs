//! What the driver knows across restarts: one JSON file, replaced whole.
//!
//! Owns: the records of volumes and snapshots, and their images. Must not: attach anything.
//!
//! An image comes before its record and goes after it; one without a record is removed at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use csi_proto::Status;
use serde::{Deserialize, Serialize};

use super::access::Access;
use crate::part;

/// Parameter of volumes whose bases are named by change ids, as those of vSphere are: see [`State::base`].
pub(super) const CHANGE_IDS: &str = "changeIds";

const FILE: &str = "state.json";
const IMAGES: &str = "images";

/// What a volume was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    Snapshot(String),
    Volume(String),
}

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) capacity: u64,
    pub(super) source: Option<Source>,
    pub(super) parameters: BTreeMap<String, String>,
    /// How it was asked for.
    #[serde(default)]
    pub(super) accesses: Vec<Access>,
    /// By node: how it is published there, and whether for reading only.
    pub(super) published: BTreeMap<String, (Access, bool)>,
    /// Staging path and how it is staged there.
    pub(super) staged: Option<(PathBuf, Access)>,
    /// By target path: how it is published there, and whether for reading only.
    pub(super) targets: BTreeMap<PathBuf, (Access, bool)>,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) volume: String,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) created: u64,
    /// Which of the snapshots of all volumes it is, ascending.
    pub(super) number: u64,
    pub(super) group: Option<String>,
}

impl Snapshot {
    /// What names the state of its volume for ever. Such a driver writes it on the VolumeSnapshot that the snapshot was taken for;
    /// here the test does, which knows the name that csi-snapshotter makes of the object's UID.
    pub(super) fn change_id(&self) -> String {
        format!("52 {}/1", self.name)
    }
}

/// A snapshot of several volumes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) snapshots: BTreeSet<String>,
    pub(super) created: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Part of every handle, so that no two drivers give the same.
    pub(super) nonce: u64,
    pub(super) next: u64,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) groups: BTreeMap<String, Group>,
    /// Deleted snapshots of volumes with change ids, by these: what changed since then is still known.
    #[serde(default)]
    pub(super) past: BTreeMap<String, Snapshot>,
}

impl State {
    /// A number that was never given.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A volume, or NOT_FOUND.
    pub(super) fn volume(&mut self, id: &str) -> Result<&mut Volume, Status> {
        self.volumes
            .get_mut(id)
            .ok_or_else(|| Status::not_found(format!("there is no volume {id}")))
    }

    /// A snapshot, or NOT_FOUND.
    pub(super) fn snapshot(&self, id: &str) -> Result<&Snapshot, Status> {
        self.snapshots
            .get(id)
            .ok_or_else(|| Status::not_found(format!("there is no snapshot {id}")))
    }

    /// Whether the bases of a volume are named by change ids.
    pub(super) fn has_change_ids(&self, volume: &str) -> bool {
        let volume = self.volumes.get(volume);
        volume.is_some_and(|volume| volume.parameters.contains_key(CHANGE_IDS))
    }

    /// What `id` names as the base of `target`: a snapshot by its handle or, of a volume with change ids, a state by nothing but that,
    /// whether there still is a snapshot of it or not.
    pub(super) fn base(&self, id: &str, target: &Snapshot) -> Result<&Snapshot, Status> {
        if !self.has_change_ids(&target.volume) {
            return self.snapshot(id);
        }
        let there = self.snapshots.values().find(|one| one.change_id() == id);
        there
            .or_else(|| self.past.get(id))
            .ok_or_else(|| Status::invalid_argument(format!("{id} is no change id")))
    }
}

/// The state and its folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    state: Mutex<State>,
}

impl Store {
    /// Reads the state of a folder, or begins with nothing, and removes images that no record names.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join(IMAGES))?;
        let file = folder.join(FILE);
        let state = if file.exists() {
            serde_json::from_slice(&fs::read(&file)?)
                .with_context(|| format!("read {}", file.display()))?
        } else {
            State {
                nonce: now() % 1_000_000_007,
                ..State::default()
            }
        };
        let store = Self {
            folder: folder.to_owned(),
            state: Mutex::new(state),
        };
        store.remove_orphans()?;
        Ok(store)
    }

    fn remove_orphans(&self) -> Result<()> {
        let state = self
            .state
            .lock()
            .map_err(|_| anyhow!("nobody else has it yet"))?;
        let volumes = state.volumes.values().map(|volume| volume.image.clone());
        let snapshots = state.snapshots.values().chain(state.past.values());
        let known: BTreeSet<_> = volumes
            .chain(snapshots.map(|snapshot| snapshot.image.clone()))
            .collect();
        for entry in fs::read_dir(self.folder.join(IMAGES))? {
            let entry = entry?;
            if !known.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where an image is.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.folder.join(IMAGES).join(name)
    }

    /// Looks at the state.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let state = self
            .state
            .lock()
            .map_err(|_| Status::internal("a call panicked"))?;
        look(&mut state.clone())
    }

    /// Changes the state: all of it or, where `work` fails, nothing.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut state = self
            .state
            .lock()
            .map_err(|_| Status::internal("a call panicked"))?;
        let mut next = state.clone();
        let answer = work(&mut next)?;
        self.save(&next).map_err(internal)?;
        *state = next;
        Ok(answer)
    }

    fn save(&self, state: &State) -> Result<()> {
        let partial = self.folder.join("state.json.partial");
        fs::write(&partial, serde_json::to_vec(state)?)?;
        Ok(fs::rename(&partial, self.folder.join(FILE))?)
    }

    /// A new image of `size` bytes: all hole, or a copy of another one, by reflink where the file system can.
    pub(super) fn create(
        &self,
        name: &str,
        size: u64,
        content: Option<&str>,
    ) -> Result<(), Status> {
        self.make(name, size, content).map_err(internal)
    }

    fn make(&self, name: &str, size: u64, content: Option<&str>) -> Result<()> {
        let image = self.image(name);
        if let Some(content) = content {
            let mut copy = Command::new("cp");
            copy.args(["--reflink=auto", "--sparse=auto"])
                .arg(self.image(content))
                .arg(&image);
            part::run(&mut copy)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&image)?;
        Ok(file.set_len(size)?)
    }

    /// Removes an image; one that is not there is none to remove.
    pub(super) fn remove(&self, name: &str) -> Result<(), Status> {
        match fs::remove_file(self.image(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(internal(error.into()))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that are free in the folder.
    pub(super) fn free(&self) -> Result<u64, Status> {
        let facts =
            nix::sys::statvfs::statvfs(&self.folder).map_err(|error| internal(error.into()))?;
        Ok(facts.blocks_available() * facts.fragment_size())
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// An error of the machine, as the driver's caller sees it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn internal(error: anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
}

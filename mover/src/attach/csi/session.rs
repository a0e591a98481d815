//! A backup of one volume: from its snapshot to the device, and back to nothing but the base.
//!
//! Owns: when the snapshot becomes the base, and when the base before goes. Must not: move data.
//!
//! The point is committed before the new base is noted, and the new base is noted before the old one goes: whatever dies when,
//! the base of the newest point is there, or is found to be missing and everything is read.

use std::path::Path;
use std::time::Duration;

use changed_blocks::csi::CsiSnapshot;

use super::adoption::{self, Judged, Recorded};
use super::base::{Bases, KeptBase, VolumeLock};
use super::device::CsiDevice;
use super::driver::{Driver, MadeSnapshot};
use super::fitness;
use super::journal::Journal;
use super::options::CsiOptions;
use super::state::{Begun, Entry, Thing, VERSION, WantedSnapshot, WantedVolume};
use super::sweep::{self, IsCommitted};
use super::undo;
use super::working_copy::WorkingCopy;
use crate::device::source::{Source, SourceDevice as _, SourceOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// How long a volume is waited for that somebody else holds: who cleans up after others does not hold it longer.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Whether a snapshot stays for the next delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepBase {
    /// Where the driver needs it.
    Auto,
    /// Never; the next backup reads everything that is allocated.
    Never,
}

/// What is backed up, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the driver calls the volume.
    pub volume: &'a str,
    /// The repository.
    pub repository: &'a str,
    /// Name of the volume in there.
    pub name: &'a str,
    /// Whether the snapshot stays.
    pub keep: KeepBase,
    /// The snapshot that a run took for the newest point of this name, as that point says.
    pub recorded: Option<&'a Recorded>,
    /// A snapshot that somebody else made, to be backed up in place of a new one: it is read and never deleted.
    pub snapshot: Option<&'a str>,
    /// Read the device although somebody else uses it. A volume that was made for this backup is used by nobody, unless the
    /// machine takes hold of what it finds on it, or the driver hands out another device.
    pub allow_live: bool,
}

/// A backup that is under way. One that is dropped without an end is taken back by the next run.
#[derive(Debug)]
pub struct Backup {
    driver: Driver,
    options: CsiOptions,
    bases: Bases,
    journal: Journal,
    stop: StopFlag,
    begun: Begun,
    told: Vec<String>,
    /// A snapshot that no delta may be asked from, and why.
    refused: Option<(String, String)>,
    foreign: Option<String>,
    allow_live: bool,
    _lock: VolumeLock,
}

impl Backup {
    /// Checks that the driver can do it, takes hold of the volume, takes back what a run left of it that died meanwhile, and
    /// begins the journal.
    ///
    /// # Errors
    /// `InvalidRequest` where the driver cannot; `Unavailable` while another run works on the volume; `Io` where the note of the
    /// base before cannot be understood; what the disk answers.
    pub fn begin(
        driver: &Driver,
        options: &CsiOptions,
        subject: &Subject<'_>,
        is_committed: &IsCommitted<'_>,
    ) -> Result<Self> {
        driver.check_backup()?;
        let bases = Bases::at(options.bases(), options.locks());
        let held = (&*driver.name, &*driver.socket, subject.volume);
        let lock = bases.lock_within(held, LOCK_PATIENCE)?;
        let mut told = sweep::dead_runs_of(driver, options, subject.volume, is_committed)?;
        let begun = Begun {
            version: VERSION,
            driver: driver.name.clone(),
            socket: driver.socket.clone(),
            volume: Some(subject.volume.to_owned()),
            repository: subject.repository.to_owned(),
            name: subject.name.to_owned(),
            // What is not ours is kept by whoever made it.
            keeps_base: subject.keep == KeepBase::Auto
                && driver.needs_base()
                && subject.snapshot.is_none(),
        };
        // Whoever finds only after the backup that the note is broken has done all of it for nothing.
        let noted = bases.every(&begun)?;
        let judged = adoption::judge(driver, subject.volume, noted, subject.recorded);
        let mut journal = Journal::begin(&options.journals(), begun.clone())?;
        settle(&bases, &mut journal, &begun, &judged)?;
        told.extend(judged.told);
        Ok(Self {
            driver: driver.clone(),
            options: options.clone(),
            bases,
            journal,
            stop: StopFlag::default(),
            begun,
            told,
            refused: judged.refused,
            foreign: subject.snapshot.map(str::to_owned),
            allow_live: subject.allow_live,
            _lock: lock,
        })
    }

    /// What a person should know of what was there before.
    #[must_use]
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// Takes the snapshot, or finds the one that is to be read, and makes its device.
    ///
    /// # Errors
    /// What driver, system and disk answer; `Interrupted` on request. The caller ends with [`failed`](Self::failed).
    pub fn device(&mut self, stop: &StopFlag) -> Result<CsiDevice> {
        self.stop = stop.clone();
        let name = format!("snaphaul-{}", self.journal.session());
        let volume = self.begun.volume.clone().unwrap_or_default();
        // Before the snapshot, so that nobody waits for it afterwards.
        let mut capacity = match &self.foreign {
            None => self.driver.capacity(&volume, Some(stop)),
            Some(_) => 0,
        };
        let mut copy = WorkingCopy {
            driver: &self.driver,
            journal: &mut self.journal,
            stop,
        };
        let snapshot = match &self.foreign {
            Some(id) => foreign_snapshot(&self.driver, id, &volume)?,
            None => copy.snapshot(&WantedSnapshot {
                name: name.clone(),
                volume: volume.clone(),
                parameters: self.options.snapshot_parameters.clone(),
            })?,
        };
        stop.check()?;
        // The volume may have grown since somebody took his snapshot, which then tells better; unless it tells nothing.
        if self.foreign.is_some() && snapshot.bytes == 0 {
            capacity = self.driver.capacity(&volume, Some(stop));
        }
        let wanted = WantedVolume {
            name,
            snapshot: Some(snapshot.id.clone()),
            bytes: snapshot.bytes,
            parameters: self.options.parameters.clone(),
            topology: self.driver.place(),
            mode: Some(self.driver.abilities.controller_mode()),
        };
        let (clone, asked) = copy.clone_of(&wanted, capacity)?;
        let promised = asked.max(clone.bytes);
        let path = copy.device(clone, &self.options.devices(), true)?;
        self.open(&path, (&snapshot, promised), &volume, stop)
    }

    fn open(
        &self,
        path: &Path,
        (snapshot, promised): (&MadeSnapshot, i64),
        volume: &str,
        stop: &StopFlag,
    ) -> Result<CsiDevice> {
        let allow_live = self.allow_live;
        let source = Source::open(path, &SourceOptions { allow_live })?;
        let promised = u64::try_from(snapshot.bytes.max(promised)).unwrap_or(0);
        let warning = fitness::check_size(&self.driver.name, promised, source.size())
            .map_err(|error| error.object(volume))?;
        let warnings = Vec::from_iter(warning);
        let mut identity = CsiSnapshot::new(&self.driver.name, volume, &snapshot.id)
            .with_driver_version(&self.driver.version)
            .created(snapshot.created);
        if self.foreign.is_none() {
            identity = identity.taken_for(&self.begun.repository);
        }
        let device = CsiDevice::new(source, &self.driver, identity, stop, warnings)
            .refusing(self.refused.clone());
        tracing::info!(
            device = %path.display(),
            snapshot = snapshot.id,
            size = device.size(),
            "the snapshot is attached"
        );
        Ok(device)
    }

    /// The point is committed: the snapshot becomes the base where one is needed, and everything else goes. Whether a base is
    /// kept, and what could not be taken back, although the point is good: the next run goes on with it.
    pub fn committed(mut self) -> (bool, Result<()>) {
        let snapshot = self.snapshot().map(str::to_owned);
        let begun = self.begun.clone();
        let bases = self.bases.clone();
        let cleaned = self.announce_base().and_then(|()| {
            let journal = self.journal;
            undo::all(&self.driver, &bases, journal)
        });
        // The note is written before anything is taken back, and says it whatever came of that.
        let noted = bases.find(&begun).ok().flatten();
        let is_kept = begun.keeps_base && noted.map(|base| base.snapshot) == snapshot;
        (is_kept, cleaned)
    }

    fn announce_base(&mut self) -> Result<()> {
        let old = self.bases.find(&self.begun)?.map(|base| base.snapshot);
        // Whoever named our own base as the snapshot to read still has it afterwards.
        let old = old.filter(|old| self.foreign.as_deref() != Some(old.as_str()));
        match (self.begun.keeps_base, old) {
            (true, old) => self.journal.write(&Entry::KeepBase { old })?,
            (false, Some(old)) => self.journal.write(&Entry::DropBase { old })?,
            (false, None) => {}
        }
        Ok(())
    }

    /// The backup failed, and whether there is a point may be known: where it was committed all the same, its snapshot is the
    /// base; where nobody can tell, the snapshot is left to the next run, which asks again.
    ///
    /// # Errors
    /// What could not be taken back, or why it is not known: the next run goes on with it.
    pub fn failed_at_the_end(mut self, is_committed: &IsCommitted<'_>) -> Result<()> {
        let snapshot = self.snapshot().filter(|_| self.begun.keeps_base);
        let known = snapshot.map_or(Ok(Some(false)), |id| is_committed(&self.begun, id));
        match known {
            Ok(Some(true)) => self.committed().1,
            Ok(Some(false)) => self.failed(),
            Ok(None) => undo::clone(&self.driver, &self.bases, &mut self.journal),
            Err(error) => {
                undo::clone(&self.driver, &self.bases, &mut self.journal)?;
                Err(error.context("look whether the point was committed"))
            }
        }
    }

    /// There is no point: everything that was made goes, the base before stays.
    ///
    /// # Errors
    /// What could not be taken back: the next run goes on with it.
    pub fn failed(self) -> Result<()> {
        undo::all_unless(&self.driver, &self.bases, self.journal, Some(&self.stop))
    }

    /// What the driver calls the snapshot, once there is one.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        match &self.journal.state().snapshot {
            Thing::Made(id) => Some(id),
            Thing::Absent | Thing::Wanted(_) => None,
        }
    }
}

/// Brings what is noted in line with what was judged: what has to go is announced before its note may be replaced.
fn settle(bases: &Bases, journal: &mut Journal, begun: &Begun, judged: &Judged) -> Result<()> {
    for stale in &judged.stale {
        let id = stale.snapshot.clone();
        journal.write(&Entry::StaleBase { id })?;
    }
    for foreign in &judged.foreign {
        bases.forget(foreign)?;
    }
    match &judged.adopted {
        None => Ok(()),
        Some(base) => bases.note(&KeptBase::of(begun, base.id.clone()).taken_at(base.created)),
    }
}

/// The snapshot of somebody else. It stands in no journal, so that nothing ever takes it back.
fn foreign_snapshot(driver: &Driver, id: &str, volume: &str) -> Result<MadeSnapshot> {
    let refused = |kind: ErrorKind, message: &str| Error::new(kind, message).object(id);
    if !driver.abilities.list_snapshots {
        let message = "look up a snapshot: the driver does not list them";
        return Err(refused(ErrorKind::InvalidRequest, message)
            .hint("back up the volume itself, csi:VOLUME_ID: a snapshot is taken for it"));
    }
    let found = driver.find_snapshot(id, volume)?.ok_or_else(|| {
        refused(
            ErrorKind::NotFound,
            &format!("find this snapshot of {volume}"),
        )
        .hint("write csi:VOLUME_ID@SNAPSHOT_ID with the handles of volume and snapshot")
    })?;
    if !found.ready {
        let message = "back up a snapshot that is not ready yet";
        return Err(refused(ErrorKind::Unavailable, message).hint("run again when it is"));
    }
    driver.timing().snapshot_exists();
    Ok(found)
}

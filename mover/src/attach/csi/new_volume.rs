//! A volume that a restore makes.
//!
//! Owns: when it is handed over. Must not: write to it.

use std::path::PathBuf;

use super::base::Bases;
use super::driver::Driver;
use super::journal::Journal;
use super::options::CsiOptions;
use super::state::{Begun, Entry, Thing, VERSION, WantedVolume};
use super::undo;
use super::working_copy::WorkingCopy;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// A volume that is being made. One that is dropped without an end is deleted by the next run.
#[derive(Debug)]
pub struct NewVolume {
    driver: Driver,
    options: CsiOptions,
    bases: Bases,
    journal: Journal,
    stop: StopFlag,
}

impl NewVolume {
    /// Checks that the driver can do it, and begins the journal.
    ///
    /// # Errors
    /// `InvalidRequest` where the driver cannot; what the disk answers.
    pub fn begin(driver: &Driver, options: &CsiOptions, repository: &str) -> Result<Self> {
        let why = match (driver.profile.block, driver.abilities.volumes) {
            (false, _) => Some("it serves files, not block devices"),
            (true, false) => Some("it makes no volumes"),
            (true, true) => None,
        };
        if let Some(why) = why {
            let message = format!("make a volume of {}: {why}", driver.name);
            return Err(Error::new(ErrorKind::InvalidRequest, message)
                .object(driver.socket.display())
                .hint("`snaphaul csi info` tells what the driver can do"));
        }
        let begun = Begun {
            version: VERSION,
            driver: driver.name.clone(),
            socket: driver.socket.clone(),
            volume: None,
            repository: repository.to_owned(),
            name: String::new(),
            keeps_base: false,
        };
        Ok(Self {
            driver: driver.clone(),
            options: options.clone(),
            bases: Bases::at(options.bases(), options.locks()),
            journal: Journal::begin(&options.journals(), begun)?,
            stop: StopFlag::default(),
        })
    }

    /// Makes a volume of at least `bytes`, and its device.
    ///
    /// # Errors
    /// What driver, system and disk answer; `Interrupted` on request. The caller ends with [`failed`](Self::failed).
    pub fn device(&mut self, bytes: u64, stop: &StopFlag) -> Result<PathBuf> {
        let bytes = i64::try_from(bytes).map_err(|error| {
            Error::new(ErrorKind::InvalidRequest, "make a volume of this size").source(error)
        })?;
        self.stop = stop.clone();
        let name = format!("snaphaul-{}", self.journal.session());
        let mut copy = WorkingCopy {
            driver: &self.driver,
            journal: &mut self.journal,
            stop,
        };
        let volume = copy.volume(&WantedVolume {
            name,
            snapshot: None,
            bytes,
            parameters: self.options.parameters.clone(),
            topology: self.driver.place(),
            mode: Some(self.driver.abilities.controller_mode()),
        })?;
        copy.device(volume, &self.options.devices(), false)
    }

    /// Everything is written: from here on the volume is the user's, and then it is detached. What the driver calls it, and what
    /// could not be detached or forgotten, which the next run does.
    ///
    /// # Errors
    /// `Io`, `NoSpace` where it cannot be noted whose it is: the next run deletes it.
    pub fn handed_over(mut self) -> Result<(String, Result<()>)> {
        let Thing::Made(id) = self.journal.state().volume.clone() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "hand over a volume that was never made",
            ));
        };
        let kept = self.journal.write(&Entry::VolumeKept);
        kept.map_err(|error| {
            error.context(format!(
                "note that the new volume {id} is complete; it is, and the next run with this driver deletes it"
            ))
        })?;
        let left = undo::all(&self.driver, &self.bases, self.journal);
        Ok((id, left))
    }

    /// The restore failed: the volume goes.
    ///
    /// # Errors
    /// What could not be taken back: the next run goes on with it.
    pub fn failed(self) -> Result<()> {
        undo::all_unless(&self.driver, &self.bases, self.journal, Some(&self.stop))
    }
}

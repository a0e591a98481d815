//! What names a snapshot of a CSI driver, and which one may be the base of another.
//!
//! Owns: the record and the pairing. Must not: take a handle apart, or use it in a path: handles and change ids are opaque, and
//! hold spaces and slashes (vSphere).

use super::NAME;
use crate::identity::Identity;
use crate::source::{Base, SourceError};

/// A snapshot, as its driver names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiSnapshot {
    /// Name of the driver (`GetPluginInfo`).
    pub driver: String,
    /// Version of the driver, where it is known: after another one everything is read once.
    pub driver_version: Option<String>,
    /// Handle of the volume.
    pub volume: String,
    /// Handle of the snapshot.
    pub snapshot: String,
    /// What the driver takes as a base in place of the handle, where it has such a thing: the snapshot itself is not needed any
    /// more then.
    pub change_id: Option<String>,
    /// The repository that it was taken for, where that was done by who records it: such a snapshot may be deleted once no point of
    /// that repository needs it.
    pub taken_for: Option<String>,
    /// When it was taken, by the clock of the storage: seconds and nanoseconds since 1970. Of two the later one is the newer state.
    pub created: Option<(i64, i32)>,
}

impl CsiSnapshot {
    /// A snapshot that is its own base.
    #[must_use]
    pub fn new(driver: &str, volume: &str, snapshot: &str) -> Self {
        Self {
            driver: driver.to_owned(),
            driver_version: None,
            volume: volume.to_owned(),
            snapshot: snapshot.to_owned(),
            change_id: None,
            taken_for: None,
            created: None,
        }
    }

    /// The same with what its driver takes as a base.
    #[must_use]
    pub fn with_change_id(mut self, change_id: &str) -> Self {
        self.change_id = Some(change_id.to_owned());
        self
    }

    /// The same with the version of its driver.
    #[must_use]
    pub fn with_driver_version(mut self, version: &str) -> Self {
        self.driver_version = Some(version.to_owned());
        self
    }

    /// The same, taken for this repository by who records it.
    #[must_use]
    pub fn taken_for(mut self, repository: &str) -> Self {
        self.taken_for = Some(repository.to_owned());
        self
    }

    /// The same, taken at this time of the storage.
    #[must_use]
    pub fn created(mut self, at: Option<(i64, i32)>) -> Self {
        self.created = at;
        self
    }

    /// Why this is an older state than the recorded one, where both times are known.
    #[must_use]
    pub fn goes_back(&self, record: &Identity) -> Option<String> {
        let recorded = Self::from_identity(record).ok()?;
        let (mine, theirs) = (self.created?, recorded.created?);
        let is_same_volume = recorded.driver == self.driver && recorded.volume == self.volume;
        (is_same_volume && mine < theirs).then(|| {
            format!(
                "snapshot {} was taken before {}, which the parent was made from",
                self.snapshot, recorded.snapshot
            )
        })
    }

    /// What the driver takes as a base.
    #[must_use]
    pub fn base_id(&self) -> &str {
        self.change_id.as_deref().unwrap_or(&self.snapshot)
    }

    /// The record that a point keeps.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let created = self
            .created
            .map(|(seconds, nanos)| format!("{seconds}.{nanos:09}"));
        let optional = [
            ("created", &created),
            ("change-id", &self.change_id),
            ("driver-version", &self.driver_version),
            ("taken-for", &self.taken_for),
        ];
        let record = Identity::new(NAME)
            .with("driver", &self.driver)
            .with("volume", &self.volume)
            .with("snapshot", &self.snapshot);
        optional
            .into_iter()
            .filter_map(|(fact, value)| Some((fact, value.as_ref()?)))
            .fold(record, |record, (fact, value)| record.with(fact, value))
    }

    /// The snapshot that a record names.
    ///
    /// # Errors
    /// `FullBackup` with what is wrong with the record, which comes from a repository.
    pub fn from_identity(record: &Identity) -> Result<Self, SourceError> {
        if record.source() != NAME {
            let other = record.source();
            return Err(SourceError::full(format!(
                "the parent was recorded by {other}, not by {NAME}"
            )));
        }
        let fact = |name: &str| {
            let value = record.fact(name).filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| {
                SourceError::full(format!("the parent's record has no {name} of {NAME}"))
            })
        };
        Ok(Self {
            driver: fact("driver")?,
            driver_version: record.fact("driver-version").map(str::to_owned),
            volume: fact("volume")?,
            snapshot: fact("snapshot")?,
            change_id: record.fact("change-id").map(str::to_owned),
            taken_for: record.fact("taken-for").map(str::to_owned),
            created: record.fact("created").and_then(parse_created),
        })
    }

    /// What the driver is to take as the base of this snapshot.
    ///
    /// Services pass a base on without looking at it, and not every driver compares the volumes of a pair: that is done here.
    ///
    /// # Errors
    /// `FullBackup` where the recorded base is of another driver or volume, or is not the one that a person named.
    pub fn pair_with(&self, base: &Base<'_>) -> Result<String, SourceError> {
        let recorded = Self::from_identity(base.record)?;
        for (what, theirs, mine) in [
            ("driver", &recorded.driver, &self.driver),
            ("volume", &recorded.volume, &self.volume),
        ] {
            if theirs != mine {
                return Err(SourceError::full(format!(
                    "the base is of {what} {theirs}, not of {mine}"
                )));
            }
        }
        if recorded.change_id.is_some() != self.change_id.is_some() {
            let [with, without] = if self.change_id.is_some() {
                ["the target", "the base"]
            } else {
                ["the base", "the target"]
            };
            return Err(SourceError::full(format!(
                "{with} has a change id, {without} has none: they cannot be compared"
            )));
        }
        if let Some(named) = base.named
            && named != recorded.snapshot
            && Some(named) != recorded.change_id.as_deref()
        {
            return Err(SourceError::full(format!(
                "take {named} as the base: the parent was made from {}",
                recorded.base_id()
            )));
        }
        Ok(recorded.base_id().to_owned())
    }
}

/// A time as [`CsiSnapshot::identity`] writes it, seconds and nanoseconds; anything else is no time.
#[must_use]
pub fn parse_created(text: &str) -> Option<(i64, i32)> {
    let (seconds, nanos) = text.split_once('.')?;
    Some((seconds.parse().ok()?, nanos.parse().ok()?))
}

#[cfg(test)]
mod tests;

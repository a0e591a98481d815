//! What a driver says of the things that it made, and whether they are those that were asked for.
//!
//! Owns: the checks of an answer. Must not: ask the driver, or decide what becomes of a thing that is another one.
//!
//! A driver that does not know a field of a request ignores it: `content_source` in the answer is how it shows that the volume holds
//! the snapshot. The sidecar that provisions volumes in a cluster demands it, too.

use std::collections::BTreeMap;

use csi_proto::csi::volume_content_source::Type;
use csi_proto::csi::{Snapshot, Volume};

use super::super::state::{WantedSnapshot, WantedVolume};
use crate::error::{Error, ErrorKind, Result};

/// What a driver says of a volume that it made.
#[derive(Clone, Debug)]
pub struct MadeVolume {
    /// What it calls it.
    pub id: String,
    /// Bytes; 0 where it does not say.
    pub bytes: i64,
    /// What it was filled from.
    pub(super) source: Option<Type>,
    pub(super) context: BTreeMap<String, String>,
    pub(super) publish: BTreeMap<String, String>,
}

/// What a driver says of a snapshot.
#[derive(Clone, Debug)]
pub struct MadeSnapshot {
    /// What it calls it.
    pub id: String,
    /// Bytes of a volume made from it; 0 where it does not say.
    pub bytes: i64,
    /// Whether volumes can be made from it.
    pub ready: bool,
    /// When it was taken: seconds and nanoseconds.
    pub created: Option<(i64, i32)>,
    /// The volume that it was taken of; empty where it does not say.
    pub(super) source: String,
}

impl From<Snapshot> for MadeSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.snapshot_id,
            source: snapshot.source_volume_id,
            bytes: snapshot.size_bytes.max(0),
            ready: snapshot.ready_to_use,
            created: snapshot
                .creation_time
                .filter(|time| time.seconds > 0)
                .map(|time| (time.seconds, time.nanos)),
        }
    }
}

impl From<Volume> for MadeVolume {
    fn from(volume: Volume) -> Self {
        Self {
            id: volume.volume_id,
            bytes: volume.capacity_bytes.max(0),
            source: volume.content_source.and_then(|source| source.r#type),
            context: volume.volume_context,
            publish: BTreeMap::new(),
        }
    }
}

impl MadeVolume {
    /// Whether the driver says that it was made of this snapshot.
    #[must_use]
    pub fn is_made_of(&self, snapshot: &str) -> bool {
        matches!(&self.source, Some(Type::Snapshot(source)) if source.snapshot_id == snapshot)
    }

    /// That it is not the volume of the user: what is noted as made is deleted in the end.
    ///
    /// # Errors
    /// `Io`, before anything may be noted.
    pub fn check_new(&self, user: Option<&str>) -> Result<()> {
        if user != Some(self.id.as_str()) {
            return Ok(());
        }
        let message =
            "the driver answers with the volume itself, not with one made of its snapshot";
        Err(Error::new(ErrorKind::Io, message)
            .object(&self.id)
            .hint("report it to the makers of the driver: the volume is left as it is"))
    }

    /// That it was filled from the snapshot that was asked for.
    ///
    /// # Errors
    /// `Io`: it is ours, and holds something else.
    pub fn check_filled(&self, wanted: &WantedVolume) -> Result<()> {
        let Some(snapshot) = &wanted.snapshot else {
            return Ok(());
        };
        let holds = match &self.source {
            Some(Type::Snapshot(source)) if source.snapshot_id == *snapshot => return Ok(()),
            Some(Type::Snapshot(source)) => format!("the snapshot {}", source.snapshot_id),
            Some(Type::Volume(source)) => format!("the volume {}", source.volume_id),
            None => "nothing".to_owned(),
        };
        let message = format!(
            "make a volume of the snapshot {snapshot}: the driver says that it filled the volume from {holds}"
        );
        Err(Error::new(ErrorKind::Io, message)
            .object(&self.id)
            .hint("the driver cannot make volumes of snapshots, or not with these parameters: look at its log; nothing was backed up"))
    }
}

impl MadeSnapshot {
    /// One of which only the id is known, because it is listed.
    pub(in crate::attach::csi) fn listed(id: String, wanted: &WantedSnapshot) -> Self {
        Self {
            id,
            bytes: 0,
            ready: false,
            created: None,
            source: wanted.volume.clone(),
        }
    }

    /// Whether it is of this volume, as far as the driver says.
    #[must_use]
    pub fn is_of(&self, volume: &str) -> bool {
        self.source.is_empty() || self.source == volume
    }

    /// That it was taken of the volume that was asked for.
    ///
    /// # Errors
    /// `Io`: it has our name, and is of another volume.
    pub fn check_source(&self, wanted: &WantedSnapshot) -> Result<()> {
        if self.is_of(&wanted.volume) {
            return Ok(());
        }
        let message = format!(
            "take a snapshot of the volume {}: the driver says that it is one of {}",
            wanted.volume, self.source
        );
        Err(Error::new(ErrorKind::Io, message)
            .object(&self.id)
            .hint("give the id as the driver writes it, the volumeHandle of the PersistentVolume; nothing was backed up"))
    }
}

#[cfg(test)]
mod tests {
    use csi_proto::csi::volume_content_source::{SnapshotSource, VolumeSource};

    use super::super::super::journal::Journal;
    use super::super::super::state::{Begun, Thing, VERSION};
    use super::super::super::working_copy::note_volume;
    use super::*;

    fn made(source: Option<Type>) -> MadeVolume {
        MadeVolume {
            id: "clone".to_owned(),
            bytes: 0,
            source,
            context: BTreeMap::new(),
            publish: BTreeMap::new(),
        }
    }

    fn of_snapshot(id: &str) -> Option<Type> {
        Some(Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_owned(),
        }))
    }

    #[test]
    fn a_volume_holds_the_snapshot_or_is_refused() {
        let wanted = |snapshot: Option<&str>| WantedVolume {
            name: "n".to_owned(),
            snapshot: snapshot.map(str::to_owned),
            bytes: 0,
            parameters: BTreeMap::new(),
            topology: None,
            mode: None,
        };
        let of_volume = Some(Type::Volume(VolumeSource {
            volume_id: "s".to_owned(),
        }));
        made(of_snapshot("s"))
            .check_filled(&wanted(Some("s")))
            .unwrap();
        for (source, named) in [
            (None, "from nothing"),
            (of_snapshot("other"), "snapshot other"),
            (of_volume, "volume s"),
        ] {
            let refused = made(source).check_filled(&wanted(Some("s"))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Io);
            assert!(refused.message().contains(named), "{refused}");
            assert!(refused.hint_text().is_some());
        }
        // One that begins empty.
        made(None).check_filled(&wanted(None)).unwrap();
    }

    #[test]
    fn the_volume_of_the_user_is_never_ours() {
        made(None).check_new(None).unwrap();
        made(None).check_new(Some("v")).unwrap();
        let refused = made(None).check_new(Some("clone")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
    }

    #[test]
    fn the_volume_of_the_user_is_never_noted() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun {
            version: VERSION,
            driver: "d".to_owned(),
            socket: "/s".into(),
            volume: Some("v".to_owned()),
            repository: "r".to_owned(),
            name: "n".to_owned(),
            keeps_base: false,
        };
        let mut journal = Journal::begin(folder.path(), begun).unwrap();
        let user = MadeVolume {
            id: "v".to_owned(),
            ..made(None)
        };
        note_volume(&mut journal, &user).unwrap_err();
        assert_eq!(journal.state().volume, Thing::Absent);
        note_volume(&mut journal, &made(None)).unwrap();
        assert_eq!(journal.state().volume, Thing::Made("clone".to_owned()));
    }

    #[test]
    fn a_snapshot_is_of_the_volume_or_refused() {
        let wanted = WantedSnapshot {
            name: "n".to_owned(),
            volume: "v".to_owned(),
            parameters: BTreeMap::new(),
        };
        let snapshot = |source: &str| MadeSnapshot {
            id: "s".to_owned(),
            bytes: 0,
            ready: true,
            created: None,
            source: source.to_owned(),
        };
        snapshot("v").check_source(&wanted).unwrap();
        snapshot("").check_source(&wanted).unwrap();
        let refused = snapshot("w").check_source(&wanted).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
    }
}

//! What is known of each volume, for its gauges.
//!
//! ```text
//!   completed backups ─► last success, last point ┐
//!   base snapshots ─► how many, how old           ├─► volumes whose claim is bound
//!   PersistentVolumes ─► which claims are bound   ┘
//! ```
//!
//! Owns: joining them. Must not: ask the API server (the sweep lists what it needs anyway).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::recorded::Recorded;
use super::sync;
use super::telemetry::{Volume, VolumeState};
use crate::kube::api::{Phase, PodVolumeBackup, names};
use crate::kube::foreign::snapshot::VolumeSnapshotContent;

/// The volume of a backup, and what the backup tells of it; nothing of one that is not Completed.
#[must_use]
pub fn of_backup(backup: &PodVolumeBackup) -> Option<(Volume, VolumeState)> {
    let status = backup.status.as_ref()?;
    // What another cluster stored says nothing about the volumes of this one.
    if status.phase != Some(Phase::Completed) || sync::is_granted(&backup.metadata) {
        return None;
    }
    let recorded = status.order.as_ref()?.recorded.as_deref()?;
    let volume = Volume {
        namespace: backup.namespace()?,
        claim: Recorded::from_json(recorded)?.claim,
        repository: backup.spec.repository_ref.name.clone(),
    };
    let snapshot = status.snapshot.as_ref();
    let taken = snapshot.and_then(|snapshot| snapshot.creation_time.clone());
    let state = VolumeState {
        success: status.completion_time.clone(),
        point: taken.or_else(|| status.start_time.clone()),
        size: status.progress.map(|progress| progress.total_bytes),
        new: status.incremental_bytes,
        bases: None,
    };
    Some((volume, state))
}

/// The claims that volumes are bound to, by driver and handle of the volume.
#[must_use]
pub fn claims(volumes: &[PersistentVolume]) -> BTreeMap<(String, String), (String, String)> {
    let of = |volume: &PersistentVolume| {
        let spec = volume.spec.as_ref()?;
        let phase = volume.status.as_ref()?.phase.as_deref()?;
        let (csi, claim) = (spec.csi.as_ref()?, spec.claim_ref.as_ref()?);
        let claim = (claim.namespace.clone()?, claim.name.clone()?);
        let handle = (csi.driver.clone(), csi.volume_handle.clone());
        (phase == "Bound").then_some((handle, claim))
    };
    volumes.iter().filter_map(of).collect()
}

/// All volumes that are bound and have a point or a base. A volume whose backups were deleted keeps what was told of it before.
#[must_use]
pub fn known(
    backups: impl IntoIterator<Item = (Volume, VolumeState)>,
    bases: &[VolumeSnapshotContent],
    claims: &BTreeMap<(String, String), (String, String)>,
    before: impl IntoIterator<Item = Volume>,
) -> BTreeMap<Volume, VolumeState> {
    let bound: BTreeSet<&(String, String)> = claims.values().collect();
    let mut volumes = BTreeMap::<Volume, VolumeState>::new();
    let is_bound =
        |volume: &Volume| bound.contains(&(volume.namespace.clone(), volume.claim.clone()));
    for volume in before.into_iter().filter(is_bound) {
        volumes.insert(volume, VolumeState::default());
    }
    for (volume, state) in backups {
        if !is_bound(&volume) {
            continue;
        }
        let known = volumes.entry(volume).or_default();
        if seconds(&state.success) >= seconds(&known.success) {
            *known = state;
        }
    }
    for base in bases {
        let note = |key: &str| base.annotations().get(key).cloned().unwrap_or_default();
        let handle = (base.spec.driver.clone(), note(names::BASE_VOLUME));
        let Some((namespace, claim)) = claims.get(&handle).cloned() else {
            continue;
        };
        let volume = Volume {
            namespace,
            claim,
            repository: note(names::BASE_REPOSITORY),
        };
        let state = volumes.entry(volume).or_default();
        let made = base.creation_timestamp();
        let (count, oldest) = state.bases.take().unwrap_or_default();
        let older = match (&oldest, &made) {
            (Some(old), Some(new)) => old.0 <= new.0,
            (known, _) => known.is_some(),
        };
        state.bases = Some((count + 1, if older { oldest } else { made }));
    }
    for state in volumes.values_mut() {
        state.bases.get_or_insert((0, None));
    }
    volumes
}

fn seconds(time: &Option<Time>) -> i64 {
    time.as_ref().map_or(i64::MIN, |time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn volume(claim: &str) -> Volume {
        Volume {
            namespace: "ns".to_owned(),
            claim: claim.to_owned(),
            repository: "r".to_owned(),
        }
    }

    fn backed_up(claim: &str, second: i64) -> (Volume, VolumeState) {
        let state = VolumeState {
            success: Some(Time(Timestamp::from_second(second).unwrap())),
            new: Some(second),
            ..VolumeState::default()
        };
        (volume(claim), state)
    }

    fn claims_of(names: &[&str]) -> BTreeMap<(String, String), (String, String)> {
        let one = |name: &&str| {
            let handle = ("d".to_owned(), format!("handle-{name}"));
            (handle, ("ns".to_owned(), (*name).to_owned()))
        };
        names.iter().map(one).collect()
    }

    fn base(claim: &str, second: i64) -> VolumeSnapshotContent {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": format!("b{second}"),
                "creationTimestamp": Timestamp::from_second(second).unwrap().to_string(),
                "annotations": {
                    names::BASE_VOLUME: format!("handle-{claim}"),
                    names::BASE_REPOSITORY: "r",
                },
            },
            "spec": {
                "driver": "d", "deletionPolicy": "Retain", "source": {"snapshotHandle": "s"},
                "volumeSnapshotRef": {"name": "b", "namespace": "s"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_backup_of_a_bound_volume_counts() {
        let backups = [
            backed_up("a", 5),
            backed_up("a", 9),
            backed_up("a", 7),
            backed_up("gone", 8),
        ];
        let known = known(
            backups,
            &[],
            &claims_of(&["a", "never"]),
            [volume("old"), volume("gone")],
        );
        assert_eq!(known.keys().collect::<Vec<_>>(), [&volume("a")]);
        let state = &known[&volume("a")];
        assert_eq!((state.new, &state.bases), (Some(9), &Some((0, None))));
    }

    #[test]
    fn bases_are_counted_with_the_age_of_the_oldest() {
        let bases = [
            base("a", 30),
            base("a", 20),
            base("a", 40),
            base("other", 1),
        ];
        let known = known([backed_up("a", 5)], &bases, &claims_of(&["a"]), []);
        let (count, oldest) = known[&volume("a")].bases.clone().unwrap();
        assert_eq!((count, seconds(&oldest)), (3, 20));
    }

    #[test]
    fn a_volume_whose_backups_were_deleted_stays() {
        let known = known([], &[], &claims_of(&["a"]), [volume("a")]);
        let state = &known[&volume("a")];
        assert_eq!((&state.success, &state.bases), (&None, &Some((0, None))));
    }
}

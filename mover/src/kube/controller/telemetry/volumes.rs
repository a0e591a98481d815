//! Gauges of each volume.
//!
//! Owns: names, and that a volume's gauges go with it. Must not: know where the numbers come from.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus::{GaugeVec, IntGaugeVec, Registry};

use super::repositories::seconds;
use crate::metrics::register::{floats, gauges};

const LABELS: [&str; 3] = ["namespace", "persistentvolumeclaim", "repository"];

/// A volume in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Namespace of its claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The repository.
    pub repository: String,
}

impl Volume {
    fn labels(&self) -> [&str; 3] {
        [&self.namespace, &self.claim, &self.repository]
    }
}

/// What is known of a volume. What is absent stays as it was, except for bases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeState {
    /// When the last successful backup ended.
    pub success: Option<Time>,
    /// The moment that its point shows.
    pub point: Option<Time>,
    /// Bytes of the volume at that moment.
    pub size: Option<i64>,
    /// Bytes that it brought.
    pub new: Option<i64>,
    /// Base snapshots that are kept, and when the oldest was made. Absent where nobody counted.
    pub bases: Option<(i64, Option<Time>)>,
}

#[derive(Debug)]
pub(super) struct VolumeGauges {
    success: GaugeVec,
    point: GaugeVec,
    size: IntGaugeVec,
    new: IntGaugeVec,
    bases: IntGaugeVec,
    base: GaugeVec,
    known: Mutex<BTreeSet<Volume>>,
}

impl VolumeGauges {
    pub(super) fn new(r: &Registry) -> Self {
        let time = |name, help| floats(r, name, help, &LABELS);
        let number = |name, help| gauges(r, name, help, &LABELS);
        Self {
            success: time(
                "volume_last_success_timestamp_seconds",
                "When the last successful backup of the volume ended.",
            ),
            point: time(
                "volume_last_point_timestamp_seconds",
                "The moment that the last point of the volume shows.",
            ),
            size: number(
                "volume_last_point_size_bytes",
                "Size of the volume in its last point.",
            ),
            new: number(
                "volume_last_point_new_bytes",
                "Bytes of the last point of the volume that were new to the repository.",
            ),
            bases: number(
                "volume_base_snapshots",
                "Base snapshots of the volume that are kept.",
            ),
            base: time(
                "volume_base_timestamp_seconds",
                "When the base snapshot of the volume was made.",
            ),
            known: Mutex::default(),
        }
    }

    pub(super) fn add(&self, volume: &Volume, state: VolumeState) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(volume.clone());
        self.set(volume, state);
    }

    pub(super) fn replace(&self, now: impl IntoIterator<Item = (Volume, VolumeState)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = std::mem::take(&mut *known);
        for (volume, state) in now {
            left.remove(&volume);
            self.set(&volume, state);
            known.insert(volume);
        }
        for volume in &left {
            self.forget(volume);
        }
    }

    fn set(&self, volume: &Volume, state: VolumeState) {
        let labels = volume.labels();
        for (family, time) in [(&self.success, &state.success), (&self.point, &state.point)] {
            if let Some(time) = time {
                family.with_label_values(&labels).set(seconds(time));
            }
        }
        for (family, number) in [(&self.size, state.size), (&self.new, state.new)] {
            if let Some(number) = number {
                family.with_label_values(&labels).set(number);
            }
        }
        if let Some((count, since)) = state.bases {
            self.bases.with_label_values(&labels).set(count);
            match since {
                Some(time) => self.base.with_label_values(&labels).set(seconds(&time)),
                None => {
                    let _ = self.base.remove_label_values(&labels);
                }
            }
        }
    }

    pub(super) fn known(&self) -> BTreeSet<Volume> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn forget(&self, volume: &Volume) {
        let labels = volume.labels();
        for family in [&self.success, &self.point, &self.base] {
            let _ = family.remove_label_values(&labels);
        }
        for family in [&self.size, &self.new, &self.bases] {
            let _ = family.remove_label_values(&labels);
        }
    }
}

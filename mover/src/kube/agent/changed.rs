//! Who says what changed in a volume of a cluster.
//!
//! Owns: the place where the service of the cluster is asked for. Must not: speak to it.

use changed_blocks::csi;

use crate::device::source::{DeltaSources, Unusable};
use crate::kube::api::transfer::TransferOrder;

/// Sources for the snapshot of an order, whose device has `size` bytes.
pub(super) fn sources(order: &TransferOrder, _size: u64) -> DeltaSources {
    DeltaSources::none(Unusable {
        name: csi::NAME,
        reason: format!(
            "{} has no SnapshotMetadataService that this agent can ask",
            order.driver
        ),
        is_fault: false,
    })
}

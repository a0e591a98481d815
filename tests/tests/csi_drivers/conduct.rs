//! What is expected of one driver: the specification, or a deviation that is known and asserted as such.

/// How a driver answers calls about metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    /// Unit of ranges in bytes.
    pub(crate) unit: u64,
    /// Whether all ranges have the size of one unit.
    pub(crate) fixed: bool,
    /// The driver of the Kubernetes project: an offset beyond the end is answered with nothing, the order of base and target is not
    /// checked, an offset that is no multiple of the unit leads to wrong ranges, written zeros are not allocated, a negative
    /// `max_results` is never answered, snapshots without their volume have no metadata, and sizes are rounded down to MiB.
    pub(crate) hostpath: bool,
}

impl Conduct {
    /// Our driver with these options.
    pub(crate) fn ours(unit: u64, fixed: bool) -> Self {
        Self {
            unit,
            fixed,
            hostpath: false,
        }
    }

    /// csi-driver-host-path, whose unit is not an option.
    pub(crate) fn hostpath(fixed: bool) -> Self {
        Self {
            unit: 4096,
            fixed,
            hostpath: true,
        }
    }
}

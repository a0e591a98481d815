//! Whether a driver will do for a backup, and whether a device is all of its volume.
//!
//! Owns: what is refused before, and after, anything was made. Must not: make anything.

use super::driver::Driver;
use super::profile::BasePolicy;
use crate::error::{Error, ErrorKind, Result};

/// Some drivers make volumes of whole MiB and tell the size that they were asked for.
const ROUNDED: u64 = 1 << 20;

impl Driver {
    /// Whether the next delta needs the snapshot of this point.
    #[must_use]
    pub fn needs_base(&self) -> bool {
        self.abilities.snapshot_metadata && self.profile.base_snapshot == BasePolicy::Keep
    }

    /// Why volumes cannot be backed up; `None` where they can.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        let abilities = &self.abilities;
        if !self.profile.block {
            Some("it serves files, not block devices")
        } else if !abilities.controller {
            Some("it has no controller on this socket")
        } else if !abilities.snapshots {
            Some("it makes no snapshots")
        } else if !abilities.volumes {
            Some("it makes no volumes")
        } else {
            None
        }
    }

    /// Refuses what cannot be done before anything is made.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check_backup(&self) -> Result<()> {
        match self.obstacle() {
            None => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("back up a volume of {}: {why}", self.name),
            )
            .object(self.socket.display())
            .hint("`snaphaul csi info` tells what the driver can do; --csi-socket must be the one of its controller")),
        }
    }

    /// Where volumes have to be reachable, where the driver cares.
    pub(super) fn place(&self) -> Option<std::collections::BTreeMap<String, String>> {
        self.topology
            .clone()
            .filter(|place| self.abilities.topology && !place.is_empty())
    }
}

/// That the device holds the whole volume: a disk with a GPT has a part of it in its last sectors. What a person should know.
pub(super) fn check_size(driver: &str, promised: u64, device: u64) -> Result<Option<String>> {
    if promised == 0 {
        let message = format!(
            "compare the device with the volume: {driver} tells no size of either snapshot or volume"
        );
        return Err(Error::new(ErrorKind::Io, message).hint(
            "nobody can tell whether the device is all of the volume: ask the makers of the driver for size_bytes in the answer of \
             CreateSnapshot",
        ));
    }
    if device >= promised {
        return Ok(None);
    }
    let text = format!("{driver} tells {promised} bytes of the volume, its device has {device}");
    if !promised.is_multiple_of(ROUNDED) && device == promised / ROUNDED * ROUNDED {
        return Ok(Some(format!("{text}: what the device has is backed up")));
    }
    Err(Error::new(ErrorKind::Io, text)
        .hint("the end of the volume would be lost: look at the log of the driver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_device_holds_all_of_the_volume() {
        for (promised, device) in [(MIB, MIB), (MIB, MIB + 512), (MIB + 512, 2 * MIB), (1, 1)] {
            assert_eq!(check_size("d", promised, device).unwrap(), None);
        }
        // A volume of whole MiB, whose driver told what it was asked for.
        for promised in [4 * MIB + 8, 4 * MIB + 512, 5 * MIB - 1] {
            let told = check_size("d", promised, 4 * MIB).unwrap().unwrap();
            assert!(told.contains(&promised.to_string()), "{told}");
        }
        for (promised, device) in [
            (4 * MIB, 4 * MIB - 512),
            (4 * MIB, 3 * MIB),
            (4 * MIB + 512, 4 * MIB - 512),
            (4 * MIB + 512, 3 * MIB),
            (4 * MIB + 1024, 4 * MIB + 512),
            (MIB, 0),
        ] {
            let refused = check_size("d", promised, device).unwrap_err();
            assert!(
                refused.hint_text().unwrap().contains("would be lost"),
                "{promised} {device}"
            );
        }
    }

    #[test]
    fn a_volume_of_no_known_size_is_refused() {
        let refused = check_size("d", 0, MIB).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
    }
}

//! Deletes what is kept for the next delta, where nobody wants one any more.
//!
//! Owns: which bases go, one after the other. Must not: take up journals (`sweep` does).
//!
//! The snapshot goes before its note: whoever dies in between finds the note, and a driver takes it that a snapshot is gone.

use super::adoption;
use super::base::{Bases, KeptBase};
use super::driver::Driver;
use super::options::CsiOptions;
use crate::error::{Error, Result};

/// What a release came to.
#[derive(Debug, Default)]
pub struct Released {
    /// The snapshots that went.
    pub gone: Vec<KeptBase>,
    /// The others, and why they did not.
    pub failed: Vec<(KeptBase, Error)>,
}

/// Deletes the bases of a volume, or of every volume of the driver. One that stays does not keep the others.
///
/// # Errors
/// `Io`, `AccessDenied` where the notes cannot be read.
pub fn release(driver: &Driver, options: &CsiOptions, volume: Option<&str>) -> Result<Released> {
    let bases = Bases::at(options.bases(), options.locks());
    let mut noted = bases.all()?;
    noted.retain(|base| {
        base.driver == driver.name
            && base.socket == driver.socket
            && volume.is_none_or(|volume| volume == base.volume)
    });
    Ok(release_each(&bases, &noted, &|base| {
        if adoption::is_somebodys(driver, base)? {
            tracing::warn!(
                snapshot = base.snapshot,
                "another snapshot has this id now: it is left alone"
            );
            return Ok(());
        }
        driver.delete_snapshot(&base.snapshot).map_err(Error::from)
    }))
}

fn release_each(
    bases: &Bases,
    noted: &[KeptBase],
    delete: &dyn Fn(&KeptBase) -> Result<()>,
) -> Released {
    let mut released = Released::default();
    for base in noted {
        match release_one(bases, base, delete) {
            Ok(gone) => released.gone.extend(gone),
            Err(error) => {
                let error = error.context(format!("release the snapshot of {}", base.volume));
                released.failed.push((base.clone(), error));
            }
        }
    }
    released
}

fn release_one(
    bases: &Bases,
    base: &KeptBase,
    delete: &dyn Fn(&KeptBase) -> Result<()>,
) -> Result<Option<KeptBase>> {
    let _lock = bases.lock(&base.driver, &base.socket, &base.volume)?;
    // A backup may have noted another one before the volume was held.
    let Some(base) = bases.now(base)? else {
        return Ok(None);
    };
    delete(&base)?;
    bases.forget(&base)?;
    Ok(Some(base))
}

#[cfg(test)]
mod tests;

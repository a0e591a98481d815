//! Restores: from a `PodVolumeRestore` to a claim on a filled volume.
//!
//! ```text
//!   accept ─► expose (working claim, holder) ─► fill (the agent writes) ─► hand over (the volume changes its claim) ─► done
//!      └──────────┴──────────────┴──── give up: everything that was made is taken back ────┴─► cancelled or failed
//! ```
//!
//! Owns: what is made for a restore, in which order it changes hands, and what is taken back. Must not: move data (the agent
//! does), or decide who may restore what by anything but what the points record (`point`).
//!
//! `next` is a pure function: what was observed → the status to write, then the actions to take. Nothing is remembered between two
//! calls but the status, so that a controller that dies between any two actions goes on where it was.

pub mod decision;
mod names;
pub mod next;
pub mod observation;
pub mod point;
#[cfg(test)]
mod simulation;
mod status;
pub mod target;
pub mod volume;

use super::Context;
use super::queue::Again;
use super::watches::Key;
use crate::error::Result;

/// Looks at one restore and does what is next.
///
/// # Errors
/// What the API server answers; it is looked at again after a pause.
pub async fn reconcile(_context: &Context, _key: &Key) -> Result<Again> {
    Ok(Again::OnChange)
}

//! `PodVolumeRestore` in the controller.
//!
//! Owns: one look at one restore. Must not: move data.

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

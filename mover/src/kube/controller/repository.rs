//! stub
use super::Context;
use super::queue::Again;
use super::watches::Key;
use crate::error::Result;

/// Looks.
///
/// # Errors
/// What the API server answers.
pub async fn reconcile(_context: &Context, _key: &Key) -> Result<Again> {
    Ok(Again::OnChange)
}

//! An opened repository: store, configuration and keys together.

use std::sync::Arc;

use crate::repository::format::Keys;
use crate::repository::store::Store;

/// A repository whose key was given.
#[derive(Debug)]
pub struct Repository {
    /// Where objects live.
    pub store: Arc<dyn Store>,
    /// Every key.
    pub keys: Arc<Keys>,
}

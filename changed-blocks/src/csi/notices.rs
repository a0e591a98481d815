//! What a source did that a person should know although nothing failed.
//!
//! Owns: the list. Must not: decide what is worth a notice.

use std::sync::{Arc, Mutex, PoisonError};

/// A list that a source fills and its owner reads; clones are the same list.
///
/// A source moves into the run that asks it, so whoever reports at the end keeps a clone.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// Adds a notice, once.
    pub fn add(&self, notice: impl Into<String>) {
        let notice = notice.into();
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !list.contains(&notice) {
            list.push(notice);
        }
    }

    /// Every notice so far, in order.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

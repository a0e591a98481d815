//! When each repository was last looked at.
//!
//! Owns: that the write of a status is no reason for the next look at the store. Must not: matter after a restart: then everything is looked at.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// UID and generation of an object.
type Version = (Option<String>, Option<i64>);

/// Times of looks by name.
#[derive(Debug, Default)]
pub struct Looks {
    last: Mutex<HashMap<String, (Version, Instant)>>,
}

impl Looks {
    /// Whether an object must be looked at: another version than the last time, or the last time is `every` ago. If so, that is now.
    pub fn due(&self, name: &str, version: &Version, every: Duration) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A look that is asked for a little early must not wait for another whole period.
        let young = |at: &Instant| at.elapsed() + Duration::from_secs(1) < every;
        if last
            .get(name)
            .is_some_and(|(known, at)| known == version && young(at))
        {
            return false;
        }
        last.insert(name.to_owned(), (version.clone(), Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_object_is_looked_at_at_once() {
        let looks = Looks::default();
        let hour = Duration::from_secs(3600);
        assert!(looks.due("a", &(None, Some(1)), hour));
        assert!(!looks.due("a", &(None, Some(1)), hour));
        assert!(looks.due("a", &(None, Some(2)), hour));
        assert!(looks.due("a", &(None, Some(2)), Duration::ZERO));
    }
}

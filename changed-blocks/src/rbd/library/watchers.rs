//! Who has an image open.
//!
//! Owns: asking for it. Must not: decide what it means.

use std::ptr;

use super::error::{RbdError, check};
use super::functions::RawWatcher;
use super::image::Image;
use super::text;

/// A client that has an image open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Its address.
    pub address: String,
    /// Its client id.
    pub client: i64,
    /// Its watch.
    pub cookie: u64,
}

impl Image {
    /// Clients that have the image open for writing, this one among them where it has.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn watchers(&self) -> Result<Vec<Watcher>, RbdError> {
        let functions = &self.library().functions;
        let empty = RawWatcher {
            addr: ptr::null_mut(),
            id: 0,
            cookie: 0,
        };
        let mut watchers = vec![empty; 8];
        loop {
            let mut count = watchers.len();
            // SAFETY: an open image and an array with its length.
            let code = unsafe {
                (functions.rbd_watchers_list)(self.raw(), watchers.as_mut_ptr(), &raw mut count)
            };
            if code == -nix::libc::ERANGE {
                watchers.resize(count.max(watchers.len() + 1), empty);
                continue;
            }
            check(code, || format!("ask who has {} open", self.shown()))?;
            let count = count.min(watchers.len());
            let known = watchers[..count]
                .iter()
                .map(|watcher| Watcher {
                    // SAFETY: a C string of the library until the clean-up below.
                    address: unsafe { text(watcher.addr) },
                    client: watcher.id,
                    cookie: watcher.cookie,
                })
                .collect();
            // SAFETY: filled by rbd_watchers_list, freed once, not used again.
            unsafe { (functions.rbd_watchers_list_cleanup)(watchers.as_mut_ptr(), count) };
            return Ok(known);
        }
    }
}

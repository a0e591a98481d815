//! Where objects live: one trait, a directory and a bucket behind it.
//!
//! Owns: the [`Store`] contract. Must not: know what objects mean. All calls block; callers are threads of the data plane.
//! One contract suite (`store::contract`) runs against every store.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use lock::{Purged, Version};
use profile::StoreProfile;

pub mod connect;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod counters;
pub mod directory;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod host;
pub mod limited;
pub mod lock;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod object_name;
pub mod probe;
pub mod profile;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(any(test, feature = "testing"))]
pub mod stepped;
pub mod url;

/// What a listing or a HEAD tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Full name inside the repository, e.g. `seg/…`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Last change by the store's clock, where it tells.
    pub modified: Option<SystemTime>,
}

/// Outcome of a create-only PUT, already settled: a lost answer has been resolved by reading the object back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Our bytes are the object.
    Won,
    /// Somebody else's object is there.
    Exists,
}

/// Counters of what a store was asked, for results and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Objects created, copies and control objects included.
    pub put: u64,
    /// Whole or ranged reads.
    pub get: u64,
    /// Existence checks.
    pub head: u64,
    /// Listing pages.
    pub list: u64,
    /// Deletes.
    pub delete: u64,
    /// Bytes of bodies sent.
    pub put_bytes: u64,
    /// Bytes of bodies received.
    pub get_bytes: u64,
    /// Attempts repeated after a retryable failure.
    pub retries: u64,
    /// Attempts that failed; that an object is not there, or is there already, is an answer.
    pub errors: u64,
    /// Attempts that the store answered by asking for fewer, or not in time.
    pub throttles: u64,
    /// How long attempts took, where the store is reached over a network.
    pub times: RequestTimes,
}

/// Upper ends of the classes of [`RequestTimes`], in seconds; one class more is above all.
pub const TIME_BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Distribution of the time from sending a request to the end of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimes {
    /// Attempts by class of [`TIME_BOUNDS`].
    pub classes: [u64; TIME_BOUNDS.len() + 1],
    /// Time of all together, in microseconds.
    pub micros: u64,
}

/// A flat set of immutable objects under `/`-separated names.
///
/// Errors: a missing object is `NotFound`; refusals are `AccessDenied`; what may pass is retried inside and then
/// `Unavailable`; a full store is `NoSpace`. Every error names the object.
pub trait Store: Send + Sync + fmt::Debug {
    /// URL for people; never holds a secret.
    fn url(&self) -> String;

    /// Stores a new object under a unique name, or rewrites the same bytes. Whole or not at all.
    ///
    /// A page-aligned body is written without a copy.
    ///
    /// # Errors
    /// See the trait.
    fn put(&self, name: &str, body: Bytes) -> Result<()>;

    /// Sends an object exactly once: no retry, so that it can never come back after a delete. After any error the object
    /// may or may not exist.
    ///
    /// # Errors
    /// See the trait.
    fn put_once(&self, name: &str, body: Bytes) -> Result<()>;

    /// Creates an object if the name is free. The body must hold at least 16 random bytes, so that it can be told from
    /// anybody else's when an answer is lost.
    ///
    /// # Errors
    /// See the trait; an error means that the outcome could not be settled.
    fn create(&self, name: &str, body: Bytes) -> Result<Created>;

    /// Reads a whole object.
    ///
    /// # Errors
    /// See the trait.
    fn get(&self, name: &str) -> Result<Bytes>;

    /// Reads `range` of an object, shorter where the object ends. A range that begins at or after the end is empty.
    ///
    /// # Errors
    /// See the trait.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes>;

    /// Looks an object up; `None` where there is none.
    ///
    /// # Errors
    /// See the trait.
    fn head(&self, name: &str) -> Result<Option<ObjectInfo>>;

    /// Lists all objects whose name begins with `prefix`, page by page, ascending by name inside each folder. Between folders
    /// servers differ: S3 compares whole names, SeaweedFS one part after the other, so that `a/b` comes before `a.b`.
    ///
    /// # Errors
    /// See the trait, and whatever `page` returns.
    fn list(&self, prefix: &str, page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>)
    -> Result<()>;

    /// Deletes an object; it is no error if there is none. A store that keeps versions may only hide it.
    ///
    /// # Errors
    /// See the trait.
    fn delete(&self, name: &str) -> Result<()>;

    /// Deletes an object with every version that the store keeps of it, the one that is read last. Collectors use this:
    /// elsewhere [`Store::delete`] would free no space, and would hide what the store refuses to give up.
    ///
    /// # Errors
    /// See the trait; a lock is no error but an outcome.
    fn purge(&self, name: &str) -> Result<Purged> {
        self.delete(name).map(|()| Purged::Gone)
    }

    /// Locks the object that is read until `until` at least, in the mode of the recorded policy. A longer lock stays.
    ///
    /// # Errors
    /// See the trait, and `InvalidRequest` where the store has no locks.
    fn lock(&self, name: &str, until: SystemTime) -> Result<()> {
        let _ = until;
        Err(no_locks(self.url()).object(name))
    }

    /// Until when the object that is read is locked; `None` where it is not.
    ///
    /// # Errors
    /// See the trait.
    fn locked_until(&self, name: &str) -> Result<Option<SystemTime>> {
        let _ = name;
        Ok(None)
    }

    /// Whether objects can be locked here.
    ///
    /// # Errors
    /// `InvalidRequest` where they cannot, with what to use instead.
    fn require_locks(&self) -> Result<()> {
        Err(no_locks(self.url()))
    }

    /// Lists every version of all objects whose name begins with `prefix`, page by page, ascending by name and newest first.
    ///
    /// # Errors
    /// See the trait, `InvalidRequest` where the store keeps no versions, and whatever `page` returns.
    fn versions(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<Version>) -> Result<()>,
    ) -> Result<()> {
        let _ = page;
        let _ = prefix;
        Err(no_versions(self.url()))
    }

    /// Reads one version of an object.
    ///
    /// # Errors
    /// See the trait.
    fn get_version(&self, name: &str, version: &str) -> Result<Bytes> {
        let _ = version;
        let _ = name;
        Err(no_versions(self.url()))
    }

    /// Deletes one version of an object, or a marker.
    ///
    /// # Errors
    /// See the trait; a locked version is `AccessDenied` or `InvalidRequest`, as servers do not agree.
    fn delete_version(&self, name: &str, version: &str) -> Result<()> {
        let _ = version;
        let _ = name;
        Err(no_versions(self.url()))
    }

    /// Says that objects below `folder`, e.g. `seg/<sid>`, will be relied on although a process stored them that may have died
    /// before it made their names durable: the next [`Store::sync`] does that too.
    fn rely_on(&self, folder: &str) {
        let _ = folder;
    }

    /// Makes the names of everything put so far survive a power cut. Called before a commit and after it.
    ///
    /// # Errors
    /// See the trait; after an error nothing put since the last success may be relied on.
    fn sync(&self) -> Result<()>;

    /// Requests so far.
    fn counts(&self) -> RequestCounts;

    /// Finds out what only this kind of store can say of itself: request options that the server accepts, the host it is
    /// bound to. First half of [`probe::probe`]; may write objects under `scratch` and deletes them again.
    ///
    /// # Errors
    /// See the trait.
    fn explore(&self, scratch: &str) -> Result<StoreProfile>;

    /// Uses the request options of `profile` from now on. Before that a store uses those that every server accepts.
    fn adopt_profile(&self, _profile: &StoreProfile) {}
}

fn no_locks(url: String) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "lock objects in a store that has no locks",
    )
    .object(url)
    .hint(
        "use a bucket with Object Lock; beside a directory, let its file system take read-only snapshots that the backup user \
         cannot delete (ZFS, btrfs), or serve it through MinIO or Ceph RGW",
    )
}

fn no_versions(url: String) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "look for earlier versions in a store that keeps none",
    )
    .object(url)
    .hint("only buckets with versioning keep what is deleted; bring a directory back from a snapshot of its file system")
}

/// Puts other bytes in the place of a damaged object: a store may refuse that as long as the old ones are there, and a user may not
/// be allowed to delete, though to overwrite.
///
/// # Errors
/// What the store answers to the PUT.
pub(crate) fn replace(store: &dyn Store, name: &str, body: Bytes) -> Result<()> {
    match store.delete(name) {
        Err(error) if error.kind() != ErrorKind::AccessDenied => return Err(error),
        _ => {}
    }
    store.put(name, body)
}

/// Removes an object that nobody needs any more as far as this user may: for good, else hidden, else not at all.
///
/// # Errors
/// What the store answers; a refusal is none.
pub(crate) fn discard(store: &dyn Store, name: &str) -> Result<()> {
    let denied = |error: &Error| error.kind() == ErrorKind::AccessDenied;
    match store.purge(name) {
        Ok(_) => Ok(()),
        // Hidden already, where only the look at its versions was refused.
        Err(error) if denied(&error) && store.head(name)?.is_none() => Ok(()),
        Err(error) if denied(&error) => match store.delete(name) {
            Err(error) if denied(&error) => {
                tracing::info!(%error, "leave an object behind that this user may not delete");
                Ok(())
            }
            other => other,
        },
        Err(error) => Err(error),
    }
}

/// Collects a whole listing; for prefixes known to be small.
///
/// # Errors
/// As [`Store::list`].
pub fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<ObjectInfo>> {
    let mut all = Vec::new();
    store.list(prefix, &mut |page| {
        all.extend(page);
        Ok(())
    })?;
    Ok(all)
}

//! Locks and versions of a bucket: what keeps objects from being deleted, and how they are deleted for good.
//!
//! ```text
//!   purge:  plain DELETE ── no versions here ──► gone
//!                        └─ the answer names one ──► list the versions of this key ──► DELETE by id: oldest first, markers last
//!   (a bucket with locks is asked for versions at once: a plain DELETE would hide what it must keep)
//! ```
//!
//! Owns: that order, so that a purge that stops half-way never shows older bytes and never hides locked ones. Must not:
//! choose dates (`store::lock` does).

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
};
use bytes::Bytes;

use super::S3Store;
use super::failure::{Failure, Remedy, classify};
use super::requests::{in_time, read_answer, size, time};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::store::lock::{LockMode, ObjectLock, Purged, Version};
use crate::repository::store::object_name::check_name;

/// Versions asked for in one page: the most that S3 gives.
const PAGE: i32 = 1000;

/// Where a listing of versions goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Next {
    key: Option<String>,
    version: Option<String>,
}

/// A lock as it goes into the headers of a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    mode: LockMode,
    until: SystemTime,
}

impl Retention {
    /// What `policy` asks for an object that is stored at `now`.
    pub(super) fn of(
        policy: Option<ObjectLock>,
        name: &str,
        len: usize,
        now: SystemTime,
    ) -> Option<Self> {
        policy
            .filter(|_| ObjectLock::covers(name, len))
            .map(|policy| Self {
                mode: policy.mode,
                until: policy.end(now),
            })
    }

    pub(super) fn header_mode(self) -> ObjectLockMode {
        match self.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        }
    }

    pub(super) fn header_until(self) -> DateTime {
        DateTime::from(self.until)
    }

    fn record(self) -> ObjectLockRetention {
        let mode = match self.mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        ObjectLockRetention::builder()
            .mode(mode)
            .retain_until_date(self.header_until())
            .build()
    }
}

impl S3Store {
    pub(super) fn lock_object(&self, name: &str, until: SystemTime) -> Result<()> {
        let Some(policy) = self.profile().lock else {
            let message = "lock an object of a repository without Object Lock";
            return Err(
                Error::new(ErrorKind::InvalidRequest, message).object(self.object_url(name))
            );
        };
        let key = self.key(name)?;
        let retention = Retention {
            mode: policy.mode,
            until,
        };
        self.counters.put(0);
        let locked = self.retried("lock the object", name, || {
            self.retention_request(&key, retention)
        });
        match locked {
            // Refused as well where somebody else locked it for longer meanwhile, which is all we want.
            Err(error) if may_be_locked(&error) => match self.lock_of(name, None) {
                Ok(Some(held)) if held >= until => Ok(()),
                _ => Err(error),
            },
            other => other,
        }
    }

    /// Until when a version, or the object that is read, is locked.
    pub(super) fn lock_of(&self, name: &str, version: Option<&str>) -> Result<Option<SystemTime>> {
        let key = self.key(name)?;
        self.counters.head();
        self.retried("look the lock of the object up", name, || {
            self.lock_request(&key, version)
        })
    }

    pub(super) fn require_object_lock(&self) -> Result<()> {
        let enabled = self.retried("ask the bucket for Object Lock", "", || {
            self.bucket_lock_request()
        });
        let no_lock = |error: Option<Error>| {
            let refusal = Error::new(ErrorKind::InvalidRequest, "lock objects in a bucket without Object Lock")
                .object(self.object_url(""))
                .hint("make a bucket with it, e.g. `aws s3api create-bucket --object-lock-enabled-for-bucket --bucket NAME`: most servers cannot add it later");
            match error {
                Some(error) => refusal.source(error),
                None => refusal,
            }
        };
        match enabled {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_lock(None)),
            Err(error) if error.kind() == ErrorKind::AccessDenied => Err(error.hint(
                "let this user do s3:GetBucketObjectLockConfiguration on the bucket and s3:PutObjectRetention on its objects",
            )),
            Err(error) if error.kind() == ErrorKind::InvalidRequest => Err(no_lock(Some(error))),
            Err(error) => Err(error),
        }
    }

    pub(super) fn purge_object(&self, name: &str) -> Result<Purged> {
        let key = self.key(name)?;
        let keeps_versions = || self.keeps_versions.load(Ordering::Relaxed);
        if self.profile().lock.is_none() && !keeps_versions() {
            self.counters.delete();
            self.retried("delete the object", name, || {
                self.delete_request(&key, None)
            })?;
            if !keeps_versions() {
                return Ok(Purged::Gone);
            }
        }
        let mut versions = Vec::new();
        self.each_version(name, &mut |page| {
            versions.extend(page.into_iter().filter(|version| version.name == name));
            Ok(())
        })?;
        // Listed newest first. Markers go last: as long as one is in front, nothing older can be read.
        versions.reverse();
        versions.sort_by_key(|version| version.is_marker);
        for version in versions {
            if let Purged::LockedUntil(end) = self.purge_version(name, &version.id)? {
                return Ok(Purged::LockedUntil(end));
            }
        }
        Ok(Purged::Gone)
    }

    pub(super) fn remove_version(&self, name: &str, version: &str) -> Result<()> {
        let key = self.key(name)?;
        self.counters.delete();
        self.retried("delete a version of the object", name, || {
            self.delete_request(&key, Some(version))
        })
    }

    fn purge_version(&self, name: &str, version: &str) -> Result<Purged> {
        match self.remove_version(name, version) {
            Ok(()) => Ok(Purged::Gone),
            // AWS and RGW say 403 of a lock as of a missing right, MinIO says 400: the version itself tells.
            Err(error) if may_be_locked(&error) => match self.lock_of(name, Some(version)) {
                Ok(Some(end)) => Ok(Purged::LockedUntil(end)),
                _ => Err(error.hint(
                    "let the collector do s3:DeleteObjectVersion and s3:GetObjectRetention; a legal hold must be lifted by hand",
                )),
            },
            Err(error) => Err(error),
        }
    }

    pub(super) fn each_version(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<Version>) -> Result<()>,
    ) -> Result<()> {
        let full = format!("{}{prefix}", self.options.prefix);
        let mut at = Next::default();
        loop {
            self.counters.list();
            let (versions, next) = self.retried("list versions", prefix, || {
                self.versions_request(&full, &at)
            })?;
            if !versions.is_empty() {
                page(versions)?;
            }
            match next {
                None => return Ok(()),
                Some(next) if next == at => {
                    let cause = "the server repeats a page for ever";
                    let failure = Failure::new(ErrorKind::Unavailable, Remedy::None, cause);
                    return Err(self.error("list versions", prefix, 1, &failure));
                }
                Some(next) => at = next,
            }
        }
    }

    pub(super) fn read_version(&self, name: &str, version: &str) -> Result<Bytes> {
        let key = self.key(name)?;
        let bytes = self.retried("get a version of the object", name, || {
            self.version_request(&key, version)
        })?;
        self.counters.get(bytes.len());
        Ok(bytes)
    }

    async fn retention_request(&self, key: &str, retention: Retention) -> Result<(), Failure> {
        let request = self
            .client
            .put_object_retention()
            .bucket(&self.options.bucket)
            .key(key)
            .retention(retention.record());
        in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        Ok(())
    }

    async fn lock_request(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<SystemTime>, Failure> {
        let request = self
            .client
            .head_object()
            .bucket(&self.options.bucket)
            .key(key)
            .set_version_id(version.map(str::to_owned));
        let answer = in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        Ok(time(answer.object_lock_retain_until_date()))
    }

    async fn bucket_lock_request(&self) -> Result<bool, Failure> {
        let request = self
            .client
            .get_object_lock_configuration()
            .bucket(&self.options.bucket);
        let answer = in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        let enabled = answer
            .object_lock_configuration()
            .and_then(|configuration| configuration.object_lock_enabled());
        Ok(enabled == Some(&ObjectLockEnabled::Enabled))
    }

    async fn version_request(&self, key: &str, version: &str) -> Result<Bytes, Failure> {
        let request = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(key)
            .version_id(version);
        let answer = in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        read_answer(answer, &self.options.timing).await
    }

    /// One page: versions and markers, and where the next page begins.
    async fn versions_request(
        &self,
        prefix: &str,
        at: &Next,
    ) -> Result<(Vec<Version>, Option<Next>), Failure> {
        let request = self
            .client
            .list_object_versions()
            .bucket(&self.options.bucket)
            .prefix(prefix)
            .max_keys(PAGE)
            .set_key_marker(at.key.clone())
            .set_version_id_marker(at.version.clone());
        let answer = in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        let name = |key: Option<&str>| {
            let name = key?.strip_prefix(self.options.prefix.as_str())?;
            check_name(name).ok().map(|_| name.to_owned())
        };
        let bodies = answer.versions().iter().filter_map(|version| {
            Some(Version {
                name: name(version.key())?,
                id: version.version_id()?.to_owned(),
                size: size(version.size()),
                modified: time(version.last_modified()),
                is_marker: false,
                is_latest: version.is_latest().unwrap_or(false),
            })
        });
        let markers = answer.delete_markers().iter().filter_map(|marker| {
            Some(Version {
                name: name(marker.key())?,
                id: marker.version_id()?.to_owned(),
                size: 0,
                modified: time(marker.last_modified()),
                is_marker: true,
                is_latest: marker.is_latest().unwrap_or(false),
            })
        });
        // The SDK gives two lists, each newest first, and not how they interleave. Who is latest is said in so many words.
        let mut versions: Vec<Version> = bodies.chain(markers).collect();
        versions.sort_by(|a, b| {
            let age = |v: &Version| {
                (
                    std::cmp::Reverse(v.is_latest),
                    std::cmp::Reverse(v.modified),
                )
            };
            a.name.cmp(&b.name).then_with(|| age(a).cmp(&age(b)))
        });
        let next = answer.is_truncated().unwrap_or(false).then(|| Next {
            key: answer.next_key_marker().map(str::to_owned),
            version: answer.next_version_id_marker().map(str::to_owned),
        });
        Ok((versions, next))
    }
}

/// Whether a refusal may come from a lock; servers do not agree on how to say so.
fn may_be_locked(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AccessDenied | ErrorKind::InvalidRequest
    )
}

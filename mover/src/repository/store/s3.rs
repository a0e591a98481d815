//! A repository in an S3 bucket.
//!
//! ```text
//!   caller's thread ──► admission (adaptive) ──► one request, SDK retries off ──► worker threads of an own runtime
//!        ▲                                             │
//!        └──── back-off with jitter ◄── failure: final, retry, or slower
//! ```
//!
//! Owns: how each call of [`Store`] becomes requests, and how a lost answer is settled. Must not: split an object into
//! parts, send `put_once` twice, or be called from inside another async runtime: calls block.

mod checksum;
mod client;
mod concurrency;
mod failure;
#[cfg(feature = "testing-s3")]
pub mod in_process;
mod locks;
mod requests;
mod retry;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use aws_sdk_s3::Client;
use bytes::Bytes;
use tokio::runtime::Runtime;

use super::counters::Counters;
use super::lock::{Purged, Version};
use super::object_name::{check_name, split_prefix};
use super::profile::{BodyChecksum, PayloadSigning, StoreProfile};
use super::{Created, ObjectInfo, RequestCounts, Store, discard};
use crate::error::{Error, ErrorKind, Result};
use checksum::Checksum;
use concurrency::Admission;
use failure::{Failure, Remedy};
use locks::Retention;
use requests::Upload;

pub use client::{S3Credentials, S3Options};
pub use retry::Timing;

/// Threads that move bytes between sockets and buffers; callers wait on their own.
const WORKERS: usize = 2;

/// Objects of the exploration are a little larger than one packet.
const EXPLORED_LEN: usize = 2000;

/// Objects under one prefix of one bucket; safe for any number of threads and processes.
pub struct S3Store {
    client: Client,
    /// Taken on drop only.
    runtime: Option<Runtime>,
    options: S3Options,
    profile: RwLock<StoreProfile>,
    admission: Admission,
    counters: Counters,
    /// Whether the server has ever answered.
    reached: AtomicBool,
    /// Whether an answer named a version: then a plain DELETE only hides.
    keeps_versions: AtomicBool,
}

/// What stands under a name whose creation is in doubt.
enum Settled {
    Ours,
    Theirs,
    Nothing,
}

impl S3Store {
    /// Prepares a client; the server is asked nothing yet.
    ///
    /// # Errors
    /// `InvalidRequest` for options that cannot be; `NotFound`, `AccessDenied` or `Io` for the CA file.
    pub fn connect(options: &S3Options, profile: &StoreProfile) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("snaphaul-s3")
            .enable_all()
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Io, "start the threads of the S3 client").source(e)
            })?;
        let client = runtime.block_on(client::client(options))?;
        Ok(Self {
            client,
            runtime: Some(runtime),
            options: options.clone(),
            profile: RwLock::new(profile.clone()),
            admission: Admission::new(),
            counters: Counters::default(),
            reached: AtomicBool::new(false),
            keeps_versions: AtomicBool::new(false),
        })
    }

    fn profile(&self) -> StoreProfile {
        self.profile
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn key(&self, name: &str) -> Result<String> {
        check_name(name)?;
        Ok(format!("{}{name}", self.options.prefix))
    }

    fn object_url(&self, name: &str) -> String {
        format!("s3://{}/{}{name}", self.options.bucket, self.options.prefix)
    }

    /// One try of one request.
    fn attempt<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let permit = self.admission.enter();
        let runtime = self.runtime.as_ref().expect("taken on drop only");
        let started = Instant::now();
        let outcome = runtime.block_on(request);
        let failure = outcome.as_ref().err();
        self.counters.attempted(
            started.elapsed(),
            failure.is_some_and(Failure::is_trouble),
            failure.is_some_and(|failure| failure.remedy == Remedy::Slower),
        );
        match &outcome {
            Ok(_) => permit.succeeded(),
            Err(failure) if failure.remedy == Remedy::Slower => permit.overwhelmed(),
            Err(_) => {}
        }
        if outcome
            .as_ref()
            .map_or_else(|failure| failure.status.is_some(), |_| true)
        {
            self.reached.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Repeats a request that may be repeated, until it succeeds, cannot, or has been tried often enough.
    fn retried<T, F>(&self, action: &str, name: &str, request: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = 1;
        loop {
            match self.attempt(request()) {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.pause_or_give_up(action, name, &mut tries, &failure)?,
            }
        }
    }

    fn pause_or_give_up(
        &self,
        action: &str,
        name: &str,
        tries: &mut u32,
        failure: &Failure,
    ) -> Result<()> {
        let timing = &self.options.timing;
        let reached = self.reached.load(Ordering::Relaxed);
        let limit = if reached {
            timing.attempts
        } else {
            timing.first_attempts
        };
        if failure.is_final() || *tries >= limit {
            return Err(self.error(action, name, *tries, failure));
        }
        tracing::info!(
            object = name,
            attempt = *tries,
            cause = failure.cause,
            "{action} again after a pause"
        );
        self.counters.retry();
        timing.sleep_after(*tries, failure.asked_pause);
        *tries += 1;
        Ok(())
    }

    fn error(&self, action: &str, name: &str, tries: u32, failure: &Failure) -> Error {
        let tried = if tries == 1 {
            "1 attempt".to_owned()
        } else {
            format!("{tries} attempts")
        };
        let error = Error::new(failure.kind, action)
            .object(self.object_url(name))
            .source(match &self.options.endpoint {
                Some(endpoint) => format!("{}, after {tried} at {endpoint}", failure.cause),
                None => format!("{}, after {tried}", failure.cause),
            });
        match &failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn upload(
        &self,
        name: &str,
        body: Bytes,
        create_only: bool,
        profile: &StoreProfile,
    ) -> Result<Upload> {
        let retention = Retention::of(profile.lock, name, body.len(), SystemTime::now());
        let kind = match profile.checksum {
            // S3 takes no lock without a checksum.
            BodyChecksum::None if retention.is_some() => BodyChecksum::ContentMd5,
            kind => kind,
        };
        Ok(Upload {
            key: self.key(name)?,
            checksum: Checksum::of(kind, &body),
            body,
            signing: profile.payload_signing,
            create_only,
            retention,
        })
    }

    /// Reads back what a create left in doubt. The body holds a token of its own, so equal bytes are our bytes.
    fn settle(&self, name: &str, body: &Bytes) -> Result<Settled> {
        match self.get(name) {
            Ok(found) if found == *body => Ok(Settled::Ours),
            Ok(_) => Ok(Settled::Theirs),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Settled::Nothing),
            Err(e) => Err(e.context("settle whether the object was created")),
        }
    }

    fn create_only(&self, name: &str, body: &Bytes, profile: &StoreProfile) -> Result<Created> {
        const ACTION: &str = "create the object";
        let upload = self.upload(name, body.clone(), true, profile)?;
        let mut tries = 1;
        loop {
            let failure = match self.attempt(self.put_request(&upload)) {
                Ok(()) => return Ok(Created::Won),
                Err(failure) => failure,
            };
            let exists = failure.status == Some(412);
            if failure.is_final() && !exists {
                return Err(self.error(ACTION, name, tries, &failure));
            }
            match self.settle(name, body)? {
                Settled::Ours => return Ok(Created::Won),
                Settled::Theirs => return Ok(Created::Exists),
                // Somebody's object was there, and has been deleted since.
                Settled::Nothing if exists => return Ok(Created::Exists),
                // Sending the same bytes again is safe: whichever copy arrives first wins for us.
                Settled::Nothing => self.pause_or_give_up(ACTION, name, &mut tries, &failure)?,
            }
        }
    }

    /// For stores whose names have a single writer each, because they cannot choose between two (`gc-protocol` fallback).
    fn create_unguarded(
        &self,
        name: &str,
        body: &Bytes,
        profile: &StoreProfile,
    ) -> Result<Created> {
        match self.settle(name, body)? {
            Settled::Ours => return Ok(Created::Won),
            Settled::Theirs => return Ok(Created::Exists),
            Settled::Nothing => {}
        }
        let upload = self.upload(name, body.clone(), false, profile)?;
        self.retried("create the object", name, || self.put_request(&upload))?;
        match self.settle(name, body)? {
            Settled::Ours => Ok(Created::Won),
            Settled::Theirs | Settled::Nothing => Ok(Created::Exists),
        }
    }

    /// Whether the server takes a body sent like this, and gives it back.
    fn accepts(&self, name: &str, profile: &StoreProfile) -> Result<()> {
        let body = Bytes::from(vec![0x5a; EXPLORED_LEN]);
        let upload = self.upload(name, body.clone(), false, profile)?;
        self.counters.put(body.len());
        self.retried("put an object", name, || self.put_request(&upload))?;
        if self.get(name)? == body {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidRequest,
            "probe the store: it gives back other bytes",
        )
        .object(self.object_url(name)))
    }
}

impl Store for S3Store {
    fn url(&self) -> String {
        let prefix = self.options.prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return format!("s3://{}", self.options.bucket);
        }
        format!("s3://{}/{prefix}", self.options.bucket)
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.counters.put(body.len());
        let upload = self.upload(name, body, false, &self.profile())?;
        self.retried("put the object", name, || self.put_request(&upload))
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.counters.put(body.len());
        let upload = self.upload(name, body, false, &self.profile())?;
        self.attempt(self.put_request(&upload))
            .map_err(|failure| self.error("put the object once", name, 1, &failure))
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        let profile = self.profile();
        self.counters.put(body.len());
        if profile.conditional_writes {
            self.create_only(name, &body, &profile)
        } else {
            self.create_unguarded(name, &body, &profile)
        }
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let key = self.key(name)?;
        let bytes = self.retried("get the object", name, || self.get_request(&key, None))?;
        self.counters.get(bytes.len());
        Ok(bytes)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let key = self.key(name)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.retried("get a part of the object", name, || {
            self.get_request(&key, Some(range.clone()))
        })?;
        self.counters.get(bytes.len());
        Ok(bytes)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        let key = self.key(name)?;
        self.counters.head();
        let found = self.retried("look the object up", name, || self.head_request(&key))?;
        Ok(found.map(|(size, modified)| ObjectInfo {
            name: name.to_owned(),
            size,
            modified,
        }))
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        split_prefix(prefix)?;
        let full = format!("{}{prefix}", self.options.prefix);
        let mut token: Option<String> = None;
        loop {
            self.counters.list();
            let (objects, next) = self.retried("list objects", prefix, || {
                self.list_request(&full, token.as_deref())
            })?;
            if !objects.is_empty() {
                page(objects)?;
            }
            if next.is_none() {
                return Ok(());
            }
            if next == token {
                let failure = Failure::new(
                    ErrorKind::Unavailable,
                    Remedy::None,
                    "the server repeats a page for ever",
                );
                return Err(self.error("list objects", prefix, 1, &failure));
            }
            token = next;
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        let key = self.key(name)?;
        self.counters.delete();
        self.retried("delete the object", name, || {
            self.delete_request(&key, None)
        })
        .map(drop)
    }

    fn purge(&self, name: &str) -> Result<Purged> {
        self.purge_object(name)
    }

    fn lock(&self, name: &str, until: SystemTime) -> Result<()> {
        self.lock_object(name, until)
    }

    fn locked_until(&self, name: &str) -> Result<Option<SystemTime>> {
        self.lock_of(name, None)
    }

    fn require_locks(&self) -> Result<()> {
        self.require_object_lock()
    }

    fn versions(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<Version>) -> Result<()>,
    ) -> Result<()> {
        split_prefix(prefix)?;
        self.each_version(prefix, page)
    }

    fn delete_version(&self, name: &str, version: &str) -> Result<()> {
        self.remove_version(name, version)
    }

    fn get_version(&self, name: &str, version: &str) -> Result<Bytes> {
        self.read_version(name, version)
    }

    /// A bucket keeps what it has acknowledged.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> RequestCounts {
        self.counters.snapshot()
    }

    /// Tries the ways to send a body, cheapest first, until the server takes one.
    fn explore(&self, scratch: &str) -> Result<StoreProfile> {
        let mut refused = None;
        let checksums = [
            BodyChecksum::Crc64Nvme,
            BodyChecksum::Crc32c,
            BodyChecksum::ContentMd5,
            BodyChecksum::None,
        ];
        for payload_signing in [PayloadSigning::Unsigned, PayloadSigning::Signed] {
            for checksum in checksums {
                let profile = StoreProfile {
                    conditional_writes: true,
                    payload_signing,
                    checksum,
                    single_host: None,
                    kind: "s3".to_owned(),
                    lock: None,
                };
                let name = format!("{scratch}/body");
                let accepted = self.accepts(&name, &profile);
                let cleaned = discard(self, &name);
                match accepted {
                    Ok(()) => {
                        cleaned?;
                        return Ok(profile);
                    }
                    Err(e)
                        if matches!(
                            e.kind(),
                            ErrorKind::InvalidRequest
                                | ErrorKind::AccessDenied
                                | ErrorKind::Corrupt
                        ) =>
                    {
                        tracing::debug!(?payload_signing, ?checksum, error = %e, "the server refuses a way to send bodies");
                        refused = Some(e);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Err(refused.expect("some way was tried"))
    }

    fn adopt_profile(&self, profile: &StoreProfile) {
        *self.profile.write().unwrap_or_else(PoisonError::into_inner) = profile.clone();
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("options", &self.options)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Drop for S3Store {
    /// Idle connections need no farewell, and waiting for them could block a caller inside a runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;

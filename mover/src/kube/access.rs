//! From a `SnapshotRepository` and its secrets to an opened repository.
//!
//! ```text
//!   SnapshotRepository ─┐
//!   Secrets ────────────┴─► RepositoryAccess ──(a thread that may wait)──► store ─► Repository, whose id is the one that is expected
//! ```
//!
//! Owns: which keys of which secrets are read, and the proof that the place holds the repository that is meant. Must not: keep a
//! secret longer than a run, log one, or decide who may use a repository.
//!
//! Everything is read anew for each run: a rotated secret counts from the next run on, and no process has to be started again.

mod secrets;

use std::fmt;
use std::sync::Arc;

use ::kube::api::Api;
use ::kube::{Client, ResourceExt as _};
use k8s_openapi::api::core::v1::Secret as SecretObject;

use super::answer::failed;
use super::api::{NameRef, SnapshotRepository, SnapshotRepositorySpec};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;
use crate::repository::access::{self, Repository};
use crate::repository::format::Secret;
use crate::repository::store::Store;
use crate::repository::store::connect::{StoreOptions, connect_for};
use crate::repository::store::limited::Hurry;
use secrets::Credentials;

/// Bandwidth that all runs of the process share, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the store.
    pub upload: Option<u64>,
    /// From the store.
    pub download: Option<u64>,
}

/// Everything that it takes to open a repository. Holds its secrets until it is dropped.
pub struct RepositoryAccess {
    name: String,
    spec: SnapshotRepositorySpec,
    expected: Option<String>,
    secret: Option<Secret>,
    credentials: Option<Credentials>,
}

impl fmt::Debug for RepositoryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryAccess")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RepositoryAccess {
    /// Reads the repository of this name and its secrets.
    ///
    /// # Errors
    /// `NotFound` where an object is missing, `InvalidRequest` where a secret is not what it must be, and what the API server answers.
    pub async fn by_name(client: &Client, system_namespace: &str, name: &str) -> Result<Self> {
        let repositories: Api<SnapshotRepository> = Api::all(client.clone());
        let found = repositories.get(name).await;
        let repository =
            found.map_err(|error| failed("read the SnapshotRepository", name, error))?;
        Self::read(client, system_namespace, &repository).await
    }

    /// Reads the secrets that a repository names.
    ///
    /// # Errors
    /// As [`by_name`](Self::by_name).
    pub async fn read(
        client: &Client,
        system_namespace: &str,
        repository: &SnapshotRepository,
    ) -> Result<Self> {
        let objects: Api<SecretObject> = Api::namespaced(client.clone(), system_namespace);
        let spec = repository.spec.clone();
        let secret = match &spec.encryption_secret_ref {
            Some(reference) => Some(secrets::encryption(
                get(&objects, reference).await?,
                &reference.name,
            )?),
            None => None,
        };
        let named = spec
            .s3
            .as_ref()
            .and_then(|s3| s3.credentials_secret_ref.as_ref());
        let credentials = match named {
            Some(reference) => Some(secrets::credentials(
                get(&objects, reference).await?,
                &reference.name,
            )?),
            None => None,
        };
        let status = repository.status.as_ref();
        Ok(Self {
            name: repository.name_any(),
            spec,
            expected: status.and_then(|status| status.repository_id.clone()),
            secret,
            credentials,
        })
    }

    /// The secret that opens the repository; `None` where it is not encrypted.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// The id that the repository was given, once somebody recorded it.
    #[must_use]
    pub fn expected_id(&self) -> Option<&str> {
        self.expected.as_deref()
    }

    /// Reaches the store. Waits: for a thread outside of any runtime. `create` makes a missing directory.
    ///
    /// # Errors
    /// What the store answers.
    pub fn connect(&self, bandwidth: Bandwidth, create: bool) -> Result<Arc<dyn Store>> {
        self.connect_for(bandwidth, create, None)
    }

    fn connect_for(
        &self,
        bandwidth: Bandwidth,
        create: bool,
        hurry: Option<Hurry>,
    ) -> Result<Arc<dyn Store>> {
        if let Some(directory) = &self.spec.directory {
            let options = StoreOptions {
                url: directory.path.clone(),
                limit_upload: bandwidth.upload,
                limit_download: bandwidth.download,
                ..StoreOptions::default()
            };
            return connect_for(&options, None, create, hurry);
        }
        self.bucket(bandwidth, hurry)
    }

    /// Opens the repository and proves that it is the one that is meant. Waits, as [`connect`](Self::connect).
    ///
    /// # Errors
    /// What opening answers; `InvalidRequest` where another repository lies in the place, or none was recorded yet.
    pub fn open(&self, bandwidth: Bandwidth) -> Result<Repository> {
        self.open_with(bandwidth, None)
    }

    /// The same for a run that hears `stop`: it waits for bandwidth no longer then.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for(&self, bandwidth: Bandwidth, stop: &StopFlag) -> Result<Repository> {
        let stop = stop.clone();
        self.open_with(bandwidth, Some(Hurry::new(move || stop.is_stopped())))
    }

    fn open_with(&self, bandwidth: Bandwidth, hurry: Option<Hurry>) -> Result<Repository> {
        let Some(expected) = &self.expected else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "use a repository that was never ready",
            )
            .object(&self.name)
            .hint("its status.message says what is missing"));
        };
        let store = self.connect_for(bandwidth, false, hurry)?;
        let (repository, warnings) = access::open(store, self.secret.as_ref())?;
        for warning in warnings {
            tracing::warn!(repository = self.name, "{warning}");
        }
        let found = repository.config.repository.to_string();
        if found != *expected {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("use repository {found}: this node sees it in the place of {expected}"),
            )
            .object(&self.name)
            .hint("a directory must be the same volume on every node, and a bucket must not be exchanged under its name"));
        }
        Ok(repository)
    }

    #[cfg(feature = "s3")]
    fn bucket(&self, bandwidth: Bandwidth, hurry: Option<Hurry>) -> Result<Arc<dyn Store>> {
        use crate::repository::store::connect::connect_bucket;
        use crate::repository::store::s3::S3Options;

        let s3 = self.spec.s3.clone().unwrap_or_default();
        let prefix = s3.prefix.as_deref().unwrap_or_default().trim_matches('/');
        let options = S3Options {
            bucket: s3.bucket,
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            endpoint: s3.endpoint,
            region: s3.region,
            path_style: s3.path_style.unwrap_or(false),
            ca_pem: s3.ca_bundle,
            credentials: self.credentials.as_ref().map(Credentials::to_s3),
            ..S3Options::default()
        };
        connect_bucket(&options, (bandwidth.upload, bandwidth.download), hurry)
    }

    #[cfg(not(feature = "s3"))]
    fn bucket(&self, _bandwidth: Bandwidth, _hurry: Option<Hurry>) -> Result<Arc<dyn Store>> {
        let _ = &self.credentials;
        Err(Error::new(
            ErrorKind::InvalidRequest,
            "open a bucket with a program built without S3",
        )
        .object(&self.name))
    }
}

async fn get(objects: &Api<SecretObject>, reference: &NameRef) -> Result<SecretObject> {
    objects.get(&reference.name).await.map_err(|error| {
        failed("read the secret of the repository", &reference.name, error)
            .hint("the secret must be in the system namespace")
    })
}

#[cfg(test)]
#[cfg(feature = "testing-s3")]
mod tests;

//! From an address and options to a store.
//!
//! Owns: the choice of the store and its wrappers. Must not: read environment variables other than through the AWS chain.

use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::directory::DirectoryStore;
use super::limited::{Hurry, Limited, Limits};
use super::profile::StoreProfile;
use super::url::StoreUrl;
use crate::error::Result;

/// Everything that says where a repository is and how to reach it. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// `file:///path`, a path, or `s3://bucket/prefix`.
    pub url: String,
    /// Address of the S3 server, where it is not AWS.
    pub s3_endpoint: Option<String>,
    /// Region, where the AWS environment does not say it.
    pub s3_region: Option<String>,
    /// Names the bucket in the path instead of the host name.
    pub s3_path_style: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub s3_ca_file: Option<PathBuf>,
    /// Bytes a second that this process may send to all its stores with the same limit.
    pub limit_upload: Option<u64>,
    /// Bytes a second that this process may receive.
    pub limit_download: Option<u64>,
}

/// Opens the store that `options` name.
///
/// Without a `profile` it sends requests the way any server accepts; give the recorded one here, or later to
/// [`Store::adopt_profile`]. `create` makes a missing directory; buckets are never made.
///
/// # Errors
/// `InvalidRequest` for an address or option that cannot be, and what the store answers.
pub fn connect(
    options: &StoreOptions,
    profile: Option<&StoreProfile>,
    create: bool,
) -> Result<Arc<dyn Store>> {
    connect_for(options, profile, create, None)
}

/// The same for a run that can be in a hurry.
///
/// # Errors
/// As [`connect`].
pub fn connect_for(
    options: &StoreOptions,
    profile: Option<&StoreProfile>,
    create: bool,
    hurry: Option<Hurry>,
) -> Result<Arc<dyn Store>> {
    let store: Arc<dyn Store> = match options.url.parse()? {
        StoreUrl::Directory(path) => Arc::new(DirectoryStore::open(&path, create)?),
        StoreUrl::S3 { bucket, prefix } => connect_s3(options, bucket, prefix)?,
    };
    if let Some(profile) = profile {
        store.adopt_profile(profile);
    }
    let limits = Limits::of_process(options.limit_upload, options.limit_download)?;
    Ok(if limits.is_unlimited() {
        store
    } else {
        Arc::new(Limited::new(store, limits).heeding(hurry))
    })
}

/// Opens a bucket with credentials and authorities that the caller has in memory, held to the limits of this process.
///
/// # Errors
/// As [`connect`].
#[cfg(feature = "s3")]
pub fn connect_bucket(
    options: &super::s3::S3Options,
    (upload, download): (Option<u64>, Option<u64>),
    hurry: Option<Hurry>,
) -> Result<Arc<dyn Store>> {
    let store = super::s3::S3Store::connect(options, &StoreProfile::default())?;
    let limits = Limits::of_process(upload, download)?;
    Ok(if limits.is_unlimited() {
        Arc::new(store)
    } else {
        Arc::new(Limited::new(Arc::new(store), limits).heeding(hurry))
    })
}

#[cfg(feature = "s3")]
fn connect_s3(options: &StoreOptions, bucket: String, prefix: String) -> Result<Arc<dyn Store>> {
    let options = super::s3::S3Options {
        bucket,
        prefix,
        endpoint: options.s3_endpoint.clone(),
        region: options.s3_region.clone(),
        path_style: options.s3_path_style,
        ca_file: options.s3_ca_file.clone(),
        ..super::s3::S3Options::default()
    };
    Ok(Arc::new(super::s3::S3Store::connect(
        &options,
        &StoreProfile::default(),
    )?))
}

#[cfg(not(feature = "s3"))]
fn connect_s3(options: &StoreOptions, _bucket: String, _prefix: String) -> Result<Arc<dyn Store>> {
    use crate::error::{Error, ErrorKind};
    Err(Error::new(
        ErrorKind::InvalidRequest,
        "open a bucket with a program built without S3",
    )
    .object(&options.url)
    .hint("build with default features, or use a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use bytes::Bytes;

    fn options(url: &str) -> StoreOptions {
        StoreOptions {
            url: url.to_owned(),
            ..StoreOptions::default()
        }
    }

    #[test]
    fn a_directory_is_made_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let options = options(path.to_str().unwrap());
        let missing = connect(&options, None, false).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.hint_text().is_some());
        let store = connect(&options, None, true).unwrap();
        store.put("config", Bytes::from_static(b"x")).unwrap();
        store.sync().unwrap();
        let again = connect(&options, None, false).unwrap();
        assert_eq!(again.get("config").unwrap(), "x");
        assert_eq!(again.url(), format!("file://{}", path.display()));
    }

    #[test]
    fn a_file_is_no_repository() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = connect(&options(file.path().to_str().unwrap()), None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn without_the_feature_a_bucket_is_refused_with_advice() {
        let error = connect(&options("s3://bucket/x"), None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.hint_text().is_some());
    }
}

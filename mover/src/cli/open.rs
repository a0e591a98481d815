//! From flags to an opened repository.
//!
//! Owns: the order of it: reach the store, read the configuration, find a secret only if one is needed, unwrap the key. Must
//! not: know stores or formats.

use std::sync::Arc;

use super::args::{RepositoryArgs, RunArgs};
use super::config::invalid;
use super::run::Run;
use super::secret::{self, Ask};
use crate::error::Result;
use crate::repository::access::{self, Opened, Opener, Repository};
use crate::repository::format::RecoveryKey;
use crate::repository::format::crypto::Cipher;
use crate::repository::format::key_slot::Secret;
use crate::repository::store::Store;
use crate::repository::store::connect::{StoreOptions, connect_for};
use crate::repository::store::limited::Hurry;

/// Reaches the store that the flags name; `create` makes a missing directory.
pub(super) fn store(options: &StoreOptions, create: bool, run: &Run) -> Result<Arc<dyn Store>> {
    let stop = run.stop_flag();
    let hurry = Hurry::new(move || stop.is_stopped());
    let store = connect_for(options, None, create, Some(hurry))?;
    run.uses(&store);
    Ok(store)
}

/// Opens the repository that the flags name.
pub(super) fn repository(
    args: &RepositoryArgs,
    limits: &RunArgs,
    run: &Run,
) -> Result<Arc<Repository>> {
    Ok(Arc::new(opened(args, limits, run)?.repository))
}

/// Opens the repository that the flags name, and gives its keys, too.
pub(super) fn opened(args: &RepositoryArgs, limits: &RunArgs, run: &Run) -> Result<Opened> {
    let sheet = args
        .recovery_sheet
        .as_deref()
        .map(secret::recovery_sheet)
        .transpose()?;
    // A sheet is given on purpose; a passphrase in the environment may be there from other times.
    let configured = match sheet {
        Some(_) => None,
        None => secret::configured(args)?,
    };
    opened_by(args, limits, run, (sheet, configured))
}

/// Opens a repository that the caller knows to be unencrypted, whatever secret the environment has.
pub(super) fn unencrypted(
    args: &RepositoryArgs,
    limits: &RunArgs,
    run: &Run,
) -> Result<Arc<Repository>> {
    Ok(Arc::new(
        opened_by(args, limits, run, (None, None))?.repository,
    ))
}

fn opened_by(
    args: &RepositoryArgs,
    limits: &RunArgs,
    run: &Run,
    (sheet, configured): (Option<RecoveryKey>, Option<Secret>),
) -> Result<Opened> {
    let options = store_options(args, limits)?;
    let store = store(&options, false, run)?;
    let (config, _) = access::read_config(store.as_ref())?;
    store.adopt_profile(&config.profile);
    let secret = match configured {
        None if sheet.is_none() && config.cipher != Cipher::None => Some(secret::ask(Ask::Once)?),
        configured => configured,
    };
    let opener = match (&sheet, &secret) {
        (Some(sheet), _) => Opener::Sheet(sheet),
        (None, Some(secret)) => Opener::Secret(secret),
        (None, None) => Opener::Nothing,
    };
    let mut opened = access::open_with(store, opener)?;
    for warning in std::mem::take(&mut opened.warnings) {
        run.warn(warning);
    }
    Ok(opened)
}

/// The flags that say where the store is and how it is reached.
pub(super) fn store_options(args: &RepositoryArgs, limits: &RunArgs) -> Result<StoreOptions> {
    let url = args
        .url
        .clone()
        .filter(|url| !url.is_empty())
        .ok_or_else(|| {
            invalid("find the repository")
                .hint("give --repo URL or set SNAPHAUL_REPO, e.g. --repo /backup/vms")
        })?;
    Ok(StoreOptions {
        url,
        s3_endpoint: args.s3_endpoint.clone(),
        s3_region: args.s3_region.clone(),
        s3_path_style: args.s3_path_style,
        s3_ca_file: args.s3_ca_file.clone(),
        limit_upload: limits.limit_upload,
        limit_download: limits.limit_download,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_repository_must_be_named() {
        for url in [None, Some(String::new())] {
            let args = RepositoryArgs {
                url,
                ..RepositoryArgs::default()
            };
            let error = store_options(&args, &RunArgs::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.hint_text().unwrap().contains("SNAPHAUL_REPO"));
        }
    }

    #[test]
    fn limits_reach_the_store() {
        let args = RepositoryArgs {
            url: Some("/r".to_owned()),
            s3_path_style: true,
            ..RepositoryArgs::default()
        };
        let limits = RunArgs {
            limit_upload: Some(5),
            ..RunArgs::default()
        };
        let options = store_options(&args, &limits).unwrap();
        assert_eq!(
            (options.limit_upload, options.limit_download),
            (Some(5), None)
        );
        assert!(options.s3_path_style);
    }
}

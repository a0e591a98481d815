//! Whether gc may run here at all.
//!
//! Owns: that refusal. Must not: look at the repository's content.

use super::GcRequest;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::store::host::host_id;

/// # Errors
/// `InvalidRequest` where the answers of this host's store cannot be relied on.
pub(super) fn check(repository: &Repository, request: &GcRequest) -> Result<()> {
    let profile = &repository.config.profile;
    let elsewhere = profile
        .single_host
        .as_ref()
        .is_some_and(|only| *only != host_id());
    if elsewhere && !request.any_host {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "collect garbage from this host: the repository is on a network file system, and another host made it",
        )
        .object(repository.store.url())
        .hint("run gc on the host that ran `snaphaul init`; or, if no other host writes to the repository now, with --any-host"));
    }
    Ok(())
}

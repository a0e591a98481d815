//! The suite that every store passes, against real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use mover::repository::store::Store;
use mover::repository::store::contract;
use mover::repository::store::profile::StoreProfile;
use mover::repository::store::s3::{S3Credentials, S3Options, S3Store};
use tests::bucket::REGION;
use tests::cases::Site;

/// Every case on a prefix of its own.
pub(crate) fn every_case(site: &Site) -> Result<()> {
    let count = AtomicU32::new(0);
    // As a passed probe records it; the default trusts no server with a race.
    let profile = StoreProfile {
        conditional_writes: true,
        ..StoreProfile::default()
    };
    let make = || -> Arc<dyn Store> {
        let options = S3Options {
            bucket: site.bucket.name.clone(),
            prefix: format!("contract-{}/", count.fetch_add(1, Ordering::Relaxed)),
            endpoint: Some(site.endpoint.url.clone()),
            region: Some(REGION.to_owned()),
            path_style: true,
            ca_file: site.endpoint.ca_file.clone(),
            credentials: Some(S3Credentials::new(
                &site.endpoint.owner.access,
                &site.endpoint.owner.secret,
            )),
            ..S3Options::default()
        };
        Arc::new(S3Store::connect(&options, &profile).expect("the rig's options are good"))
    };
    contract::run(&make);
    Ok(())
}

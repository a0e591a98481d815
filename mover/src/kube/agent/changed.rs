//! Who says what changed in a volume of this cluster.
//!
//! Owns: which snapshot the service of the driver is asked about, and when. Must not: judge the answer, or fail a backup for want of
//! one: without it everything is read.

use std::time::{Duration, Instant};

use changed_blocks::csi::{CsiOptions, Notices, StopCheck};
use kube::Client;
use tokio::runtime::Handle;

use crate::attach::csi::profile::{BasePolicy, Profile};
use crate::device::source::{DeltaSources, Unusable};
use crate::error::ErrorKind;
use crate::kube::api::transfer::TransferOrder;
use crate::kube::changed_blocks::{Found, Options, Subject, delta_sources, find};
use crate::pipeline::progress::StopFlag;

/// After this time without a word of the service everything is read instead. The controller waits longer for what is moved.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long a service may take to be there again.
const RESTART: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(3);

/// How the services of a cluster are reached.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) client: Client,
    pub(super) system_namespace: String,
    /// Where a service is, if not where its object says.
    pub(super) address: Option<String>,
    pub(super) runtime: Handle,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// Asks about the snapshot of one order. Each call finds the service anew: a second try must not meet a connection that failed.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) services: Services,
    pub(super) stop: StopFlag,
    pub(super) notices: Notices,
}

impl Asker {
    /// Sources for the snapshot of an order, whose device has `size` bytes. Waits: for a thread outside of the runtime.
    pub(super) fn sources(&self, order: &TransferOrder, size: u64) -> DeltaSources {
        let Some(subject) = self.subject(order) else {
            return DeltaSources::none(Unusable {
                name: changed_blocks::csi::NAME,
                reason: "the order names no snapshot".to_owned(),
                is_fault: false,
            });
        };
        let services = &self.services;
        let profile = profile(order);
        let options = Options {
            address: services.address.clone(),
            ..Options::default()
        };
        let found = self.found(&subject, &profile, &options);
        let stop = self.stop.clone();
        delta_sources(found, |blocks| {
            blocks
                .source(size, services.runtime.clone())
                .with_options(CsiOptions {
                    no_progress: PATIENCE,
                    ..CsiOptions::default()
                })
                .with_notices(self.notices.clone())
                .with_stop(StopCheck::new(move || stop.is_stopped()))
        })
    }

    /// Asks again for a while: a service that restarts would cost two backups that read everything.
    fn found(
        &self,
        subject: &Subject,
        profile: &Profile,
        options: &Options,
    ) -> crate::error::Result<Found> {
        let (services, begin) = (&self.services, Instant::now());
        loop {
            let looked = find(&services.client, subject, profile, options);
            match services.runtime.block_on(looked) {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        && begin.elapsed() < RESTART
                        && !self.stop.is_stopped() =>
                {
                    tracing::info!(%error, "ask for the service that tells what changed again");
                    std::thread::sleep(PAUSE);
                }
                found => return found,
            }
        }
    }

    fn subject(&self, order: &TransferOrder) -> Option<Subject> {
        Some(Subject {
            namespace: self.services.system_namespace.clone(),
            name: order.snapshot_name.clone()?,
            driver: order.driver.clone(),
            driver_version: None,
            volume_handle: order.volume_handle.clone(),
            snapshot_handle: order.snapshot_handle.clone()?,
        })
    }
}

/// What the controller says of the driver: it knows what the ConfigMap says, too.
fn profile(order: &TransferOrder) -> Profile {
    let base_snapshot = match order.keeps_base {
        Some(false) => BasePolicy::Drop,
        Some(true) | None => BasePolicy::Keep,
    };
    Profile {
        change_id_annotation: order.change_id_annotation.clone(),
        snapshot_metadata_service_name: order.snapshot_metadata_service_name.clone(),
        base_snapshot,
        ..Profile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is built in is no word against the order's: an override may have taken it away.
    #[test]
    fn the_order_alone_says_what_is_known_of_the_driver() {
        let mut order = TransferOrder {
            driver: "csi.vsphere.vmware.com".to_owned(),
            ..TransferOrder::default()
        };
        assert_eq!(profile(&order), Profile::default());
        order.change_id_annotation = Some("a".to_owned());
        order.snapshot_metadata_service_name = Some("s".to_owned());
        order.keeps_base = Some(false);
        let known = profile(&order);
        assert_eq!(known.change_id_annotation.as_deref(), Some("a"));
        assert_eq!(known.service_name(&order.driver), "s");
        assert_eq!(known.base_snapshot, BasePolicy::Drop);
    }
}

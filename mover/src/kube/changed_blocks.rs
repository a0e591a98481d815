//! What changed between two snapshots, as the service of their driver in this cluster tells it.
//!
//! ```text
//!   SnapshotMetadataService of the driver ─► address, audience, authority
//!                TokenRequest of our own service account ─► token ┐
//!   VolumeSnapshot ─► ready? change id? ──────────────────────────┴─► ClusterMetadata ─► CsiSource
//! ```
//!
//! Owns: how the service is found and let believe us. Must not: judge what it tells (`changed_blocks::csi` does), wait for a
//! snapshot, or keep one.

mod snapshot;
pub mod tokens;

use changed_blocks::csi::{ClusterMetadata, ClusterSnapshot, CsiSnapshot, CsiSource};
use csi_proto::Channel;
use csi_proto::connect::{self, ConnectError, TlsEndpoint};
use kube::Client;
use tokio::runtime::Handle;

use self::tokens::{Account, AccountTokens};
use super::foreign::metadata_service::{self, Lookup, MetadataService};
use crate::attach::csi::profile::{BasePolicy, Profile};
use crate::device::source::{DeltaSources, Unusable};
use crate::error::{Error, ErrorKind, Result};

/// A snapshot in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Namespace of the VolumeSnapshot.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the driver.
    pub driver: String,
    /// Version of the driver, where it is known.
    pub driver_version: Option<String>,
    /// The driver's handle of the volume.
    pub volume_handle: String,
    /// The driver's handle of the snapshot.
    pub snapshot_handle: String,
}

/// How the service is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whom tokens are made for; without it the service account that this process is.
    pub account: Option<Account>,
    /// Where the service is, if not where its object says: its address means something inside the cluster only.
    pub address: Option<String>,
}

/// Who tells what changed.
#[derive(Debug)]
pub enum Found {
    /// The service.
    Service(Box<ClusterBlocks>),
    /// Nobody, and why. No error: the driver has no such service.
    Absent(String),
}

/// The service of a driver, and the snapshot that it is asked about.
#[derive(Debug)]
pub struct ClusterBlocks {
    channel: Channel,
    tokens: AccountTokens,
    place: ClusterSnapshot,
    snapshot: CsiSnapshot,
    needs_base: bool,
    version: &'static str,
}

/// Finds the service of the subject's driver and connects to it.
///
/// # Errors
/// `AccessDenied` with the rule that is missing, or where the certificate is of another authority than the object names;
/// `InvalidRequest` for an object in no form, a snapshot that is not ready or a person who asks as himself; `NotFound` without the
/// VolumeSnapshot; `Unavailable` where API server or service do not answer.
pub async fn find(
    client: &Client,
    subject: &Subject,
    profile: &Profile,
    options: &Options,
) -> Result<Found> {
    let name = profile.service_name(&subject.driver);
    let (service, version) = match metadata_service::find(client, name).await? {
        Lookup::Found(service, version) => (service, version),
        Lookup::Absent(reason) => return Ok(Found::Absent(reason)),
    };
    let needs_base = needs_base(&service, profile);
    let facts = snapshot::facts(client, subject, profile).await?;
    let account = match &options.account {
        Some(account) => account.clone(),
        None => Account::own(client).await?,
    };
    let channel = connected(&service, options).await?;
    let tokens = AccountTokens::new(client.clone(), account, service.audience);
    Ok(Found::Service(Box::new(ClusterBlocks {
        channel,
        tokens,
        place: ClusterSnapshot {
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
        },
        snapshot: named(subject, facts),
        needs_base,
        version,
    })))
}

/// Whether a snapshot must stay for the next delta: the service knows best, then the profile.
#[must_use]
pub fn needs_base(service: &MetadataService, profile: &Profile) -> bool {
    service
        .require_base_snapshot_for_delta
        .unwrap_or(profile.base_snapshot == BasePolicy::Keep)
}

fn named(subject: &Subject, facts: snapshot::Facts) -> CsiSnapshot {
    let mut snapshot = CsiSnapshot::new(
        &subject.driver,
        &subject.volume_handle,
        &subject.snapshot_handle,
    );
    snapshot.driver_version.clone_from(&subject.driver_version);
    snapshot.change_id = facts.change_id;
    snapshot.created(facts.created)
}

async fn connected(service: &MetadataService, options: &Options) -> Result<Channel> {
    let address = options.address.as_ref().unwrap_or(&service.address);
    // The certificate is for the name that the object tells, wherever that is reached.
    let told = service.address.rsplit_once(':');
    let name = told.map_or(&*service.address, |(host, _)| host);
    let endpoint = TlsEndpoint {
        address: address.clone(),
        ca_certificates: service.ca_cert.0.clone(),
        server_name: options.address.is_some().then(|| {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            name.to_owned()
        }),
    };
    connect::tls(&endpoint)
        .await
        .map_err(|error| not_connected(error, address))
}

/// A transport error is one text; that it is about the certificate shows in its words.
fn not_connected(error: ConnectError, address: &str) -> Error {
    let text = error.to_string();
    let (kind, hint) = if text.contains("certificate") {
        (
            ErrorKind::AccessDenied,
            "caCert of the SnapshotMetadataService must be of the authority that signed the certificate, for the host of its address",
        )
    } else if matches!(error, ConnectError::Unusable { .. }) {
        (
            ErrorKind::InvalidRequest,
            "the SnapshotMetadataService needs an address host:port and a caCert that is a PEM bundle",
        )
    } else {
        (
            ErrorKind::Unavailable,
            "look whether the driver's external-snapshot-metadata container runs and its Service has an endpoint",
        )
    };
    Error::new(kind, "connect to the service that tells what changed")
        .object(address)
        .hint(hint)
        .source(error)
}

impl ClusterBlocks {
    /// What names the snapshot: a point keeps it, so that a later snapshot can be compared with it.
    #[must_use]
    pub fn snapshot(&self) -> &CsiSnapshot {
        &self.snapshot
    }

    /// Whether the snapshot must stay for the next delta.
    #[must_use]
    pub fn needs_base(&self) -> bool {
        self.needs_base
    }

    /// The version of the object that named the service.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// As a source for a device of `size` bytes. The runtime must have several threads, and be the one that this was made on; the
    /// source is asked from outside of it.
    #[must_use]
    pub fn source(self, size: u64, runtime: Handle) -> CsiSource<ClusterMetadata> {
        let tokens = Box::new(self.tokens);
        let service = ClusterMetadata::new(self.channel, self.place, tokens);
        CsiSource::new(service, self.snapshot, size, runtime).needing_base(self.needs_base)
    }
}

/// The sources of a device: the service, or why there is none. A backup goes on without: it reads everything.
#[must_use]
pub fn delta_sources(
    found: Result<Found>,
    with: impl FnOnce(ClusterBlocks) -> CsiSource<ClusterMetadata>,
) -> DeltaSources {
    let unusable = |reason: String, is_fault: bool| {
        DeltaSources::none(Unusable {
            name: changed_blocks::csi::NAME,
            reason,
            is_fault,
        })
    };
    match found {
        Ok(Found::Service(blocks)) => DeltaSources::one(Box::new(with(*blocks))),
        Ok(Found::Absent(reason)) => unusable(reason, false),
        Err(error) => unusable(crate::attach::csi::sweep::with_causes(&error), true),
    }
}

#[cfg(test)]
mod tests;

//! gRPC types and clients of the Container Storage Interface (`csi.v1`) and of the Kubernetes SnapshotMetadata service, generated
//! at build time from `proto/`, and how to connect to them.
//!
//! Must not: contain logic. When a call is repeated, what an error means and what is cleaned up is decided by those who call.

pub mod connect;

/// `csi.v1`: what a driver serves on its socket.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]
pub mod csi {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/csi_debug.rs"));
}

/// `snapshotmetadata`: what the sidecar of a driver serves to clients in the cluster.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]
pub mod snapshot_metadata {
    tonic::include_proto!("snapshotmetadata");
    include!(concat!(env!("OUT_DIR"), "/snapshot_metadata_debug.rs"));
}

pub use prost_types::Timestamp;
pub use tonic::transport::Channel;
pub use tonic::{Code, Request, Response, Status, Streaming};

/// What `Debug` shows in place of a secret: whether there is one.
enum Redacted {
    Absent,
    Present,
}

impl Redacted {
    fn of(empty: bool) -> Self {
        if empty { Self::Absent } else { Self::Present }
    }
}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "(none)",
            Self::Present => "(redacted)",
        })
    }
}

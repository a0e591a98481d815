//! A complete CSI driver for tests: volumes are sparse files, attached as loop devices; it can misbehave on demand and writes
//! down every call.
//!
//! ```text
//!                      ┌ Core::run ───────────────────────────────────────────┐
//!   socket ─► service ─┤ fault? ─ begin ─► busy? ─► secrets? ─► work ─► fault? ─ end ├─► answer
//!                      └──▲────────┬─────────────────────────────┬────────▲───┘
//!              faults.json│        ▼ calls.jsonl                 ▼ state.json, volumes/, snapshots/
//! ```
//!
//! **Start**: `csi-test-driver --socket PATH --state DIR [--attach] [--no-stage] [--no-metadata] [--fixed] [--granularity BYTES]
//! [--odd-handles] [--secret KEY=VALUE] [--registration PATH]`, as root; from Rust with [`crate::test_driver::TestDriver`]. It has no
//! state but that of its folder: kill it at any time and start it again.
//!
//! **Order faults**: write a list of [`faults::Order`] to `faults.json` in the state folder (by renaming a finished file over it);
//! it is read at every call. An order names a call, optionally something it must be about (part of a name, a handle or a path), how
//! many matching calls pass before it (`skip`) and how many it hits (`times`, 0 = all). Counts survive a restart.
//!
//! **Read the record**: `calls.jsonl` has two lines a call, `begin` and `end`, joined by `seq`; [`record::Call`] has both. A call
//! whose end is missing was cut off by the end of the driver. Secrets appear by the names of their keys only. A caller that goes
//! away does not end the work that it asked for, except for a stream of metadata, which then ends as `Cancelled`.
//!
//! Strict where the specification allows it: a second call for a volume or snapshot at work is ABORTED, a volume in use and a
//! snapshot with clones cannot be deleted (FAILED_PRECONDITION), and a volume for one node has one target.
//!
//! Owns: the services and their state. Must not: be needed by anything but tests.

mod access;
mod controller;
mod core;
pub mod describe;
mod device;
pub mod faults;
mod groups;
mod identity;
mod metadata;
mod node;
mod node_state;
pub mod options;
pub mod record;
mod registration;
mod scan;
mod snapshots;
mod state;
mod tamper;
mod volumes;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use csi_proto::csi::controller_server::ControllerServer;
use csi_proto::csi::group_controller_server::GroupControllerServer;
use csi_proto::csi::identity_server::IdentityServer;
use csi_proto::csi::node_server::NodeServer;
use csi_proto::csi::snapshot_metadata_server::SnapshotMetadataServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use self::core::Core;
pub use self::core::NAME;
use self::options::Options;
use self::registration::Registrar;

/// The types of the kubelet's plugin registration.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// Serves until the process ends.
///
/// # Errors
/// Where the state cannot be read or a socket not be made.
pub async fn serve(options: Options) -> Result<()> {
    let core = Arc::new(Core::open(options)?);
    let service = Service(Arc::clone(&core));
    let registration = core.options.registration.clone();
    let register = async {
        let Some(path) = registration else {
            return Ok(());
        };
        let registrar = Registrar::new(Arc::clone(&core));
        Server::builder()
            .add_service(registrar.service())
            .serve_with_incoming(listen(&path)?)
            .await
            .context("serve the registration")
    };
    let metadata = core
        .options
        .metadata
        .then(|| SnapshotMetadataServer::new(service.clone()));
    let serve = Server::builder()
        .add_service(IdentityServer::new(service.clone()))
        .add_service(ControllerServer::new(service.clone()))
        .add_service(GroupControllerServer::new(service.clone()))
        .add_service(NodeServer::new(service))
        .add_optional_service(metadata)
        .serve_with_incoming(listen(&core.options.socket)?);
    tokio::try_join!(async { serve.await.context("serve the driver") }, register)?;
    Ok(())
}

/// A socket of a process that was killed is still there, and nobody listens on it.
fn listen(path: &Path) -> Result<UnixListenerStream> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    Ok(UnixListenerStream::new(listener))
}

/// What all services of the driver share; a type of this module, so that the generated traits can be implemented for it.
#[derive(Clone, Debug)]
struct Service(Arc<Core>);

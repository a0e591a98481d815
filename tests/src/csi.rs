//! CSI drivers as processes on a socket, for every test that speaks to one.
//!
//! ```text
//!   test ──► Plugin: socket, kubelet folder ──► TestDriver (ours, faults on demand) · HostPath (the one of kubernetes-csi)
//!     ├─ Client: blocking calls, to prepare and to look            │
//!     └─ Leaks: loop devices, mounts, staged paths, volumes, snapshots ◄┘
//! ```
//!
//! Owns: what both drivers have in common. Must not: know what a backup does with them.

pub mod attached;
pub mod client;
pub mod leaks;

use std::path::Path;

use anyhow::Result;

use crate::csi::client::Client;
use crate::csi::leaks::Leaks;

/// A running driver.
pub trait Plugin {
    /// Its socket, for `--csi-socket`.
    fn socket(&self) -> &Path;

    /// A folder that stands for the kubelet's (`--kubelet-root`): staging and target paths belong below it.
    fn kubelet(&self) -> &Path;

    /// Where it keeps images of volumes and snapshots; whatever lies elsewhere is not its own.
    fn state(&self) -> &Path;

    /// A connection of its own.
    ///
    /// # Errors
    /// Where it does not listen.
    fn client(&self) -> Result<Client> {
        Client::connect(self.socket())
    }

    /// Everything that it and its callers hold now.
    ///
    /// # Errors
    /// Where it does not answer.
    fn leaks(&self) -> Result<Leaks> {
        let mut leaks = leaks::on_this_machine(self.state(), self.kubelet())?;
        let client = self.client()?;
        leaks.volumes = client.volumes()?;
        leaks.snapshots = client.snapshots()?;
        Ok(leaks)
    }
}

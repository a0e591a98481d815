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
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::csi::client::Client;
use crate::csi::leaks::Leaks;

/// How long something that was let go may take to be gone.
const SETTLE: Duration = Duration::from_secs(20);

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

    /// What is held now and was not `before`, one line each. Waits a moment for it to go: a loop device that another program just
    /// looked at is freed when that program closes it.
    ///
    /// # Errors
    /// Where it does not answer.
    fn left_since(&self, before: &Leaks) -> Result<Vec<String>> {
        self.left_once(before, &<[String]>::is_empty)
    }

    /// The same where something is meant to stay: waits until `is_settled` likes what is left.
    ///
    /// # Errors
    /// Where it does not answer.
    fn left_once(
        &self,
        before: &Leaks,
        is_settled: &dyn Fn(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        let begin = Instant::now();
        loop {
            let left = self.leaks()?.since(before);
            if is_settled(&left) || begin.elapsed() > SETTLE {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

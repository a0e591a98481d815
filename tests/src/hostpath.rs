//! csi-driver-host-path of the Kubernetes project, as a process on a socket, with loop devices as volumes.
//!
//! Owns: its start, its end, and what it leaves. Must not: build or fetch it: the public module proxy does not serve its
//! module, so that whoever has the program names it in `SNAPHAUL_HOSTPATHPLUGIN`.
//!
//! Known differences from the specification, which tests that use it must expect: `readonly` is ignored for block volumes; a
//! snapshot misses writes that nobody synced; a metadata call beyond the end answers with nothing instead of OUT_OF_RANGE, and
//! one whose offset is not a multiple of 4096 with ranges that are wrong; negative `max_results` never end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::csi::Plugin;
use crate::csi::leaks::sweep;
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;

/// Seen: 40 ms.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running driver; dropping it stops it and takes away what is still attached.
#[derive(Debug)]
pub struct HostPath {
    // Ends before its folder goes.
    process: Option<Process>,
    args: Vec<String>,
    socket: PathBuf,
    kubelet: PathBuf,
    state: PathBuf,
    folder: Scratch,
}

impl HostPath {
    /// Where the program is, if this machine has it.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        std::env::var_os("SNAPHAUL_HOSTPATHPLUGIN").map(PathBuf::from)
    }

    /// Starts it with SnapshotMetadata and an empty state; `more` are further flags, such as `--enable-attach`.
    ///
    /// # Errors
    /// Without root, or where the program is not there or does not come up.
    pub fn start(more: &[&str]) -> Result<Self> {
        part::root()?;
        if Self::program().is_none_or(|program| !program.is_file()) {
            bail!("SNAPHAUL_HOSTPATHPLUGIN must name the program of csi-driver-host-path");
        }
        let folder = Scratch::new("hostpath")?;
        let (socket, kubelet, state) = (
            folder.join("csi.sock"),
            folder.join("kubelet"),
            folder.join("state"),
        );
        std::fs::create_dir(&kubelet)?;
        std::fs::create_dir(&state)?;
        let mut args = vec![
            format!("--endpoint=unix://{}", socket.display()),
            format!("--statedir={}", state.display()),
            "--nodeid=node-1".to_owned(),
            "--enable-snapshot-metadata=true".to_owned(),
        ];
        args.extend(more.iter().map(ToString::to_string));
        let mut driver = Self {
            process: None,
            args,
            socket,
            kubelet,
            state,
            folder,
        };
        driver.restart()?;
        Ok(driver)
    }

    /// Ends it, if it runs, and starts it again on the same state.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let Some(program) = Self::program() else {
            bail!("SNAPHAUL_HOSTPATHPLUGIN must name the program of csi-driver-host-path");
        };
        self.process = None;
        let process = Process::start(&program, &self.args, &[], &self.folder.join("log"))?;
        let socket = self.socket.clone();
        process.wait_until(START_LIMIT, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// The process, to freeze it.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }
}

impl Plugin for HostPath {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    fn state(&self) -> &Path {
        &self.state
    }
}

impl Drop for HostPath {
    fn drop(&mut self) {
        self.process = None;
        sweep(&self.state, &self.kubelet);
    }
}

//! The external-snapshot-metadata sidecar of the Kubernetes project, as a process, where a machine has it.
//!
//! Owns: its start and end. Must not: build or fetch it: the public module proxy does not serve its module, so that whoever has the
//! program names it in `SNAPHAUL_SNAPSHOT_METADATA`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::signed;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::free_ports;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running sidecar; dropping it stops it.
#[derive(Debug)]
pub struct RealSidecar {
    // Ends before its folder goes.
    _process: Process,
    port: u16,
    authority: String,
    _folder: Scratch,
}

impl RealSidecar {
    /// Where the program is, if this machine has it.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        std::env::var_os("SNAPHAUL_SNAPSHOT_METADATA").map(PathBuf::from)
    }

    /// Serves the driver behind `socket` with the rights of `kubeconfig`, to tokens for `audience`. Its certificate is for
    /// `localhost`.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(program: &Path, kubeconfig: &Path, socket: &Path, audience: &str) -> Result<Self> {
        let folder = Scratch::new("snapshot-metadata")?;
        let (authority, certificate, key) = signed("localhost")?;
        let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
        std::fs::write(&cert_file, certificate)?;
        std::fs::write(&key_file, key)?;
        let [port, health] = free_ports::<2>()?;
        let words = [
            format!("--csi-address={}", socket.display()),
            format!("--tls-cert={}", cert_file.display()),
            format!("--tls-key={}", key_file.display()),
            format!("--port={port}"),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--audience={audience}"),
            format!("--http-endpoint=127.0.0.1:{health}"),
        ];
        let process = Process::start(program, &words, &[], &folder.join("log"))?;
        process.wait_until(START_LIMIT, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(Self {
            _process: process,
            port,
            authority,
            _folder: folder,
        })
    }

    /// For `spec.address`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// For `spec.caCert`, as PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

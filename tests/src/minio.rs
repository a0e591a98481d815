//! MinIO, built from the Go module pinned in `tests/tools/minio`.
//!
//! Owns: its start on loopback ports. Must not: build it (`tests/run` does). It is a test tool only: nothing of it is
//! linked or shipped.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::bucket::Bucket;
use crate::mount::{FileSystem, Mounted};
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::{Endpoint, Login, S3Server, free_ports};

/// Seen: 2 s on an idle 2-core machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Of the file system that it stores on, which takes only what is written to it: it refuses to fill one to the end, and measures
/// that as a part of the whole, which on a large disk of others is more than a test ever needs.
const DISK: u64 = 16 << 30;

/// A running MinIO; dropping it stops it.
#[derive(Debug)]
pub struct MinIo {
    endpoint: Endpoint,
    process: Process,
    _disk: Mounted,
    _folder: Scratch,
}

impl MinIo {
    /// Starts a server of its own with an empty store.
    ///
    /// # Errors
    /// Where it is not built or does not come up.
    pub fn start() -> Result<Self> {
        let program = part::cache().join("bin/minio");
        if !program.is_file() {
            bail!(
                "MinIO is missing at {}: run `tests/run`, which builds it",
                program.display()
            );
        }
        let folder = Scratch::new("minio")?;
        let disk = Mounted::new(FileSystem::Ext4, DISK)?;
        let owner = Login::new("snaphaulowner", "owner-secret-key");
        let [port, console] = free_ports::<2>()?;
        let args = [
            "server".to_owned(),
            "--quiet".to_owned(),
            format!("--address=127.0.0.1:{port}"),
            format!("--console-address=127.0.0.1:{console}"),
            disk.join("data").display().to_string(),
        ];
        let env = [
            ("MINIO_ROOT_USER", owner.access.as_str()),
            ("MINIO_ROOT_PASSWORD", &owner.secret),
            ("MINIO_UPDATE", "off"),
        ];
        let process = Process::start(&program, &args, &env, &folder.join("log"))?;
        let url = format!("http://127.0.0.1:{port}");
        let endpoint = Endpoint {
            name: "minio".to_owned(),
            url,
            ca_file: None,
            owner,
            reader: None,
            reader_needs_policy: false,
        };
        let probe = Bucket::new(&endpoint, "started");
        process.wait_until(START_LIMIT, || probe.create().is_ok())?;
        Ok(Self {
            endpoint,
            process,
            _disk: disk,
            _folder: folder,
        })
    }

    /// The process, to freeze it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl S3Server for MinIo {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

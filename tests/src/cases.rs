//! The same cases against every real S3 server, each server started once and only if one of its cases is asked for.
//!
//! ```text
//!   cases × servers ──► libtest-mimic (names, filters, threads) ──► a case: fn(&Site) -> Result<()>
//! ```
//!
//! Owns: start on first use, one bucket per case, stop at the end. Must not: know what a case tests.

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Trial};

use crate::bucket::Bucket;
use crate::ceph::Ceph;
use crate::in_process::InProcess;
use crate::minio::MinIo;
use crate::scratch::Scratch;
use crate::seaweed::SeaweedFs;
use crate::server::{Endpoint, S3Server, start_again_once};

/// What a case gets: a server, a bucket of its own, a folder of its own.
#[derive(Debug)]
pub struct Site {
    /// The server.
    pub endpoint: Endpoint,
    /// An empty bucket.
    pub bucket: Bucket,
    /// An empty folder.
    pub scratch: Scratch,
}

impl Site {
    /// The bucket as its read-only user.
    ///
    /// # Errors
    /// Where the server has none.
    pub fn reader_bucket(&self) -> Result<Bucket> {
        let mut endpoint = self.endpoint.clone();
        endpoint.owner = endpoint
            .reader
            .clone()
            .context("this server has a reader")?;
        Ok(Bucket::new(&endpoint, &self.bucket.name))
    }
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name in the output.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Site) -> Result<()>,
    /// Servers it runs on, all where empty.
    pub servers: &'static [&'static str],
}

type Start = fn() -> Result<Box<dyn S3Server>>;

/// A server that starts when the first case asks.
#[derive(Debug)]
struct Lazy {
    name: &'static str,
    start: Start,
    state: Mutex<Option<Result<Arc<dyn S3Server>, String>>>,
}

impl Lazy {
    fn new(name: &'static str, start: Start) -> Arc<Self> {
        Arc::new(Self {
            name,
            start,
            state: Mutex::new(None),
        })
    }

    fn get(&self) -> Result<Arc<dyn S3Server>> {
        let mut state = self
            .state
            .lock()
            .map_err(|_| anyhow!("a case panicked while {} started", self.name))?;
        let started = state.get_or_insert_with(|| {
            start_again_once(self.name, self.start)
                .map(Arc::from)
                .map_err(|error| format!("{error:#}"))
        });
        started.clone().map_err(|error| anyhow!("{error}"))
    }
}

/// Runs all `cases` on all servers, as `cargo test` would, and gives the exit code.
#[must_use]
pub fn run(cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Servers and commands share the machine's cores; more at once only makes time-outs.
    arguments.test_threads.get_or_insert(2);
    let servers = [
        Lazy::new("s3s-fs", || Ok(Box::new(InProcess::start()?))),
        Lazy::new("seaweedfs", || Ok(Box::new(SeaweedFs::start()?))),
        Lazy::new("minio", || Ok(Box::new(MinIo::start()?))),
        Lazy::new("ceph-rgw", || Ok(Box::new(Ceph::start()?))),
    ];
    let mut trials = Vec::new();
    for server in &servers {
        for case in cases
            .iter()
            .filter(|case| case.servers.is_empty() || case.servers.contains(&server.name))
        {
            let (server, case) = (Arc::clone(server), *case);
            let name = format!("{}::{}", server.name, case.name);
            trials.push(Trial::test(name, move || {
                run_case(&server, case).map_err(|error| format!("{error:#}").into())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The servers stop here: nothing drops a static, so they live in this function.
    drop(servers);
    conclusion.exit_code()
}

fn run_case(server: &Lazy, case: Case) -> Result<()> {
    let endpoint = server.get()?.endpoint().clone();
    let scratch = Scratch::new("case")?;
    let bucket = endpoint
        .bucket(&case.name.replace('_', "-"))
        .context("make the bucket of the case")?;
    (case.run)(&Site {
        endpoint,
        bucket,
        scratch,
    })
}

//! The cluster of the tests as a program that runs until it is told to stop; `tests/rig` calls it.
//!
//! `rig FOLDER` writes `kubeconfig` into the folder once the cluster serves, and takes it away when SIGTERM or SIGINT ends it.
//! Owns: the time between the two. Must not: daemonise itself, or decide what a cluster has.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tests::cluster::{Cluster, Parts};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: rig FOLDER")?;
    let kubeconfig = PathBuf::from(folder).join("kubeconfig");
    // Before the first child: from now on a signal ends the cluster in order instead of this process at once.
    let (mut told, tell) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        pipe::register(signal, tell.try_clone()?)?;
    }
    let cluster = Cluster::start(Parts::WHOLE)?;
    let partial = kubeconfig.with_extension("partial");
    std::fs::copy(cluster.kubeconfig(), &partial)?;
    std::fs::rename(&partial, &kubeconfig)?;
    told.read_exact(&mut [0])?;
    std::fs::remove_file(&kubeconfig)?;
    drop(cluster);
    Ok(())
}

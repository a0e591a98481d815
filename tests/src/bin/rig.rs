//! The cluster of the tests as a program that runs until it is told to stop; `tests/rig` calls it.
//!
//! `rig FOLDER` writes `kubeconfig` into the folder once the cluster serves, and takes it away when SIGTERM or SIGINT ends it.
//! The cluster has a node, the driver of the tests with its classes as defaults, an image of busybox, and the product: the base of the
//! manifests as pods of the image that `image/build` makes, and the repository of the examples in a bucket of MinIO.
//! `rig FOLDER --control-plane` leaves all of these away, and does not need root.
//!
//! Owns: the time between the two. Must not: daemonise itself.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tests::cluster::deployment::{self, DeploymentOptions};
use tests::cluster::storage::Storage;
use tests::cluster::{Cluster, Parts, examples};
use tests::minio::MinIo;
use tests::server::S3Server as _;

const NODE: &str = "node-1";
const USAGE: &str = "usage: rig FOLDER [--control-plane]";

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let kubeconfig = PathBuf::from(args.next().context(USAGE)?).join("kubeconfig");
    let whole = match args.next() {
        None => true,
        Some(flag) if flag == "--control-plane" => false,
        Some(_) => bail!(USAGE),
    };
    // Before the first child: from now on a signal ends the cluster in order instead of this process at once.
    let (mut told, tell) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        pipe::register(signal, tell.try_clone()?)?;
    }
    let cluster = Cluster::start(if whole {
        Parts::WHOLE
    } else {
        Parts::WITHOUT_NODES
    })?;
    let parts = whole.then(|| parts(&cluster)).transpose()?;
    let partial = kubeconfig.with_extension("partial");
    std::fs::copy(cluster.kubeconfig(), &partial)?;
    std::fs::rename(&partial, &kubeconfig)?;
    told.read_exact(&mut [0])?;
    std::fs::remove_file(&kubeconfig)?;
    drop(parts);
    drop(cluster);
    Ok(())
}

/// What a developer finds beside the cluster's own programs, in the order in which it ends.
fn parts(cluster: &Cluster) -> Result<(Storage, MinIo)> {
    let storage = Storage::start_on_node(cluster, NODE, |options| options.attach = true)?;
    let bucket = MinIo::start()?;
    deployment::install(cluster, &[NODE], &DeploymentOptions::default())?;
    examples::repository(cluster, bucket.endpoint())?;
    Ok((storage, bucket))
}

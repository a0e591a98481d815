//! The rig itself: what the other tests of the cluster rest on. Each case fails where the API server would let through what it must
//! refuse, so that a refusal seen elsewhere is one of a real cluster.

#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/identity.rs"]
mod identity;
#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/volumes.rs"]
mod volumes;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};
use tests::cluster::{Cluster, Parts};

/// One cluster for all cases; each has namespaces of its own, and those that restart programs come last.
type Case = (&'static str, fn(&mut Cluster) -> Result<()>);

const CASES: &[Case] = &[
    ("namespaces_come_and_go", life::namespaces_come_and_go),
    ("claims_are_bound", life::claims_are_bound),
    ("roles_are_asked", identity::roles_are_asked),
    (
        "nodes_see_only_their_own",
        identity::nodes_see_only_their_own,
    ),
    ("tokens_have_audiences", identity::tokens_have_audiences),
    ("pod_security_refuses", admission::pod_security_refuses),
    ("policies_refuse", admission::policies_refuse),
    ("snapshots_are_checked", admission::snapshots_are_checked),
    ("volumes_come_and_go", volumes::come_and_go),
    ("restarts_lose_nothing", life::restarts_lose_nothing),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the cluster, and the last ones restart it.
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Cluster>>> = Arc::default();
    let trials = CASES.iter().map(|(name, case)| {
        let shared = Arc::clone(&shared);
        Trial::test(*name, move || {
            run(&shared, *case).map_err(|error| format!("{error:?}").into())
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn run(shared: &Mutex<Option<Cluster>>, case: fn(&mut Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if cluster.is_none() {
        *cluster = Some(Cluster::start(Parts::WITHOUT_NODES)?);
    }
    case(cluster.as_mut().context("started above")?)
}

/// The text of an error that had to come.
fn refused<T>(answer: Result<T>) -> Result<String> {
    match answer {
        Ok(_) => anyhow::bail!("was not refused"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

//! Backups and restores by custom resources, in a cluster of real parts without a kubelet.
//!
//! API server, controller manager, scheduler, snapshot controller and CSI sidecars are those of every cluster; controller, agent and
//! holders are processes with the rights that the manifests give them; the node is [`tests::cluster::node`]. After each case: every
//! resource is in a final phase, nothing is left but bases, and what is Completed restores bit for bit.
//!
//! `SNAPHAUL_TEST_LONG=1` makes the deaths a hundred rounds.

#[path = "in_cluster/backup.rs"]
mod backup;
#[path = "in_cluster/bed.rs"]
mod bed;
#[path = "in_cluster/cancel.rs"]
mod cancel;
#[path = "in_cluster/deaths.rs"]
mod deaths;
#[path = "in_cluster/nodes.rs"]
mod nodes;
#[path = "in_cluster/outages.rs"]
mod outages;
#[path = "in_cluster/queue.rs"]
mod queue;
#[path = "in_cluster/restore.rs"]
mod restore;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};

use crate::bed::Bed;

type Case = (&'static str, fn(&mut Bed) -> Result<()>);

/// One cluster for all; those that kill come last.
const CASES: &[Case] = &[
    ("full_backup", backup::full),
    ("incremental_backup", backup::incremental),
    ("snapshot_of_the_user", backup::snapshot_of_the_user),
    ("dropped_base", backup::dropped_base),
    ("refusals", backup::refusals),
    ("deleted_with_its_point", backup::deleted_with_its_point),
    ("restore_into_a_new_claim", restore::new_claim),
    ("cancelled_before_the_snapshot", cancel::before_the_snapshot),
    ("cancelled_while_exposing", cancel::while_exposing),
    ("cancelled_while_waiting", cancel::while_waiting),
    ("cancelled_in_progress", cancel::in_progress),
    ("deleted_in_progress", cancel::deleted_in_progress),
    ("repository_away_and_back", backup::repository_away_and_back),
    ("many_queued", queue::many),
    ("two_nodes", nodes::two),
    ("api_server_killed", outages::api_server),
    ("controller_manager_killed", outages::controller_manager),
    ("deaths", deaths::anywhere),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the cluster, and some break it for a while.
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Bed>>> = Arc::default();
    let trials = CASES.iter().map(|(name, case)| {
        let shared = Arc::clone(&shared);
        Trial::test(*name, move || {
            run(&shared, name, *case).map_err(|error| format!("{error:?}").into())
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn run(shared: &Mutex<Option<Bed>>, name: &str, case: fn(&mut Bed) -> Result<()>) -> Result<()> {
    let mut bed = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if bed.is_none() {
        *bed = Some(Bed::start()?);
    }
    let bed = bed.as_mut().context("started above")?;
    bed.begin(name)?;
    let outcome = case(bed).and_then(|()| bed.settle());
    bed.end(outcome)
}

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
#[path = "in_cluster/change_ids.rs"]
mod change_ids;
#[path = "in_cluster/deaths.rs"]
mod deaths;
#[path = "in_cluster/left.rs"]
mod left;
#[path = "in_cluster/maintenance.rs"]
mod maintenance;
#[path = "in_cluster/metrics.rs"]
mod metrics;
#[path = "in_cluster/nodes.rs"]
mod nodes;
#[path = "in_cluster/outages.rs"]
mod outages;
#[path = "in_cluster/queue.rs"]
mod queue;
#[path = "in_cluster/removal.rs"]
mod removal;
#[path = "in_cluster/restore.rs"]
mod restore;
#[path = "in_cluster/restore_cancel.rs"]
mod restore_cancel;
#[path = "in_cluster/restore_deaths.rs"]
mod restore_deaths;
#[path = "in_cluster/restore_files.rs"]
mod restore_files;
#[path = "in_cluster/restore_foreign.rs"]
mod restore_foreign;
#[path = "in_cluster/restore_in_place.rs"]
mod restore_in_place;
#[path = "in_cluster/restore_populate.rs"]
mod restore_populate;
#[path = "in_cluster/restore_quick.rs"]
mod restore_quick;
#[path = "in_cluster/restore_replace.rs"]
mod restore_replace;
#[path = "in_cluster/restores.rs"]
mod restores;
#[path = "in_cluster/rules.rs"]
mod rules;
#[path = "in_cluster/sync.rs"]
mod sync;

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
    ("change_ids_of_an_override", change_ids::of_an_override),
    ("refusals", backup::refusals),
    ("deleted_with_its_point", backup::deleted_with_its_point),
    ("restore_into_a_new_claim", restore::new_claim),
    ("restore_sources_and_shapes", restore::sources_and_shapes),
    ("restore_other_namespaces", restore::other_namespaces),
    ("restore_file_system", restore_files::file_system),
    ("restore_quick", restore_quick::from_the_base),
    ("restore_quick_given_up", restore_quick::given_up),
    ("restore_replaced", restore_replace::replaced),
    ("restore_name_taken", restore_replace::name_taken),
    ("restore_claim_lost", restore_replace::claim_lost),
    ("restore_in_place", restore_replace::in_place),
    ("restore_populated", restore_populate::populated),
    ("restore_before_its_claim", restore_populate::claims_after),
    ("restore_stopped_early", restore_cancel::early),
    ("restore_stopped_exposed", restore_cancel::exposed),
    ("restore_stopped_in_progress", restore_cancel::in_progress),
    (
        "restore_stopped_between_two_objects",
        restore_cancel::between_two_objects,
    ),
    ("restore_beside_a_free_volume", restore_foreign::free_volume),
    ("restore_in_place_alone", restore_in_place::alone),
    (
        "volume_of_somebody_else",
        restore_in_place::of_a_volume_of_somebody_else,
    ),
    ("gone_after_its_time", restore_in_place::gone_after_its_time),
    ("cancelled_before_the_snapshot", cancel::before_the_snapshot),
    ("cancelled_while_exposing", cancel::while_exposing),
    ("cancelled_while_waiting", cancel::while_waiting),
    ("cancelled_in_progress", cancel::in_progress),
    ("deleted_in_progress", cancel::deleted_in_progress),
    ("repository_away_and_back", backup::repository_away_and_back),
    ("sync_brings_back", sync::brings_back),
    ("sync_of_a_lost_namespace", sync::of_a_lost_namespace),
    ("garbage_goes", maintenance::garbage_goes),
    ("damage_is_told", maintenance::damage_is_told),
    ("failures_are_told", maintenance::failures_are_told),
    ("prometheus_sees", metrics::prometheus_sees),
    ("many_queued", queue::many),
    ("order_that_nobody_takes", queue::not_taken),
    (
        "left_by_a_driver_that_is_gone",
        left::by_a_driver_that_is_gone,
    ),
    ("two_nodes", nodes::two),
    ("cordoned_node", nodes::cordoned),
    ("api_server_killed", outages::api_server),
    ("controller_manager_killed", outages::controller_manager),
    ("deaths", deaths::anywhere),
    ("restore_deaths", restore_deaths::anywhere),
    ("namespace_deleted", removal::namespace),
    (
        "controller_and_namespace_deleted",
        removal::controller_and_namespace,
    ),
    ("definitions_deleted", removal::definitions),
    (
        "controller_definitions_and_namespace_deleted",
        removal::controller_definitions_and_namespace,
    ),
    ("every_rule_is_used", rules::all_are_used),
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
    bed.ran.insert(name.to_owned());
    let outcome = case(bed).and_then(|()| bed.settle());
    bed.end(outcome)
}

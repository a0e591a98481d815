//! Ceph RBD on a real cluster: the binding, the queue, the changed-block source against byte comparisons, and faults.
//!
//! `cargo test -p tests --test rbd -- histories` runs the randomised ones. One cluster serves all cases; those that break a
//! cluster start their own.

#[path = "rbd/binding.rs"]
mod binding;
#[path = "rbd/clones.rs"]
mod clones;
#[path = "rbd/content.rs"]
mod content;
#[path = "rbd/data_path.rs"]
mod data_path;
#[path = "rbd/histories.rs"]
mod histories;
#[path = "rbd/object_maps.rs"]
mod object_maps;
#[path = "rbd/program.rs"]
mod program;
#[path = "rbd/queue.rs"]
mod queue;
#[path = "rbd/refusals.rs"]
mod refusals;
#[path = "rbd/silence.rs"]
mod silence;
#[path = "rbd/site.rs"]
mod site;
#[path = "rbd/writer.rs"]
mod writer;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Trial};
use site::Site;

/// The cluster once a case asked for it, or why it did not start.
type Shared = Option<Result<Arc<Site>, String>>;
type Case = (&'static str, fn(&Site) -> Result<()>);

const CASES: &[Case] = &[
    ("there_and_back", data_path::there_and_back),
    ("bases_that_change", program::bases_that_change),
    ("heads", program::heads),
    ("without_librbd", program::without_librbd),
    ("queue_round_trips", queue::round_trips),
    (
        "queue_refuses_what_passes_the_end",
        queue::refuses_what_passes_the_end,
    ),
    (
        "zeroes_on_a_clone_reveal_no_parent",
        queue::zeroes_on_a_clone_reveal_no_parent,
    ),
    ("histories_plain", histories::plain),
    ("histories_with_object_maps", histories::with_object_maps),
    ("histories_clones", histories::clones),
    (
        "histories_clones_with_object_maps",
        histories::clones_with_object_maps,
    ),
    ("bases_that_cannot_be_compared", refusals::bases),
    (
        "flattened_and_striped_images",
        refusals::flattened_and_striped,
    ),
    ("clones_of_one_origin", clones::of_one_origin),
    ("invalid_object_maps", object_maps::invalid),
    ("agrees_with_rbd_diff", refusals::agrees_with_rbd_diff),
    ("clones_shrunk_and_grown", clones::shrunk_and_grown),
    ("objects_over_a_parent", clones::objects_over_a_parent),
    ("every_form_of_a_name", refusals::every_form_of_a_name),
    ("handles_of_ceph_csi", refusals::handles_of_ceph_csi),
    ("silence", silence::silence),
    (
        "object_maps_after_a_rollback",
        object_maps::after_a_rollback,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cluster shares the machine's cores with the cases.
    arguments.test_threads.get_or_insert(2);
    let shared: Arc<Mutex<Shared>> = Arc::default();
    let trials = CASES
        .iter()
        .map(|&(name, run)| {
            let shared = Arc::clone(&shared);
            Trial::test(name, move || {
                let site = started(&shared)?;
                run(&site).map_err(|error| format!("{error:#}").into())
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The cluster stops here: nothing drops a static, so it lives in this function.
    drop(shared);
    conclusion.exit_code()
}

/// The cluster, started for the first case that asks.
fn started(shared: &Mutex<Shared>) -> Result<Arc<Site>> {
    let mut state = shared
        .lock()
        .map_err(|_| anyhow!("a case panicked while the cluster started"))?;
    let site = state.get_or_insert_with(|| {
        Site::start()
            .map(Arc::new)
            .map_err(|error| format!("{error:#}"))
    });
    site.clone().map_err(|error| anyhow!("{error}"))
}

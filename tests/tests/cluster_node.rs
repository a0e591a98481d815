//! The rig with a real kubelet: pods run, see devices, and leave nothing behind.
//!
//! One node serves all cases, in their order; the last ones restart it.

#[path = "cluster_node/pods.rs"]
mod pods;
#[path = "cluster_node/site.rs"]
mod site;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};
use site::Site;

type Case = (&'static str, fn(&mut Site) -> Result<()>);

const CASES: &[Case] = &[
    ("pod_runs_and_answers", pods::runs_and_answers),
    ("pod_sees_a_block_volume", pods::sees_a_block_volume),
    ("pod_has_its_own_network", pods::own_network),
    ("kubelet_restarts", pods::kubelet_restarts),
    ("node_reboots", pods::node_reboots),
    ("pod_stays_to_the_end", pods::stays_to_the_end),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Site>>> = Arc::default();
    let mut trials: Vec<Trial> = CASES
        .iter()
        .map(|(name, case)| {
            let shared = Arc::clone(&shared);
            Trial::test(*name, move || {
                run(&shared, *case).map_err(|error| format!("{error:?}").into())
            })
        })
        .collect();
    let last = Arc::clone(&shared);
    trials.push(Trial::test("node_leaves_nothing", move || {
        let site = last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let site = site.map_or_else(Site::start, Ok);
        site.and_then(Site::end)
            .map_err(|error| format!("{error:?}").into())
    }));
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn run(shared: &Mutex<Option<Site>>, case: fn(&mut Site) -> Result<()>) -> Result<()> {
    let mut site = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if site.is_none() {
        *site = Some(Site::start()?);
    }
    case(site.as_mut().context("started above")?)
}

//! The agent and the holder against a real API server; the test plays the controller. Every agent runs under a service account with
//! the rights of its manifest and no more.

#[path = "agent/backup.rs"]
mod backup;
#[path = "agent/ends.rs"]
mod ends;
#[path = "agent/refusals.rs"]
mod refusals;
#[path = "agent/restore.rs"]
mod restore;
#[path = "agent/stage.rs"]
mod stage;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};
use stage::Stage;

/// One cluster for all cases; each has a repository, devices and an agent of its own.
type Case = (&'static str, fn(&mut Stage) -> Result<()>);

const CASES: &[Case] = &[
    (
        "backups_build_on_each_other",
        backup::backups_build_on_each_other,
    ),
    ("namespaces_take_turns", backup::namespaces_take_turns),
    (
        "a_point_that_nobody_told_of_is_found",
        backup::a_point_that_nobody_told_of_is_found,
    ),
    ("a_point_is_restored", restore::a_point_is_restored),
    ("a_stop_is_heard", ends::a_stop_is_heard),
    (
        "a_killed_agent_is_taken_up",
        ends::a_killed_agent_is_taken_up,
    ),
    ("a_drained_agent_says_so", ends::a_drained_agent_says_so),
    (
        "a_holder_that_dies_interrupts",
        ends::a_holder_that_dies_interrupts,
    ),
    (
        "a_newer_attempt_takes_the_work_away",
        ends::a_newer_attempt_takes_the_work_away,
    ),
    (
        "another_repository_is_refused",
        refusals::another_repository_is_refused,
    ),
    (
        "a_missing_secret_is_named",
        refusals::a_missing_secret_is_named,
    ),
    (
        "an_order_that_is_not_understood",
        refusals::an_order_that_is_not_understood,
    ),
    (
        "other_users_get_no_device",
        refusals::other_users_get_no_device,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Stage>>> = Arc::default();
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

fn run(shared: &Mutex<Option<Stage>>, case: fn(&mut Stage) -> Result<()>) -> Result<()> {
    let mut stage = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if stage.is_none() {
        *stage = Some(Stage::start()?);
    }
    case(stage.as_mut().context("started above")?)
}

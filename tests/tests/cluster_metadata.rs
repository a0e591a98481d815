//! The changed-block service of a cluster, against the same driver by its socket: a real API server says who may ask.
//!
//! The service itself is a stand-in of ours for the external-snapshot-metadata sidecar, see `tests::metadata_sidecar`: it makes the same
//! calls to the API server (TokenReview, SubjectAccessReview, the snapshot objects) and forwards to the driver. The real one is asked as
//! well where `SNAPHAUL_SNAPSHOT_METADATA` names its program.

#[path = "cluster_metadata/bench.rs"]
mod bench;
#[path = "cluster_metadata/cases.rs"]
mod cases;
#[path = "cluster_metadata/secrets.rs"]
mod secrets;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};
use tests::metadata_sidecar::real::RealSidecar;

use self::bench::Bench;

/// One cluster for all cases; those that take the definition away come last.
type Case = (&'static str, fn(&mut Bench) -> Result<()>);

const CASES: &[Case] = &[
    ("the_same_as_the_socket", cases::the_same_as_the_socket),
    (
        "a_token_that_ends_is_renewed",
        cases::a_token_that_ends_is_renewed,
    ),
    ("another_audience", cases::another_audience),
    ("missing_rules_are_named", cases::missing_rules_are_named),
    ("nobody_by_that_name", cases::nobody_by_that_name),
    ("another_authority", cases::another_authority),
    ("nobody_listens", cases::nobody_listens),
    ("a_snapshot_that_is_not_ready", cases::not_ready),
    ("a_change_id_is_recorded", cases::a_change_id_is_recorded),
    ("secrets_of_classes", secrets::of_classes),
    ("only_the_alpha_version", cases::only_the_alpha_version),
];

const REAL: Case = ("the_real_sidecar", cases::the_real_sidecar);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Option<Bench>>> = Arc::default();
    let real = RealSidecar::program().map(|_| REAL);
    let trials = real
        .into_iter()
        .chain(CASES.iter().copied())
        .map(|(name, case)| {
            let shared = Arc::clone(&shared);
            Trial::test(name, move || {
                run(&shared, case).map_err(|error| format!("{error:?}").into())
            })
        });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn run(shared: &Mutex<Option<Bench>>, case: fn(&mut Bench) -> Result<()>) -> Result<()> {
    let mut bench = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if bench.is_none() {
        *bench = Some(Bench::new()?);
    }
    case(bench.as_mut().context("started above")?)
}

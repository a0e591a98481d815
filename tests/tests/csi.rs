//! Backups of volumes of CSI drivers, from the command line: whole ways, faults of the driver, deaths of the run.
//!
//! Every case counts what is there before and after: loop devices, mounts, paths, volumes, snapshots. Those that need no fault also
//! run on csi-driver-host-path, where `SNAPHAUL_HOSTPATHPLUGIN` names it.

#[path = "csi/adoption.rs"]
mod adoption;
#[path = "csi/deaths.rs"]
mod deaths;
#[path = "csi/faults.rs"]
mod faults;
#[path = "csi/held.rs"]
mod held;
#[path = "csi/load.rs"]
mod load;
#[path = "csi/requests.rs"]
mod requests;
#[path = "csi/rig.rs"]
mod rig;
#[path = "csi/steps.rs"]
mod steps;
#[path = "csi/together.rs"]
mod together;
#[path = "csi/unheard.rs"]
mod unheard;
#[path = "csi/untrue.rs"]
mod untrue;
#[path = "csi/ways.rs"]
mod ways;
#[path = "csi/whole.rs"]
mod whole;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tests::csi::Plugin;
use tests::csi_driver::options::Options;
use tests::hostpath::HostPath;
use tests::test_driver::TestDriver;

type Case = (&'static str, fn(&dyn Plugin) -> Result<()>);
type OwnCase = (&'static str, fn(&mut TestDriver) -> Result<()>);

/// What works with every driver.
const BOTH: &[Case] = &[
    ("incremental_and_back", whole::incremental_and_back),
    ("info_and_refusals", whole::info_and_refusals),
    ("without_a_base", whole::without_a_base),
    ("two_repositories", whole::two_repositories),
    ("ten_at_once", load::ten_at_once),
];

/// What needs faults, or the record of the calls.
const OWN: &[OwnCase] = &[
    ("backup_dies_anywhere", deaths::backup_dies_anywhere),
    ("restore_dies_anywhere", deaths::restore_dies_anywhere),
    ("restore_cannot_detach", deaths::restore_cannot_detach),
    ("dies_during_a_call", deaths::dies_during_a_call),
    ("stopped_during_a_call", deaths::stopped_during_a_call),
    ("answers_that_are_repeated", faults::repeated),
    ("answers_that_are_final", faults::final_answers),
    ("refused_clean_up", faults::refused_clean_up),
    ("fails_after_the_work", unheard::fails_after_the_work),
    ("storage_is_full", unheard::storage_is_full),
    (
        "refused_after_an_unknown_outcome",
        unheard::refused_after_an_unknown_outcome,
    ),
    ("asked_again_as_before", unheard::asked_again_as_before),
    ("found_by_its_name", unheard::found_by_its_name),
    ("given_up_in_the_end", unheard::given_up_in_the_end),
    ("what_stays_is_told", unheard::what_stays_is_told),
    ("driver_dies", faults::driver_dies),
    ("clean_up_fails", faults::clean_up_fails),
    ("metadata_faults", faults::metadata),
    ("mounted_source", whole::mounted_source),
    ("sizes", untrue::sizes),
    ("wrong_sources", untrue::wrong_sources),
    ("secrets_stay_secret", untrue::secrets),
    (
        "dies_while_another_waits",
        together::dies_while_another_waits,
    ),
    ("two_of_one_volume", together::two_of_one_volume),
    ("dies_during_the_sweep", together::dies_during_the_sweep),
    ("notes_are_lost", together::notes_are_lost),
    ("snapshots_of_others", together::snapshots_of_others),
    (
        "commit_without_an_answer",
        together::commit_without_an_answer,
    ),
    ("nodes_in_turns", adoption::nodes_in_turns),
    ("many_pages", adoption::many_pages),
    ("recycled_handle", adoption::recycled_handle),
    ("spellings_of_a_socket", adoption::spellings_of_a_socket),
    ("refused_runs_die", ways::refused_runs_die),
    ("runs_without_a_base_die", ways::runs_without_a_base_die),
    (
        "runs_with_a_stale_base_die",
        ways::runs_with_a_stale_base_die,
    ),
    ("sweeps_die", ways::sweeps_die),
    ("sweeps_in_vain_die", ways::sweeps_in_vain_die),
    (
        "sweeps_of_committed_runs_die",
        ways::sweeps_of_committed_runs_die,
    ),
    ("sweeps_of_late_runs_die", ways::sweeps_of_late_runs_die),
    ("releases_die", ways::releases_die),
    ("hundred_in_a_row", load::hundred_calls_apart),
    ("ten_large_at_once", load::ten_large_at_once),
    ("modes_of_access", requests::modes_of_access),
    ("sizes_of_clones", requests::sizes_of_clones),
    ("secrets_of_lists", requests::secrets_of_lists),
    ("litter_of_the_driver", held::litter_of_the_driver),
    ("clone_in_use", held::clone_in_use),
    ("looked_at_while_backed_up", held::looked_at_while_backed_up),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    for (name, case) in BOTH {
        trials.push(trial(format!("driver::{name}"), move || {
            case(&TestDriver::start(|_| {})?)
        }));
        trials.push(trial(format!("odd_driver::{name}"), move || {
            case(&TestDriver::start(odd)?)
        }));
        if HostPath::program().is_some() {
            trials.push(trial(format!("hostpath::{name}"), move || {
                case(&HostPath::start(&[])?)
            }));
            trials.push(trial(format!("hostpath_attach::{name}"), move || {
                case(&HostPath::start(&["--enable-attach=true"])?)
            }));
        }
    }
    if HostPath::program().is_some() {
        trials.push(trial("hostpath::hundred_in_a_row".to_owned(), || {
            load::hundred_in_a_row(&HostPath::start(&[])?)
        }));
    }
    for (name, case) in OWN {
        trials.push(trial(format!("driver::{name}"), move || {
            case(&mut TestDriver::start(|options| options.attach = true)?)
        }));
    }
    trials.push(trial(
        "every_line_has_its_death".to_owned(),
        steps::every_line_has_its_death,
    ));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Handles with blanks and slashes, attachment, blocks of one length, no staging.
fn odd(options: &mut Options) {
    options.odd_handles = true;
    options.attach = true;
    options.fixed = true;
    options.stage = false;
}

fn trial(name: String, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        case().map_err(|error| format!("{error:#}").into())
    })
}

//! The CSI drivers that other tests rely on: that each does what the specification says, and in which ways the one of
//! kubernetes-csi is known not to.
//!
//! csi-driver-host-path is not installed by `tests/run` (see `tests::hostpath`): its cases are there when
//! `SNAPHAUL_HOSTPATHPLUGIN` names the program, and each of them also runs on the driver of our own.

#[path = "csi_drivers/faults.rs"]
mod faults;
#[path = "csi_drivers/round_trip.rs"]
mod round_trip;
#[path = "csi_drivers/sanity.rs"]
mod sanity;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tests::csi::Plugin;
use tests::hostpath::HostPath;
use tests::test_driver::TestDriver;

type Case = (&'static str, fn(&dyn Plugin) -> Result<()>);

/// What every driver passes.
const BOTH: &[Case] = &[
    ("snapshot_clone_attach", round_trip::snapshot_clone_attach),
    ("sanity_block", sanity::block),
    ("sanity_mount", sanity::mount),
];

/// What the driver of our own promises beside.
const OURS: &[(&str, fn() -> Result<()>)] = &[
    ("refused_and_lost", faults::refused_and_lost),
    ("death_and_return", faults::death_and_return),
    ("stall_and_second_call", faults::stall_and_second_call),
    ("slow_past_the_deadline", faults::slow_past_the_deadline),
    ("late_and_not_ready", faults::late_and_not_ready),
    ("spoilt_streams", faults::spoilt_streams),
    ("strictness", faults::strictness),
    ("killed_while_attached", faults::killed_while_attached),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    for (name, case) in BOTH {
        trials.push(trial(format!("driver::{name}"), move || {
            case(&TestDriver::start(|_| {})?)
        }));
        trials.push(trial(format!("driver_with_reflinks::{name}"), move || {
            case(&TestDriver::start_with_reflinks(|_| {})?)
        }));
    }
    trials.extend(
        OURS.iter()
            .map(|(name, case)| trial(format!("driver::{name}"), case)),
    );
    if HostPath::program().is_some() {
        for (name, case) in BOTH {
            trials.push(trial(format!("hostpath::{name}"), move || {
                case(&HostPath::start(&[])?)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: String, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        case().map_err(|error| format!("{error:#}").into())
    })
}

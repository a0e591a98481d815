//! The CSI drivers that other tests rely on: that each does what the specification says, and in which ways the one of
//! kubernetes-csi is known not to.
//!
//! csi-driver-host-path is not installed by `tests/run` (see `tests::hostpath`): its cases are there when
//! `SNAPHAUL_HOSTPATHPLUGIN` names the program, and each of them also runs on the driver of our own.

#[path = "csi_drivers/round_trip.rs"]
mod round_trip;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tests::csi::Plugin;
use tests::hostpath::HostPath;
use tests::test_driver::TestDriver;

type Case = (&'static str, fn(&dyn Plugin) -> Result<()>);

/// What every driver passes.
const BOTH: &[Case] = &[("snapshot_clone_attach", round_trip::snapshot_clone_attach)];

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

//! The changed-block source of CSI snapshots on real drivers, against comparisons of bytes, and with every fault of the driver of
//! our own.
//!
//! Cases of csi-driver-host-path are there when `SNAPHAUL_HOSTPATHPLUGIN` names the program (see `tests::hostpath`). Random
//! histories print their seed.

#[path = "csi_metadata/bed.rs"]
mod bed;
#[path = "csi_metadata/differences.rs"]
mod differences;
#[path = "csi_metadata/faults.rs"]
mod faults;
#[path = "csi_metadata/histories.rs"]
mod histories;
#[path = "csi_metadata/processes.rs"]
mod processes;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tests::csi::Plugin;
use tests::hostpath::HostPath;
use tests::test_driver::TestDriver;

type Shared = (&'static str, fn(&dyn Plugin) -> Result<()>);
type Own = (&'static str, fn() -> Result<()>);

/// What holds on every driver.
const BOTH: &[Shared] = &[
    ("random_histories", histories::random),
    ("alternating_blocks", histories::alternating),
    ("bases_that_are_gone", histories::bases),
];

/// What only the driver of our own can do, wrong or right.
const OWN: &[Own] = &[
    (
        "streams_that_end_too_early",
        faults::streams_that_end_too_early,
    ),
    ("streams_that_are_unsound", faults::streams_that_are_unsound),
    ("silent_streams", faults::silent_streams),
    ("a_range_across_the_end", faults::a_range_across_the_end),
    ("calls_that_fail", faults::calls_that_fail),
    ("calls_that_are_refused", faults::calls_that_are_refused),
    ("secrets", faults::secrets),
    ("death_at_a_call", processes::death_at_a_call),
    ("no_service", processes::no_service),
    ("larger_than_before", histories::larger),
];

/// What is known of csi-driver-host-path.
const HOST_PATH: &[Own] = &[
    (
        "hostpath::killed_in_the_stream",
        processes::killed_in_the_stream,
    ),
    ("hostpath::frozen", processes::frozen),
    ("hostpath::switched_off", processes::switched_off),
    ("hostpath::odd_size", histories::odd_size),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials: Vec<_> = OWN
        .iter()
        .map(|(name, case)| trial(format!("driver::{name}"), case))
        .collect();
    for (name, case) in BOTH {
        trials.push(trial(format!("driver::{name}"), move || {
            case(&TestDriver::start(|options| options.odd_handles = true)?)
        }));
        trials.push(trial(format!("driver_fixed::{name}"), move || {
            case(&TestDriver::start(|options| options.fixed = true)?)
        }));
    }
    if HostPath::program().is_some() {
        trials.extend(
            HOST_PATH
                .iter()
                .map(|(name, case)| trial((*name).to_owned(), case)),
        );
        for (name, case) in BOTH {
            trials.push(trial(format!("hostpath::{name}"), move || {
                case(&HostPath::start(&[])?)
            }));
            trials.push(trial(format!("hostpath_variable::{name}"), move || {
                case(&HostPath::start(&[
                    "--snapshot-metadata-block-type=VARIABLE_LENGTH",
                ])?)
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

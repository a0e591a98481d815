//! The CSI drivers that other tests rely on: that each does what the specification says, and in which ways the one of
//! kubernetes-csi is known not to.
//!
//! csi-driver-host-path is not installed by `tests/run` (see `tests::hostpath`): its cases are there when
//! `SNAPHAUL_HOSTPATHPLUGIN` names the program, and each of them also runs on the driver of our own.

#[path = "csi_drivers/conduct.rs"]
mod conduct;
#[path = "csi_drivers/conformance.rs"]
mod conformance;
#[path = "csi_drivers/conformance_limits.rs"]
mod conformance_limits;
#[path = "csi_drivers/faults.rs"]
mod faults;
#[path = "csi_drivers/round_trip.rs"]
mod round_trip;
#[path = "csi_drivers/sanity.rs"]
mod sanity;
#[path = "csi_drivers/services.rs"]
mod services;
#[path = "csi_drivers/subject.rs"]
mod subject;

use std::process::ExitCode;

use anyhow::Result;
use conduct::Conduct;
use libtest_mimic::{Arguments, Trial};
use tests::csi::Plugin;
use tests::hostpath::HostPath;
use tests::test_driver::TestDriver;

type Case = (&'static str, fn(&(dyn Plugin + Sync)) -> Result<()>);
type MetadataCase = (&'static str, fn(&dyn Plugin, Conduct) -> Result<()>);

type OwnCase = (&'static str, fn() -> Result<()>);

/// What every driver passes.
const BOTH: &[Case] = &[
    ("snapshot_clone_attach", round_trip::snapshot_clone_attach),
    ("ten_at_once", round_trip::ten_at_once),
    ("sanity_block", sanity::block),
    ("sanity_mount", sanity::mount),
];

/// What is asked of every service of metadata.
const METADATA: &[MetadataCase] = &[
    ("layout", conformance::layout),
    ("offsets_and_pages", conformance::offsets_and_pages),
    ("histories", conformance::histories),
    ("refusals", conformance_limits::refusals),
    ("at_the_same_time", conformance_limits::at_the_same_time),
];

/// What only volumes of any size can be asked.
const METADATA_OF_OURS: MetadataCase = ("tails_and_growth", conformance_limits::tails_and_growth);

/// In what csi-driver-host-path differs.
const METADATA_OF_HOSTPATH: MetadataCase = ("deviations", conformance_limits::deviations);

/// What the driver of our own promises beside.
const OURS: &[OwnCase] = &[
    ("refused_and_lost", faults::refused_and_lost),
    ("death_and_return", faults::death_and_return),
    ("stall_and_second_call", faults::stall_and_second_call),
    ("slow_past_the_deadline", faults::slow_past_the_deadline),
    ("late_and_not_ready", faults::late_and_not_ready),
    ("spoilt_ranges", faults::spoilt_ranges),
    ("spoilt_messages", faults::spoilt_messages),
    ("wrong_sizes", faults::wrong_sizes),
    ("strictness", faults::strictness),
    ("killed_while_attached", faults::killed_while_attached),
    ("registration", services::registration),
    ("groups", services::groups),
    (
        "one_image_block_and_mounted",
        services::one_image_block_and_mounted,
    ),
    ("without_staging", services::without_staging),
    (
        "many_ranges_and_cancel",
        conformance_limits::many_ranges_and_cancel,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials = of_ours();
    if HostPath::program().is_some() {
        trials.extend(of_hostpath());
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: String, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        case().map_err(|error| format!("{error:#}").into())
    })
}

/// Once on copies and once on reflinks; metadata of both block types, and of a unit below a block of the file system.
fn of_ours() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, case) in BOTH {
        trials.push(trial(format!("driver::{name}"), || {
            case(&TestDriver::start(|_| {})?)
        }));
        let name = format!("driver_with_reflinks::{name}");
        trials.push(trial(name, || {
            case(&TestDriver::start_with_reflinks(|_| {})?)
        }));
    }
    for (name, case) in OURS {
        trials.push(trial(format!("driver::{name}"), case));
    }
    for (unit, fixed, kind) in [
        (4096, false, "variable"),
        (4096, true, "fixed"),
        (512, false, "variable_512"),
    ] {
        for (name, case) in METADATA.iter().copied().chain([METADATA_OF_OURS]) {
            trials.push(trial(format!("driver::{kind}::{name}"), move || {
                let driver = TestDriver::start(|options| {
                    (options.granularity, options.fixed) = (unit, fixed);
                })?;
                case(&driver, Conduct::ours(unit, fixed))
            }));
        }
    }
    trials
}

fn of_hostpath() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, case) in BOTH {
        trials.push(trial(format!("hostpath::{name}"), || {
            case(&HostPath::start(&[])?)
        }));
    }
    for (kind, fixed) in [("FIXED_LENGTH", true), ("VARIABLE_LENGTH", false)] {
        for (name, case) in METADATA.iter().copied().chain([METADATA_OF_HOSTPATH]) {
            trials.push(trial(format!("hostpath::{kind}::{name}"), move || {
                let driver = HostPath::start(&[&format!("--snapshot-metadata-block-type={kind}")])?;
                case(&driver, Conduct::hostpath(fixed))
            }));
        }
    }
    trials
}

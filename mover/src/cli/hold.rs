//! `snaphaul hold`.
//!
//! Owns: flags to options. Must not: open the device.

use super::args::{HoldArgs, ModeFlag};
use super::run::{Outcome, Run};
use crate::error::Result;
use crate::kube::hold::client;
use crate::kube::hold::protocol::Mode;
use crate::kube::hold::server::{self, HoldOptions};

pub(super) fn run(run: &Run, args: &HoldArgs) -> Result<Outcome> {
    let options = HoldOptions {
        device: args.device.clone(),
        directory: args.directory.clone(),
        owner: args.owner.clone(),
        mode: match args.mode {
            ModeFlag::Read => Mode::Read,
            ModeFlag::Write => Mode::Write,
        },
        user: 0,
    };
    options.check()?;
    if args.check {
        client::check(&options.directory, &options.owner)?;
        return Ok(Outcome::default());
    }
    run.signals.stop_cleanly(true);
    server::run(options, &run.stop_flag())?;
    Ok(Outcome::default())
}

//! The command line of `snaphaul`.
//!
//! ```text
//!   args (flags, help) ─► config (checked) ─► one file a command ─► pipeline ─► report ─► output (text | JSON) ─► exit
//! ```
//!
//! Owns: flags, output, progress and exit codes. Must not: move data itself.

#[cfg(feature = "kubernetes")]
mod agent;
pub mod args;
mod backup;
mod changed;
mod completions;
mod config;
#[cfg(feature = "kubernetes")]
mod controller;
mod copy;
#[cfg(feature = "kubernetes")]
mod crds;
#[cfg(feature = "csi")]
mod csi;
#[cfg(not(feature = "csi"))]
#[path = "cli/without_csi.rs"]
mod csi;
mod demo;
mod diff;
pub mod exit;
mod forget;
mod gc;
#[cfg(feature = "kubernetes")]
mod hold;
mod init;
mod key;
mod logging;
mod memory;
mod monitor;
mod open;
mod output;
mod panics;
mod points;
mod recover;
mod repair;
mod restore;
mod run;
#[cfg(feature = "kubernetes")]
mod seccomp;
mod secret;
mod show;
mod signals;
pub mod units;
mod usage;
mod verify;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser as _;

use crate::error::Result;
use args::{Cli, Command};
use exit::Exit;
use output::{Output, OutputMode};
use run::{Outcome, Run};

/// Runs the program with these arguments, the first of which is its own name, and says how the process ends.
///
/// Prints to the streams of the process and installs its signal and panic handlers: to be called once, by `main`.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let started = Instant::now();
    panics::install_hook();
    let arguments = usage::help_spelled_out(arguments.into_iter().collect());
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => execute(&cli, started),
        Err(stop) => usage::report(&stop, &arguments),
    }
}

fn execute(cli: &Cli, started: Instant) -> Exit {
    let output = Arc::new(Output::of_process(OutputMode {
        json: cli.run.json,
        quiet: cli.run.quiet,
        stdout_is_data: config::stdout_is_data(&cli.command),
    }));
    match Run::start(cli, &output, started) {
        Ok(run) => {
            let result = run::guarded(|| dispatch(&run, cli));
            run.finish(result)
        }
        Err(error) => run::fail(&output, error),
    }
}

fn dispatch(run: &Run, cli: &Cli) -> Result<Outcome> {
    let (repository, limits) = (&cli.repository, &cli.run);
    match &cli.command {
        Command::Init(args) => init::run(run, args, repository, limits),
        Command::Backup(args) => backup::run(run, args, repository, limits),
        Command::Points(args) => points::run(run, args, repository, limits),
        Command::Show(args) => show::run(run, args, repository, limits),
        Command::Changed(args) => changed::run(run, args),
        Command::Diff(args) => diff::run(run, args, repository, limits),
        Command::Verify(args) => verify::run(run, args, repository, limits),
        Command::Repair(args) => repair::run(run, args, repository, limits),
        Command::Restore(args) => restore::run(run, args, repository, limits),
        Command::Copy(args) => copy::run(run, args, repository, limits),
        Command::Forget(args) => forget::run(run, args, repository, limits),
        Command::Recover(args) => recover::run(run, args, repository, limits),
        Command::Gc(args) => gc::run(run, args, repository, limits),
        Command::Key(args) => key::run(run, args, repository, limits),
        Command::Csi(args) => csi::run(run, args),
        #[cfg(feature = "kubernetes")]
        Command::Controller(args) => controller::run(run, args, limits),
        #[cfg(feature = "kubernetes")]
        Command::Agent(args) => agent::run(run, args, limits),
        #[cfg(feature = "kubernetes")]
        Command::Hold(args) => hold::run(run, args),
        Command::Demo(args) => demo::run(run, args),
        #[cfg(feature = "kubernetes")]
        Command::Crds => crds::run(),
        #[cfg(feature = "kubernetes")]
        Command::Seccomp(args) => seccomp::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

//! The command line of `snaphaul`.
//!
//! Owns: flags, output, progress and exit codes. Must not: move data itself.

pub mod args;
pub mod exit;
mod logging;
mod monitor;
mod output;
mod panics;
mod signals;
pub mod units;

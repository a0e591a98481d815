//! Prints how long the least work of a backup or a restore takes on this machine, as one line of JSON.
//!
//! ```text
//!   ceiling-probe IMAGE --output DIR                      first backup
//!   ceiling-probe IMAGE --mode read                       backup that finds nothing changed
//!   ceiling-probe DIR   --mode restore --output TARGET    restore of what the first one stored
//! ```

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bench::ceiling::{Mode, Options, restore, run};
use clap::Parser;

/// Reads the allocated extents of an image, tests for zeros, hashes, compresses, encrypts, and writes 32 MiB files.
#[derive(Debug, Parser)]
struct Args {
    /// Sparse image file; with `--mode restore` the directory that a backup filled.
    source: PathBuf,
    /// Existing, empty directory for the output files; with `--mode restore` the file to make.
    #[arg(long)]
    output: Option<PathBuf>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Mode::Backup)]
    mode: Mode,
    /// Threads that hash, compress and encrypt.
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

fn main() -> Result<()> {
    let Args {
        source,
        output,
        mode,
        workers,
    } = Args::parse();
    ensure!(workers > 0, "give at least one worker");
    ensure!(
        output.is_none() || mode != Mode::Read,
        "leave --output out with --mode read"
    );
    let measured = if mode == Mode::Restore {
        restore::run(&source, &output.context("give --output")?, workers)?
    } else {
        ensure!(output.is_some() || mode == Mode::Read, "give --output");
        run(&Options {
            image: source,
            output,
            mode,
            workers,
        })?
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured)?)?;
    Ok(())
}

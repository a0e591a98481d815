//! Prints how long the least work of a backup takes on this machine, as one line of JSON.
//!
//! ```text
//!   ceiling-probe IMAGE --output DIR            first backup
//!   ceiling-probe IMAGE --mode read             backup that finds nothing changed
//! ```

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use bench::ceiling::{Mode, Options, run};
use clap::Parser;

/// Reads the allocated extents of an image, tests for zeros, hashes, compresses, encrypts, and writes 32 MiB files.
#[derive(Debug, Parser)]
struct Args {
    /// Sparse image file.
    image: PathBuf,
    /// Existing, empty directory for the output files.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How far a chunk goes.
    #[arg(long, value_enum, default_value_t = Mode::Backup)]
    mode: Mode,
    /// Threads that hash, compress and encrypt.
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

fn main() -> Result<()> {
    let Args { image, output, mode, workers } = Args::parse();
    ensure!(output.is_some() == (mode == Mode::Backup), "give --output with, and only with, --mode backup");
    ensure!(workers > 0, "give at least one worker");
    let measured = run(&Options { image, output, mode, workers })?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured)?)?;
    Ok(())
}

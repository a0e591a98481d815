//! Entry point of `snaphaul`: hands over to `mover::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mover::cli::main(std::env::args_os()).into()
}

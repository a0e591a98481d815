//! `snaphaul completions`.
//!
//! Owns: nothing but the call. Must not: write files.

use clap::CommandFactory as _;
use serde_json::json;

use super::args::{Cli, CompletionsArgs};
use super::run::{Outcome, Text};
use crate::error::Result;

pub(super) fn run(args: &CompletionsArgs) -> Result<Outcome> {
    let script = script(args.shell);
    Outcome::new(
        &json!({ "shell": args.shell.to_string(), "script": script }),
        Text::Answer(script),
    )
}

fn script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "snaphaul", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in clap_complete::Shell::value_variants() {
            let script = script(*shell);
            for command in crate::cli::args::Command::NAMES {
                assert!(
                    script.contains(command),
                    "{shell} does not know `{command}`"
                );
            }
        }
    }
}

//! What the parser of flags has to say: help, version, and usage errors.
//!
//! Owns: their streams, exit codes and JSON form. Must not: run anything.

use std::ffi::OsString;

use clap::error::ErrorKind as ClapKind;

use super::config::invalid;
use super::exit::Exit;
use super::output::{Output, OutputMode, errors};
use crate::error::{Error, Result};

/// `snaphaul help COMMAND…` is `snaphaul COMMAND… --help`, as people know it from other programs.
pub(super) fn help_spelled_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|first| first == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// Prints what the parser stopped with, and says how the process ends.
pub(super) fn report(stop: &clap::Error, arguments: &[OsString]) -> Exit {
    let json = wants_json(arguments);
    let output = Output::of_process(OutputMode {
        json,
        ..OutputMode::default()
    });
    print(&output, stop)
}

fn print(output: &Output, stop: &clap::Error) -> Exit {
    if matches!(
        stop.kind(),
        ClapKind::DisplayHelp | ClapKind::DisplayVersion
    ) {
        // Help is what was asked for, with --json too: it has no other form.
        let plain = Output::of_process(OutputMode::default());
        return settle(
            output,
            plain
                .answer(&stop.render().to_string())
                .and_then(|()| plain.flush()),
        );
    }
    output.stderr_bytes(stop.render().to_string().as_bytes());
    let line = [
        ("ok".to_owned(), false.into()),
        ("exit_code".to_owned(), Exit::Usage.code().into()),
        ("error".to_owned(), errors::to_json(&to_error(stop))),
    ];
    let printed = output
        .json_line("result", line.into_iter().collect())
        .and_then(|()| output.flush());
    match settle(output, printed) {
        Exit::Done => Exit::Usage,
        worse => worse,
    }
}

fn settle(output: &Output, printed: Result<()>) -> Exit {
    match printed {
        Ok(()) => Exit::Done,
        Err(error) => {
            output.error(&error);
            Exit::from(error.kind())
        }
    }
}

/// The first paragraph of the parser's text: what is wrong, without the usage that follows.
fn to_error(stop: &clap::Error) -> Error {
    let text = stop.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = match stop.kind() {
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand => "run without a command".to_owned(),
        _ => first
            .trim_start_matches("error: ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    };
    invalid(message).hint("`snaphaul --help` and `snaphaul COMMAND --help` show what can be given")
}

/// The parser failed, so that the flag can only be looked for by its name.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::output::tests::captured;

    fn stop(line: &str) -> clap::Error {
        Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace())).unwrap_err()
    }

    #[test]
    fn a_usage_error_is_text_on_stderr_and_a_result_line() {
        for line in [
            "restore --json",
            "backup x --parnt y --json",
            "frobnicate --json",
            "init --json --chunk-size x",
            "--json",
        ] {
            let (output, out, err) = captured(OutputMode {
                json: true,
                ..OutputMode::default()
            });
            assert_eq!(print(&output, &stop(line)), Exit::Usage, "{line}");
            let value: Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(value["type"], "result");
            assert_eq!(
                (&value["ok"], &value["exit_code"]),
                (&false.into(), &64.into())
            );
            assert_eq!(value["error"]["kind"], "invalid-request");
            let message = value["error"]["message"].as_str().unwrap();
            assert!(
                !message.is_empty() && !message.contains('\n') && !message.contains("error:"),
                "{message}"
            );
            assert!(!err.text().is_empty());
        }
    }

    #[test]
    fn without_json_stdout_stays_empty() {
        let (output, out, err) = captured(OutputMode::default());
        assert_eq!(print(&output, &stop("backup x --onto y")), Exit::Usage);
        assert_eq!(out.text(), "");
        assert!(
            err.text()
                .starts_with("error: unexpected argument '--onto'"),
            "{}",
            err.text()
        );
    }

    #[test]
    fn help_may_be_asked_for_as_a_command() {
        let spelled = |line: &str| {
            let arguments = line.split(' ').map(OsString::from).collect();
            Cli::try_parse_from(help_spelled_out(arguments))
                .unwrap_err()
                .kind()
        };
        for line in [
            "snaphaul help",
            "snaphaul help restore",
            "snaphaul help key list",
        ] {
            assert_eq!(spelled(line), ClapKind::DisplayHelp, "{line}");
        }
        assert_ne!(spelled("snaphaul help frobnicate"), ClapKind::DisplayHelp);
    }

    #[test]
    fn the_flag_is_found_anywhere_before_two_dashes() {
        let arguments = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&arguments("snaphaul --json frobnicate")));
        assert!(wants_json(&arguments("snaphaul points --bad --json")));
        assert!(!wants_json(&arguments("snaphaul points --bad")));
        assert!(!wants_json(&arguments("snaphaul restore -- --json")));
    }
}

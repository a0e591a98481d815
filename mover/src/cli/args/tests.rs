//! Flags parse as documented, and the help texts are those of the golden files.

use std::path::Path;

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in ["--json --repo /r points", "points --repo /r --json"] {
        let cli = parse(line).unwrap();
        assert!(cli.run.json, "{line}");
        assert_eq!(cli.repository.url.as_deref(), Some("/r"), "{line}");
    }
}

#[test]
fn units_are_understood() {
    let cli =
        parse("restore p - --range 1GiB:64MiB --limit-download 100MB/s --memory 256MiB").unwrap();
    assert_eq!(cli.run.limit_download, Some(100_000_000));
    assert_eq!(cli.run.memory, Some(256 << 20));
    let Command::Restore(args) = cli.command else {
        panic!("not a restore")
    };
    assert_eq!(args.range, Some((1 << 30, 64 << 20)));
    assert_eq!(args.target, Path::new("-"));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let Command::Init(init) = parse("init").unwrap().command else {
        panic!("not an init")
    };
    assert_eq!((init.chunk_size, init.segment_size), (128 << 10, 32 << 20));
    let Command::Backup(backup) = parse("backup x").unwrap().command else {
        panic!("not a backup")
    };
    assert_eq!(backup.parent, "auto");
    assert_eq!(backup.compression, "lz4");
    assert_eq!(backup.takeover_after.as_secs(), 600);
    assert_eq!(backup.changed_blocks, "auto");
    assert_eq!(backup.engine, EngineFlag::Auto);
}

#[test]
fn contradictions_are_refused() {
    for line in [
        "verify a --all",
        "points --passphrase-file a --key-file b",
        "backup",
        "backup x --engine uring",
        "points --jobs 0",
        "restore p t --range 5",
        "key",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn command_names_are_those_of_the_parser() {
    let names: Vec<_> = Cli::command()
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    assert_eq!(names, Command::NAMES);
    assert_eq!(parse("key list").unwrap().command.name(), "key");
}

/// Every help text, by the words that show it.
fn help_texts() -> Vec<(String, String)> {
    let mut root = Cli::command().term_width(120);
    root.build();
    let mut texts = vec![("snaphaul".to_owned(), root.render_long_help().to_string())];
    let mut open: Vec<(String, clap::Command)> = root
        .get_subcommands()
        .map(|c| (c.get_name().to_owned(), c.clone()))
        .collect();
    while let Some((name, command)) = open.pop() {
        texts.push((
            name.clone(),
            command
                .clone()
                .term_width(120)
                .render_long_help()
                .to_string(),
        ));
        open.extend(
            command
                .get_subcommands()
                .map(|c| (format!("{name}-{}", c.get_name()), c.clone())),
        );
    }
    texts
}

/// Run with `SNAPHAUL_BLESS=1` to rewrite the golden files after a change on purpose. They are those of the whole program.
#[cfg(feature = "kubernetes")]
#[test]
fn help_is_that_of_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help");
    let bless = std::env::var_os("SNAPHAUL_BLESS").is_some();
    for (name, text) in help_texts() {
        let path = folder.join(format!("{name}.txt"));
        let text: String = text
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        if bless {
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        assert_eq!(
            text,
            golden,
            "the help of `{name}` is not that of {}",
            path.display()
        );
    }
}

#[test]
fn help_does_not_depend_on_the_environment() {
    for (name, text) in help_texts() {
        assert!(
            !text.contains("SNAPHAUL_REPO=/"),
            "{name} shows a value of the environment"
        );
    }
}

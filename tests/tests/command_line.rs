//! The command line itself: help, output modes, limits, logs, metrics, completions, demo.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::snaphaul::Snaphaul;

const COMMANDS: [&str; 10] = [
    "init",
    "backup",
    "points",
    "show",
    "diff",
    "verify",
    "restore",
    "key",
    "demo",
    "completions",
];

fn rig(name: &str, size: u64) -> Result<(Scratch, Repo, Image)> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), size, &mut Random::new(11))?;
    Ok((scratch, repo, image))
}

#[test]
fn every_command_has_help_that_teaches() -> Result<()> {
    let overview = Snaphaul::new(&["--help"])?.run()?.expect(0)?.text();
    for command in COMMANDS {
        ensure!(overview.contains(command), "--help does not name {command}");
        let help = Snaphaul::new(&[command, "--help"])?
            .run()?
            .expect(0)?
            .text();
        ensure!(
            help.contains("Usage") && help.contains("--json"),
            "{command}: {help}"
        );
    }
    for command in ["init", "backup", "restore", "verify", "diff"] {
        let help = Snaphaul::new(&[command, "--help"])?
            .run()?
            .expect(0)?
            .text();
        ensure!(help.contains("Examples"), "{command} has no examples");
    }
    ensure!(
        Snaphaul::new(&["--version"])?
            .run()?
            .expect(0)?
            .text()
            .starts_with("snaphaul ")
    );
    Ok(())
}

#[test]
fn completions_are_scripts_of_their_shells() -> Result<()> {
    for (shell, mark) in [
        ("bash", "_snaphaul()"),
        ("zsh", "#compdef snaphaul"),
        ("fish", "complete -c snaphaul"),
    ] {
        let script = Snaphaul::new(&["completions", shell])?
            .run()?
            .expect(0)?
            .text();
        ensure!(
            script.contains(mark) && script.contains("restore"),
            "{shell}"
        );
    }
    Snaphaul::new(&["completions", "csh"])?
        .run()?
        .expect(64)
        .map(drop)
}

#[test]
fn json_has_progress_lines_and_one_result() -> Result<()> {
    let (_scratch, repo, image) = rig("progress", 12 * MIB)?;
    let source = image.path.display().to_string();
    let outcome = repo.ok(&["backup", &source, "--limit-upload", "6MiB/s"])?;
    let lines = outcome.lines()?;
    ensure!(
        lines
            .iter()
            .all(|line| line["type"] == "progress" || line["type"] == "result")
    );
    let progress: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "progress")
        .collect();
    ensure!(progress.len() >= 2, "{}", outcome.text());
    let done: Vec<u64> = progress
        .iter()
        .filter_map(|line| line["done_bytes"].as_u64())
        .collect();
    ensure!(done.len() == progress.len() && done.is_sorted(), "{done:?}");
    ensure!(
        outcome.stderr.is_empty(),
        "stderr of a good run: {}",
        outcome.stderr
    );
    Ok(())
}

#[test]
fn text_quiet_and_error_go_where_they_belong() -> Result<()> {
    let (scratch, repo, image) = rig("streams", MIB)?;
    let source = image.path.display().to_string();
    let told = repo.plain(&["backup", &source])?.run()?.expect(0)?;
    ensure!(told.text().contains("disk.img"), "{}", told.text());
    let quiet = repo
        .plain(&["backup", &source, "--quiet"])?
        .run()?
        .expect(0)?;
    ensure!(
        quiet.stdout.is_empty() && quiet.stderr.is_empty(),
        "{}{}",
        quiet.text(),
        quiet.stderr
    );
    let wrong = repo.plain(&["show", "nobody@latest"])?.run()?.expect(64)?;
    ensure!(
        wrong.stdout.is_empty() && wrong.stderr.contains("nobody"),
        "{}",
        wrong.stderr
    );
    let gone = scratch.join("gone").display().to_string();
    let wrong = repo
        .plain(&["backup", &gone, "--quiet"])?
        .run()?
        .expect(64)?;
    ensure!(wrong.stderr.contains(&gone), "{}", wrong.stderr);
    Ok(())
}

#[test]
fn limits_hold() -> Result<()> {
    let (scratch, repo, image) = rig("limits", 12 * MIB)?;
    let source = image.path.display().to_string();
    let begin = Instant::now();
    repo.ok(&["backup", &source, "--limit-upload", "6MiB/s"])?;
    ensure!(
        begin.elapsed() >= Duration::from_millis(1500),
        "12 MiB at 6 MiB/s took {:?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    repo.restore(
        "disk.img@latest",
        &scratch.join("out"),
        &["--limit-download", "6MiB/s"],
    )?;
    ensure!(
        begin.elapsed() >= Duration::from_millis(1500),
        "12 MiB at 6 MiB/s took {:?}",
        begin.elapsed()
    );
    image.assert_same(&scratch.join("out"))?;
    repo.ok(&["backup", &source, "--jobs", "1", "--memory", "256MiB"])?;
    repo.restore(
        "disk.img@latest",
        &scratch.join("out"),
        &["--jobs", "3", "--force"],
    )?;
    image.assert_same(&scratch.join("out"))
}

#[test]
fn logs_and_metrics_are_written_on_success_and_failure() -> Result<()> {
    let (scratch, repo, image) = rig("metrics", 2 * MIB)?;
    let source = image.path.display().to_string();
    let file = scratch.join("metrics.prom");
    let flag = file.display().to_string();
    repo.ok(&["backup", &source, "--metrics-file", &flag])?;
    let text = std::fs::read_to_string(&file)?;
    ensure!(
        text.contains("snaphaul_")
            && text.lines().all(|line| line.is_empty()
                || line.starts_with('#')
                || line.starts_with("snaphaul_")),
        "{text}"
    );
    std::fs::remove_file(&file)?;
    repo.fails(64, &["show", "nobody@latest", "--metrics-file", &flag])?;
    ensure!(
        std::fs::read_to_string(&file)?.contains("64"),
        "{}",
        std::fs::read_to_string(&file)?
    );
    let logged = repo
        .command(&["backup", &source])?
        .args(&["--log", "debug"])
        .run()?
        .expect(0)?;
    ensure!(!logged.stderr.is_empty(), "--log debug says nothing");
    logged.json()?;
    let by_environment = repo
        .command(&["points"])?
        .env("RUST_LOG", "debug")
        .run()?
        .expect(0)?;
    ensure!(
        !by_environment.stderr.is_empty(),
        "RUST_LOG=debug says nothing"
    );
    repo.fails(64, &["points", "--log", "mover=loud"]).map(drop)
}

#[test]
fn a_reader_that_closes_the_pipe_early_is_no_error() -> Result<()> {
    let (_scratch, repo, image) = rig("pipe", MIB)?;
    repo.backup(&image.path, "disk", &[])?;
    let mut words = vec![tests::snaphaul::binary()?.display().to_string()];
    words.extend(["points", "--repo", &repo.url, "--key-file"].map(str::to_owned));
    if let tests::repo::Secret::KeyFile(file) = &repo.secret {
        words.push(file.display().to_string());
    }
    let script = format!(
        "set -o pipefail; {} | head -c 1 >/dev/null",
        words.join(" ")
    );
    tests::part::run(std::process::Command::new("bash").args(["-c", &script])).map(drop)
}

#[test]
fn the_demo_runs_all_steps_and_cleans_up() -> Result<()> {
    let scratch = Scratch::new("demo")?;
    let folder = scratch.path().display().to_string();
    let outcome = Snaphaul::new(&["demo", "--dir", &folder])?
        .run()?
        .expect(0)?;
    for step in ["backup", "restore", "verify"] {
        ensure!(outcome.text().contains(step), "{}", outcome.text());
    }
    ensure!(
        std::fs::read_dir(scratch.path())?.count() == 0,
        "the demo left files behind"
    );
    Ok(())
}

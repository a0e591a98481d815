//! Documents that must not rot: files that ARCHITECTURE.md names exist, commands that README.md shows work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::image::{Image, MIB};
use tests::part;
use tests::random::Random;
use tests::scratch::Scratch;
use tests::snaphaul::{Snaphaul, binary};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| format!("read {name}"))
}

/// Whether a word in backticks means a file or folder of this repository.
fn is_path(word: &str) -> bool {
    let plain = word
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let named = [".rs", ".md", ".toml", ".sh", ".txt"]
        .iter()
        .any(|end| word.ends_with(end));
    let folder = [
        "mover/",
        "tests/",
        "bench/",
        "changed-blocks/",
        "csi-proto/",
        ".ci/",
    ]
    .iter()
    .any(|top| word.starts_with(top));
    plain && !word.starts_with('/') && (named || folder)
}

/// A file is named from the root, or below the source folder of a crate (`device/queue.rs`, `queue.rs`).
fn exists(name: &str, files: &[String]) -> bool {
    let name = name.trim_end_matches('/');
    let (inner, below) = (format!("/{name}"), format!("/{name}/"));
    let top = format!("{name}/");
    files.iter().any(|file| {
        file == name || file.ends_with(&inner) || file.starts_with(&top) || file.contains(&below)
    })
}

#[test]
fn files_named_in_documents_exist() -> Result<()> {
    let listed = part::run(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root()),
    )?;
    let files: Vec<String> = listed.lines().map(str::to_owned).collect();
    let mut seen = 0;
    for document in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "README.md",
        "mover/FORMAT.md",
    ] {
        for word in read(document)?
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| is_path(word))
        {
            ensure!(
                exists(word, &files),
                "{document} names `{word}`, which does not exist"
            );
            seen += 1;
        }
    }
    ensure!(
        seen > 20,
        "only {seen} names were found: is the pattern right?"
    );
    Ok(())
}

/// Fenced blocks of README.md that begin with ```` ```sh ````, each with the line before it.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    let mut before = String::new();
    while let Some(line) = lines.next() {
        if line.trim() == "```sh" {
            let body: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push((before.clone(), body.join("\n")));
        }
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut before);
        }
    }
    blocks
}

/// Every `snaphaul` command line, with continued lines joined.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined
        .lines()
        .map(|line| line.trim().trim_start_matches("$ "));
    lines
        .filter(|line| line.starts_with("snaphaul "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn flags_shown_in_the_readme_exist() -> Result<()> {
    let mut seen = 0;
    for (_, body) in blocks(&read("README.md")?) {
        for line in commands(&body) {
            let words: Vec<&str> = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let help = Snaphaul::new(&[words[1], "--help"])?
                .run()?
                .expect(0)
                .with_context(|| line.clone())?
                .text();
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or_default();
                ensure!(
                    help.contains(flag),
                    "README.md shows `{line}`, but {flag} is not in its help"
                );
            }
            seen += 1;
        }
    }
    ensure!(seen >= 6, "only {seen} commands were found in README.md");
    Ok(())
}

/// A block after `<!-- tested -->` runs as it stands: in an empty folder with a `disk.img`, a passphrase in the environment,
/// and `/backup` read as a folder of the test.
#[test]
fn tested_blocks_of_the_readme_run() -> Result<()> {
    let scratch = Scratch::new("readme")?;
    let backup = scratch.join("backup").display().to_string();
    std::fs::create_dir(scratch.join("work"))?;
    Image::mixed(&scratch.join("work/disk.img"), 8 * MIB, &mut Random::new(2))?;
    let program = binary()?;
    let folder = program
        .parent()
        .context("the binary lies in a folder")?
        .display()
        .to_string();
    let mut seen = 0;
    for (before, body) in blocks(&read("README.md")?) {
        if before != "<!-- tested -->" {
            continue;
        }
        let script = format!(
            "set -eu\n{}",
            body.replace("/backup", &backup)
                .replace("\n$ ", "\n")
                .trim_start_matches("$ ")
        );
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &script])
            .current_dir(scratch.join("work"))
            .env("PATH", path);
        shell
            .env("SNAPHAUL_PASSPHRASE", "only for this test")
            .env_remove("SNAPHAUL_REPO");
        part::run(&mut shell).with_context(|| format!("README.md block:\n{body}"))?;
        seen += 1;
    }
    ensure!(
        seen >= 1,
        "no block of README.md is marked `<!-- tested -->`"
    );
    Ok(())
}

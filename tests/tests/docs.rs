//! Documents that must not rot: files that ARCHITECTURE.md names exist, commands that README.md shows work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::csi::Plugin;
use tests::csi::client::Client;
use tests::in_process::InProcess;
use tests::part;
use tests::scratch::Scratch;
use tests::server::S3Server;
use tests::snaphaul::{Snaphaul, binary};
use tests::test_driver::TestDriver;

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
    // `foo` is what the house style calls any module.
    plain
        && !word.starts_with(['/', '.'])
        && !["foo.rs", "foo/tests.rs", "mod.rs"].contains(&word)
        && (named || folder)
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

/// Fenced shell blocks of a document: what stands behind ```` ```sh ````, e.g. `test=s3`, and the commands.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(mark) = line.trim().strip_prefix("```sh") {
            let body: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push((mark.trim().to_owned(), body.join("\n")));
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
            // These have commands of their own.
            let command = &words[1..2 + usize::from(["key", "csi"].contains(&words[1]))];
            let help = Snaphaul::new(&[command, &["--help"]].concat())?
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

/// Runs the blocks of README.md marked `test=NAME`, in order, as one script in an empty folder.
fn run_blocks(name: &str, variables: &[(&str, &str)]) -> Result<()> {
    let mark = format!("test={name}");
    let blocks = blocks(&read("README.md")?);
    let bodies: Vec<&str> = blocks
        .iter()
        .filter(|(found, _)| *found == mark)
        .map(|(_, body)| body.as_str())
        .collect();
    ensure!(
        !bodies.is_empty(),
        "no block of README.md is marked `{mark}`"
    );
    let scratch = Scratch::new("readme")?;
    let program = binary()?;
    let folder = program.parent().context("the binary lies in a folder")?;
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = Command::new("bash");
    // The alias builds a release first; what it runs is the program's own demo.
    let script = format!(
        "set -eu\n{}",
        bodies.join("\n").replace("cargo demo", "snaphaul demo")
    );
    shell
        .args(["-c", &script])
        .current_dir(scratch.path())
        .env("XDG_STATE_HOME", scratch.join("state"))
        .env("PATH", path);
    shell.envs(variables.iter().copied());
    part::run(&mut shell)
        .map(drop)
        .with_context(|| format!("run the blocks `{mark}` of README.md"))
}

#[test]
fn the_demo_of_the_readme_runs() -> Result<()> {
    run_blocks("demo", &[])
}

#[test]
fn the_first_backup_to_a_directory_runs() -> Result<()> {
    run_blocks("directory", &[])
}

#[test]
fn the_first_backup_to_s3_runs() -> Result<()> {
    let server = InProcess::start()?;
    let endpoint = server.endpoint();
    endpoint.bucket("readme")?;
    run_blocks(
        "s3",
        &[
            ("AWS_ACCESS_KEY_ID", &endpoint.owner.access),
            ("AWS_SECRET_ACCESS_KEY", &endpoint.owner.secret),
            ("AWS_REGION", "us-east-1"),
            ("S3_ENDPOINT", &endpoint.url),
            ("BUCKET", "readme"),
        ],
    )
}

#[test]
fn the_volume_of_a_csi_driver_runs() -> Result<()> {
    let driver = TestDriver::start(|_| ())?;
    let client = Client::connect(driver.socket())?;
    let volume = client.create_volume("readme", 8 << 20, None)?;
    run_blocks(
        "csi",
        &[
            ("SOCKET", &driver.socket().to_string_lossy()),
            ("KUBELET", &driver.kubelet().to_string_lossy()),
            ("VOLUME_ID", &volume.volume_id),
        ],
    )?;
    let snapshots = client.snapshots()?;
    ensure!(
        snapshots.is_empty(),
        "released, and still there: {snapshots:?}"
    );
    let volumes = client.volumes()?;
    ensure!(
        volumes.len() == 2,
        "the volume and the restored one, not {volumes:?}"
    );
    Ok(())
}

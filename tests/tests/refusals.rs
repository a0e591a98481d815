//! Bad requests: refused with 64, a reason and a way out, and nothing half done.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::snaphaul::Snaphaul;

fn rig(name: &str) -> Result<(Scratch, Repo, Image)> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), 2 * MIB, &mut Random::new(5))?;
    Ok((scratch, repo, image))
}

#[test]
fn usage_errors_end_with_64_and_json_says_so_too() -> Result<()> {
    for words in [
        vec![],
        vec!["frobnicate"],
        vec!["backup"],
        vec!["points", "--repo"],
        vec!["init", "--what"],
        vec!["key"],
    ] {
        let outcome = Snaphaul::new(&words)?.run()?.expect(64)?;
        ensure!(
            outcome.stdout.is_empty() && !outcome.stderr.is_empty(),
            "{words:?}"
        );
    }
    for words in [
        vec!["points", "--json"],
        vec!["backup", "--json"],
        vec!["frobnicate", "--json"],
    ] {
        let result = Snaphaul::new(&words)?.run()?.expect(64)?.json()?;
        ensure!(
            result["error"]["message"].is_string() && result["error"]["kind"] == "invalid-request",
            "{result}"
        );
    }
    Ok(())
}

#[test]
fn what_is_no_repository_is_named() -> Result<()> {
    let (scratch, repo, image) = rig("no-repository")?;
    let source = image.path.display().to_string();
    let missing = Repo::directory(&scratch.join("missing"))?;
    let empty = Repo::directory(&scratch.join("empty"))?;
    std::fs::create_dir(scratch.join("empty"))?;
    let foreign = Repo::directory(&scratch.join("foreign"))?;
    std::fs::create_dir(scratch.join("foreign"))?;
    std::fs::write(
        scratch.join("foreign/config"),
        "[core]\n\trepositoryformatversion = 0\n",
    )?;
    let file = Repo::directory(&scratch.join("disk.img"))?;
    for (place, code) in [(&missing, 64), (&empty, 64), (&file, 64)] {
        for words in [
            vec!["points"],
            vec!["backup", &source],
            vec!["restore", "a@latest", "/nonexistent/x"],
            vec!["verify"],
        ] {
            place.fails(code, &words)?;
        }
    }
    // A file called `config` that is not ours may be a damaged one of ours: 64 and 65 are both honest, 0 is not.
    let outcome = foreign.command(&["points"])?.run()?;
    ensure!(
        matches!(outcome.status.code(), Some(64 | 65)),
        "{}",
        outcome.stderr
    );
    ensure!(
        !scratch.join("missing").exists(),
        "reading made a directory"
    );
    ensure!(
        std::fs::read_dir(scratch.join("empty"))?.count() == 0,
        "reading wrote something"
    );
    for url in ["ftp://host/path", "s3://", "file://host/path", ""] {
        Snaphaul::new(&["points", "--json", "--repo", url])?
            .run()?
            .expect(64)?
            .json()?;
    }
    repo.ok(&["points"])?;
    Ok(())
}

#[test]
fn a_second_init_is_refused_and_changes_nothing() -> Result<()> {
    let (_scratch, repo, image) = rig("second-init")?;
    repo.backup(&image.path, "disk", &[])?;
    let before: Vec<_> = repo
        .objects("")?
        .into_iter()
        .map(|name| (repo.read(&name).unwrap_or_default(), name))
        .collect();
    repo.fails(64, &["init"])?.names("--if-missing")?;
    ensure!(repo.ok(&["init", "--if-missing"])?.json()?["created"] == false);
    let after: Vec<_> = repo
        .objects("")?
        .into_iter()
        .map(|name| (repo.read(&name).unwrap_or_default(), name))
        .collect();
    ensure!(before == after, "a second init changed the repository");
    Ok(())
}

#[test]
fn of_two_inits_at_once_exactly_one_wins() -> Result<()> {
    let scratch = Scratch::new("two-inits")?;
    for round in 0..8 {
        let repo = Repo::directory(&scratch.join(&format!("repo-{round}")))?;
        let runs: Result<Vec<_>> = (0..4).map(|_| repo.command(&["init"])?.start()).collect();
        let mut codes = Vec::new();
        for run in runs? {
            codes.push(run.wait()?.status.code());
        }
        codes.sort_unstable();
        ensure!(
            codes == [Some(0), Some(64), Some(64), Some(64)],
            "round {round}: {codes:?}"
        );
        repo.ok(&["points"])?;
        ensure!(
            repo.objects("keys/")?.len() <= 8,
            "losers left key slots: {:?}",
            repo.objects("keys/")?
        );
    }
    Ok(())
}

#[test]
fn init_leaves_nothing_but_config_and_keys() -> Result<()> {
    let scratch = Scratch::new("init-leaves")?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    ensure!(repo.ok(&["init"])?.json()?["created"] == true);
    let names = repo.objects("")?;
    ensure!(
        names
            .iter()
            .all(|name| name.starts_with("config") || name.starts_with("keys/")),
        "{names:?}"
    );
    ensure!(names.len() == 4, "each twice: {names:?}");
    Ok(())
}

#[test]
fn a_newer_format_is_refused_before_anything_is_touched() -> Result<()> {
    let (_scratch, repo, image) = rig("newer")?;
    repo.backup(&image.path, "disk", &[])?;
    for name in ["config", "config.b"] {
        let mut body = repo.read(name)?;
        // FORMAT.md, "Header": version at byte 8, directory length at 12; the seal stands behind the directory.
        body[8] = 2;
        let length = u32::from_le_bytes(body[12..16].try_into()?);
        let end = 64 + usize::try_from(length)?;
        let seal = blake3::hash(&body[..end]);
        body[end..end + 32].copy_from_slice(seal.as_bytes());
        repo.write(name, &body)?;
    }
    for words in [vec!["points"], vec!["verify"], vec!["init", "--if-missing"]] {
        let outcome = repo.fails(64, &words)?;
        ensure!(
            outcome.json()?["error"]["kind"] == "newer-format",
            "{}",
            outcome.json()?
        );
    }
    let before = repo.objects("")?;
    repo.fails(64, &["backup", &image.path.display().to_string()])?;
    ensure!(repo.objects("")? == before);
    Ok(())
}

#[test]
fn sources_that_cannot_be_read_are_refused() -> Result<()> {
    let (scratch, repo, _image) = rig("sources")?;
    std::fs::create_dir(scratch.join("folder"))?;
    nix::unistd::mkfifo(&scratch.join("pipe"), nix::sys::stat::Mode::S_IRWXU)?;
    let before = repo.objects("")?;
    for source in [
        scratch.join("missing"),
        scratch.join("folder"),
        scratch.join("pipe"),
        "/dev/null".into(),
    ] {
        let started = std::time::Instant::now();
        let outcome = repo
            .command(&["backup", &source.display().to_string(), "--volume", "x"])?
            .run()?;
        ensure!(
            matches!(outcome.status.code(), Some(64)),
            "{}: {}",
            source.display(),
            outcome.stderr
        );
        outcome.names(&source.display().to_string())?;
        ensure!(
            started.elapsed() < Duration::from_secs(20),
            "a pipe must not be waited for"
        );
    }
    ensure!(
        repo.objects("")? == before,
        "a refused backup wrote something: {:?}",
        repo.objects("")?
    );
    Ok(())
}

#[test]
fn file_targets_are_refused_unless_they_are_empty_or_forced() -> Result<()> {
    let (scratch, repo, image) = rig("targets")?;
    repo.backup(&image.path, "disk", &[])?;
    let restore = |target: &std::path::Path, flags: &[&str]| {
        let target = target.display().to_string();
        let mut words = vec!["restore", "disk@latest", target.as_str()];
        words.extend(flags);
        repo.command(&words)?.run()
    };
    let full = scratch.join("full");
    std::fs::write(&full, "precious")?;
    restore(&full, &[])?.expect(64)?.names("--force")?;
    ensure!(
        std::fs::read(&full)? == b"precious",
        "a refused target was changed"
    );
    std::fs::create_dir(scratch.join("folder"))?;
    for target in [
        scratch.join("folder"),
        scratch.join("missing/out"),
        "/dev/null".into(),
    ] {
        restore(&target, &["--force"])?.expect(64)?;
    }
    // The repository's own objects are never a target.
    let segment = repo.objects("seg/")?.remove(0);
    restore(&repo.folder()?.join(&segment), &["--force"])?.expect(64)?;
    repo.ok(&["verify", "--level", "data"])?;
    std::fs::write(scratch.join("empty"), "")?;
    restore(&scratch.join("empty"), &[])?.expect(0)?;
    image.assert_same(&scratch.join("empty"))?;
    restore(&full, &["--force"])?.expect(0)?;
    image.assert_same(&full)?;
    repo.fails(
        64,
        &[
            "restore",
            "nobody@latest",
            &scratch.join("never").display().to_string(),
        ],
    )?;
    ensure!(!scratch.join("never").exists() && !scratch.join("never.partial").exists());
    Ok(())
}

#[test]
fn bad_tags_and_flags_are_refused() -> Result<()> {
    let (_scratch, repo, image) = rig("flags")?;
    let source = image.path.display().to_string();
    for flags in [
        ["--tag", "novalue"],
        ["--tag", "=x"],
        ["--changed-blocks", "magic"],
        ["--jobs", "0"],
        ["--memory", "1KiB"],
        ["--limit-upload", "fast"],
        ["--takeover-after", "soon"],
        ["--engine", "steam"],
        ["--metrics-file", "/nonexistent/folder/metrics"],
    ] {
        repo.fails(64, &["backup", &source, flags[0], flags[1]])?;
    }
    ensure!(repo.objects("snap/")?.is_empty());
    Ok(())
}

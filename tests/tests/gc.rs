//! Garbage collection from the command line: what forgotten points and killed runs leave is freed, and nothing else ever is.

#[path = "gc/crash_loop.rs"]
mod crash_loop;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::image::{Image, MIB};
use tests::mount::{FileSystem, Mounted};
use tests::part;
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::snaphaul::Running;

struct Rig {
    scratch: Scratch,
    repo: Repo,
    random: Random,
}

fn rig(name: &str) -> Result<Rig> {
    let random = Random::from_environment(name);
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    Ok(Rig {
        scratch,
        repo,
        random,
    })
}

impl Rig {
    fn noise(&mut self, name: &str, size: u64) -> Result<Image> {
        Image::noise(&self.scratch.join(name), size, &mut self.random)
    }

    fn restores(&self, point: &str, image: &Image) -> Result<()> {
        let target = self.scratch.join("out");
        self.repo.restore(point, &target, &[])?;
        image
            .assert_same(&target)
            .with_context(|| format!("restore of {point}"))?;
        Ok(std::fs::remove_file(target)?)
    }

    fn verify(&self) -> Result<()> {
        let verified = self.repo.ok(&["verify", "--all", "--level", "data"])?;
        ensure!(verified.json()?["errors"] == serde_json::json!([]));
        Ok(())
    }
}

/// Gives the order to forget a point: its name is all that counts.
fn forget(repo: &Repo, point: &str) -> Result<()> {
    let (session, _) = point.split_once('-').context("a point id has two parts")?;
    let slots = repo.objects("snap/")?;
    let slot = slots
        .iter()
        .find(|name| {
            name.rsplit('-')
                .next()
                .is_some_and(|id| id.starts_with(session))
        })
        .with_context(|| format!("{point} has no manifest"))?;
    let order = b"forgotten by a test; whoever reads this may delete the point";
    repo.write(&slot.replacen("snap/", "tomb/", 1), order)
}

fn data_bytes(repo: &Repo) -> Result<u64> {
    Ok(repo.bytes("seg/")? + repo.bytes("map/")? + repo.bytes("live/")?)
}

/// Nothing but the repository itself and one object of each kind a point.
fn assert_no_leftovers(repo: &Repo, points: usize) -> Result<()> {
    for (kind, count) in [
        ("open/", points),
        ("snap/", points),
        ("copy/", points),
        ("live/", points),
        ("tomb/", 0),
        ("beat/", 0),
    ] {
        let found = repo.objects(kind)?;
        ensure!(found.len() == count, "{count} points, but {found:?}");
    }
    let again = repo.ok(&["gc", "--fence-after", "0s"])?;
    ensure!(
        again.number("freed_bytes")? == 0 && again.number("segments_rewritten")? == 0,
        "gc is not done: {}",
        again.json()?
    );
    Ok(())
}

/// After the last point is forgotten, nothing at all is left.
fn assert_empties(repo: &Repo) -> Result<()> {
    for point in listed(repo)? {
        forget(repo, &point)?;
    }
    repo.ok(&["gc", "--fence-after", "0s"])?;
    let mut left = repo.objects("")?;
    left.retain(|name| !name.starts_with("config") && !name.starts_with("keys/"));
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// Ids of all points.
fn listed(repo: &Repo) -> Result<Vec<String>> {
    let listed = repo.ok(&["points"])?.json()?;
    let points = listed["points"].as_array().cloned().unwrap_or_default();
    let ids = points.iter().filter(|point| point["status"] != "forgotten");
    Ok(ids
        .filter_map(|point| point["point"].as_str().map(str::to_owned))
        .collect())
}

#[test]
fn what_only_dropped_points_used_is_freed_and_the_rest_restores() -> Result<()> {
    let mut rig = rig("gc-frees")?;
    let image = rig.noise("disk.img", 24 * MIB)?;
    let mut points = Vec::new();
    for round in 0..9 {
        if round > 0 {
            for _ in 0..3 {
                let at = rig.random.below(23 * MIB);
                image.write_noise(at, MIB, &mut rig.random)?;
            }
        }
        let point = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
        let copy = image.copy_to(&rig.scratch.join(&format!("copy-{round}")))?;
        points.push((point, copy));
    }
    let survivors = points.split_off(7);
    // What the survivors need is what a repository of their own takes.
    let own = Repo::directory(&rig.scratch.join("own"))?;
    own.init()?;
    for (_, copy) in &survivors {
        own.backup(&copy.path, "disk", &[])?;
    }
    let (before, needed) = (data_bytes(&rig.repo)?, data_bytes(&own)?);
    for (point, _) in &points {
        forget(&rig.repo, point)?;
    }
    let told = rig.repo.ok(&["gc", "--dry-run"])?;
    ensure!(
        data_bytes(&rig.repo)? == before,
        "a dry run deleted something"
    );
    let mut written = 0;
    let mut freed = 0;
    for _ in 0..2 {
        let report = rig.repo.ok(&["gc"])?;
        written += report.number("written_bytes")?;
        freed += report.number("freed_bytes")?;
    }
    let after = data_bytes(&rig.repo)?;
    eprintln!("before {before}, after {after}, needed {needed}, freed {freed}, written {written}");
    ensure!(
        (before - after) * 100 >= (before - needed) * 95,
        "{before} became {after}, {needed} are needed"
    );
    ensure!(written <= freed, "{written} written, {freed} freed");
    ensure!(told.number("points_purged")? == 7, "{}", told.json()?);
    for (point, copy) in &survivors {
        rig.restores(point, copy)?;
    }
    rig.verify()?;
    ensure!(listed(&rig.repo)?.len() == 2);
    let next = rig.repo.backup(&image.path, "disk", &[])?;
    ensure!(next.number("new_bytes")? == 0, "{}", next.json()?);
    assert_no_leftovers(&rig.repo, 3)?;
    assert_empties(&rig.repo)
}

#[test]
fn little_is_rewritten_for_much_unless_that_is_asked_for() -> Result<()> {
    let mut rig = rig("gc-thorough")?;
    let image = rig.noise("disk.img", 24 * MIB)?;
    let first = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
    // A quarter of each segment: one that lives to three quarters is not worth its price.
    for megabyte in 0..24 {
        image.write_noise(megabyte * MIB, MIB / 4, &mut rig.random)?;
    }
    let second = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
    let own = Repo::directory(&rig.scratch.join("own"))?;
    own.init()?;
    own.backup(&image.path, "disk", &[])?;
    let (before, needed) = (data_bytes(&rig.repo)?, data_bytes(&own)?);
    forget(&rig.repo, &first)?;
    let thrifty = rig.repo.ok(&["gc"])?;
    let (written, freed) = (
        thrifty.number("written_bytes")?,
        thrifty.number("freed_bytes")?,
    );
    let stays = data_bytes(&rig.repo)? - needed;
    ensure!(written <= freed && stays * 2 > before - needed);
    let left = thrifty.number("dead_bytes_left")?;
    ensure!(
        left.abs_diff(stays) < MIB,
        "about {left} of {stays} dead bytes are told"
    );
    rig.repo.fails(64, &["gc", "--thorough", "--no-rewrite"])?;
    let thorough = rig.repo.ok(&["gc", "--thorough"])?;
    ensure!(thorough.number("dead_bytes_left")? < MIB / 4);
    let after = data_bytes(&rig.repo)?;
    eprintln!("before {before}, after {after}, needed {needed}");
    ensure!((before - after) * 100 >= (before - needed) * 95);
    rig.restores(&second, &image)?;
    rig.verify()
}

#[test]
fn a_dry_run_prints_a_table_and_deletes_nothing() -> Result<()> {
    let mut rig = rig("gc-dry")?;
    let image = rig.noise("disk.img", 4 * MIB)?;
    let point = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
    forget(&rig.repo, &point)?;
    let before = rig.repo.objects("")?;
    let shown = rig.repo.plain(&["gc", "--dry-run"])?.run()?.expect(0)?;
    let text = format!("{}{}", shown.text(), shown.stderr);
    for part in ["would free", &point, "1 points"] {
        ensure!(text.contains(part), "no `{part}` in {text}");
    }
    ensure!(rig.repo.objects("")? == before);
    rig.restores(&point, &image).or_else(|error| {
        // A forgotten point may be refused; what counts is that its data is there.
        ensure!(format!("{error:#}").contains("forgotten"), "{error:#}");
        Ok(())
    })?;
    assert_empties(&rig.repo)
}

#[test]
fn backups_and_restores_go_on_while_collectors_run() -> Result<()> {
    let mut rig = rig("gc-meanwhile")?;
    let image = rig.noise("disk.img", 16 * MIB)?;
    let first = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
    let old = image.copy_to(&rig.scratch.join("old"))?;
    image.write_noise(3 * MIB, 8 * MIB, &mut rig.random)?;
    let target = rig.scratch.join("restored");
    let words = ["restore", first.as_str(), &target.display().to_string()];
    let mut restore = rig
        .repo
        .command(&words)?
        .args(&["--limit-download", "2MiB/s"])
        .start()?;
    ensure!(restore.wait_for(|| {
        rig.repo
            .objects("open/")
            .is_ok_and(|names| names.len() == 2)
    })?);
    let segments = rig.repo.objects("seg/")?.len();
    let source = image.path.display().to_string();
    let words = [
        "backup",
        source.as_str(),
        "--volume",
        "disk",
        "--limit-upload",
        "2MiB/s",
    ];
    let mut backup = rig.repo.command(&words)?.start()?;
    ensure!(backup.wait_for(|| {
        rig.repo
            .objects("open/")
            .is_ok_and(|names| names.len() == 3)
    })?);
    // What they pinned is checked before they read or store anything.
    let partial = rig.scratch.join("restored.partial");
    ensure!(restore.wait_for(|| tests::image::allocated(&partial).is_ok_and(|bytes| bytes > 0))?);
    ensure!(backup.wait_for(|| {
        rig.repo
            .objects("seg/")
            .is_ok_and(|names| names.len() > segments)
    })?);
    forget(&rig.repo, &first)?;
    let mut runs = 0;
    while restore.is_running()? || backup.is_running()? {
        let collectors: Vec<Running> = (0..2)
            .map(|_| rig.repo.command(&["gc", "--fence-after", "0s"])?.start())
            .collect::<Result<_>>()?;
        for collector in collectors {
            collector.wait()?.expect(0)?;
        }
        runs += 1;
    }
    ensure!(runs > 1, "gc ran {runs} times meanwhile");
    restore.wait()?.expect(0)?;
    old.assert_same(&target)?;
    let second = backup.wait()?.expect(0)?.string("point")?;
    for _ in 0..2 {
        rig.repo.ok(&["gc", "--fence-after", "0s"])?;
    }
    ensure!(listed(&rig.repo)? == std::slice::from_ref(&second));
    rig.restores(&second, &image)?;
    rig.verify()?;
    assert_no_leftovers(&rig.repo, 1)
}

#[test]
fn a_killed_backup_is_kept_to_be_resumed_and_goes_when_it_is_given_up() -> Result<()> {
    let mut rig = rig("gc-killed")?;
    let image = rig.noise("disk.img", 16 * MIB)?;
    let source = image.path.display().to_string();
    let kill_one = || -> Result<()> {
        let words = [
            "backup",
            source.as_str(),
            "--volume",
            "disk",
            "--limit-upload",
            "8MiB/s",
        ];
        let mut run = rig.repo.command(&words)?.start()?;
        ensure!(run.wait_for(|| rig.repo.objects("seg/").is_ok_and(|names| names.len() >= 4))?);
        run.signal(Signal::SIGKILL)?;
        run.wait().map(drop)
    };
    kill_one()?;
    let kept = rig.repo.ok(&["gc"])?.json()?;
    ensure!(kept["unfinished"][0]["volume"] == "disk", "{kept}");
    let resumed = rig.repo.backup(&image.path, "disk", &[])?;
    ensure!(resumed.number("resumed_bytes")? > 0, "{}", resumed.json()?);
    rig.repo.ok(&["gc", "--fence-after", "0s"])?;
    assert_no_leftovers(&rig.repo, 1)?;
    rig.restores(&resumed.string("point")?, &image)?;
    assert_empties(&rig.repo)?;
    kill_one()?;
    let session = rig.repo.ok(&["gc", "--dry-run"])?.json()?["unfinished"][0]["session"].clone();
    let session = session.as_str().context("an unfinished session")?;
    let given_up = rig.repo.ok(&["gc", "--abort", session])?.json()?;
    ensure!(given_up["fenced"][0] == session, "{given_up}");
    assert_no_leftovers(&rig.repo, 0)?;
    rig.repo
        .fails(64, &["gc", "--abort", session])?
        .names(session)
        .map(drop)
}

#[test]
fn what_may_not_be_deleted_is_told_and_goes_later() -> Result<()> {
    part::root()?;
    let mut rig = rig("gc-denied")?;
    let image = rig.noise("disk.img", 4 * MIB)?;
    let point = rig.repo.backup(&image.path, "disk", &[])?.string("point")?;
    forget(&rig.repo, &point)?;
    let locked = rig.repo.objects("open/")?.remove(0);
    let segment = rig.repo.objects("seg/")?.remove(0);
    let folder = rig.repo.folder()?.to_owned();
    let lock = |flag: &str, name: &str| {
        let file = folder.join(name);
        part::run(Command::new("chattr").arg(flag).arg(file)).map(drop)
    };
    lock("+i", &locked)?;
    lock("+i", &segment)?;
    let report = rig.repo.ok(&["gc"]);
    lock("-i", &locked)?;
    lock("-i", &segment)?;
    let report = report?.json()?;
    ensure!(report["refused"] == 2, "{report}");
    ensure!(
        report["refused_objects"]
            .as_array()
            .is_some_and(|names| names.contains(&segment.clone().into())),
        "{report}"
    );
    ensure!(rig.repo.objects("seg/")? == [segment]);
    ensure!(rig.repo.objects("snap/")?.len() == 1 && rig.repo.objects("tomb/")?.len() == 1);
    assert_empties(&rig.repo)
}

#[test]
fn a_full_file_system_is_collected() -> Result<()> {
    let mut random = Random::from_environment("gc-full");
    let scratch = Scratch::new("gc-full")?;
    let mount = Mounted::new(FileSystem::Tmpfs, 24 * MIB)?;
    let repo = Repo::directory(&mount.join("repo"))?;
    repo.init()?;
    let first = Image::noise(&scratch.join("first"), 10 * MIB, &mut random)?;
    let second = Image::noise(&scratch.join("second"), 20 * MIB, &mut random)?;
    let point = repo.backup(&first.path, "first", &[])?.string("point")?;
    let source = second.path.display().to_string();
    repo.fails(69, &["backup", &source, "--volume", "second"])?;
    // Not a byte is free.
    let filler = mount.join("filler");
    let _ = std::fs::write(&filler, vec![1; usize::try_from(24 * MIB)?]);
    repo.fails(69, &["backup", &source, "--volume", "second"])?;
    forget_on_full(&repo, &point, &filler)?;
    repo.ok(&["gc"])?;
    let point_is_gone = repo.objects("live/")?.is_empty();
    ensure!(point_is_gone, "{:?}", repo.objects("")?);
    repo.ok(&["gc", "--fence-after", "0s"])?;
    std::fs::remove_file(filler)?;
    let point = repo.backup(&second.path, "second", &[])?.string("point")?;
    let target = scratch.join("out");
    repo.restore(&point, &target, &[])?;
    second.assert_same(&target)
}

/// A forget order takes one page; it is taken from the file that fills the rest.
fn forget_on_full(repo: &Repo, point: &str, filler: &Path) -> Result<()> {
    let size = std::fs::metadata(filler)?.len();
    let file = std::fs::OpenOptions::new().write(true).open(filler)?;
    file.set_len(size.saturating_sub(64 * 1024))?;
    forget(repo, point)?;
    let _ = std::fs::write(filler.with_extension("more"), vec![1; 64 * 1024]);
    Ok(())
}

#[test]
fn a_wrong_request_is_refused() -> Result<()> {
    let rig = rig("gc-refusals")?;
    rig.repo.fails(64, &["gc", "--abort", "12"])?;
    rig.repo.fails(64, &["gc", "--fence-after", "soon"])?;
    let nowhere = rig
        .repo
        .with_url(&format!("file://{}", rig.scratch.join("nowhere").display()));
    nowhere.fails(64, &["gc"]).map(drop)
}

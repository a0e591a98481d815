//! Kills, signals and runs at once: what was acknowledged stays, and the next run goes on where the last one died.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::snaphaul::Running;

struct Rig {
    scratch: Scratch,
    repo: Repo,
    image: Image,
    random: Random,
}

fn rig(name: &str, size: u64) -> Result<Rig> {
    let mut random = Random::from_environment(name);
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), size, &mut random)?;
    Ok(Rig {
        scratch,
        repo,
        image,
        random,
    })
}

impl Rig {
    /// Starts a backup that takes seconds, because it may send only so much.
    fn slow_backup(&self, volume: &str, rate: &str) -> Result<Running> {
        let source = self.image.path.display().to_string();
        self.repo
            .command(&[
                "backup",
                &source,
                "--volume",
                volume,
                "--limit-upload",
                rate,
            ])?
            .start()
    }

    fn segments(&self) -> usize {
        self.repo.objects("seg/").map_or(0, |names| names.len())
    }

    fn restores(&self, point: &str, image: &Image) -> Result<()> {
        let target = self.scratch.join("out");
        self.repo.restore(point, &target, &[])?;
        image
            .assert_same(&target)
            .with_context(|| format!("restore of {point}"))?;
        Ok(std::fs::remove_file(target)?)
    }
}

#[test]
fn a_killed_backup_is_resumed() -> Result<()> {
    let rig = rig("resume-kill", 24 * MIB)?;
    let mut run = rig.slow_backup("disk", "8MiB/s")?;
    ensure!(
        run.wait_for(|| rig.segments() >= 6)?,
        "the backup ended before it could be killed"
    );
    run.signal(Signal::SIGKILL)?;
    ensure!(run.wait()?.status.code().is_none());
    ensure!(
        rig.repo.ok(&["points"])?.json()?["points"] == serde_json::json!([]),
        "a killed backup left a point"
    );
    let resumed = rig.repo.backup(&rig.image.path, "disk", &[])?;
    let bytes = resumed.number("resumed_bytes")?;
    // Six segments of 1 MiB were there, each whole when its name was.
    ensure!((5 * MIB..24 * MIB).contains(&bytes), "{}", resumed.json()?);
    ensure!(
        resumed.number("stored_bytes")? < 24 * MIB - bytes + MIB,
        "resumed data was stored again: {}",
        resumed.json()?
    );
    let sum = resumed.number("new_bytes")? + resumed.number("deduplicated_bytes")?;
    ensure!(sum == 24 * MIB, "{}", resumed.json()?);
    rig.restores(&resumed.string("point")?, &rig.image)?;
    rig.repo
        .ok(&["verify", "--all", "--level", "data"])
        .map(drop)
}

#[test]
fn an_interrupted_backup_ends_with_75_and_is_resumed() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let rig = rig("resume-signal", 24 * MIB)?;
        let mut run = rig.slow_backup("disk", "8MiB/s")?;
        ensure!(
            run.wait_for(|| rig.segments() >= 5)?,
            "the backup ended before it could be stopped"
        );
        run.signal(signal)?;
        let stopped = run.wait()?.expect(75)?;
        let result = stopped.json()?;
        ensure!(result["error"]["kind"] == "interrupted", "{result}");
        ensure!(
            stopped.complaint()?.contains("again"),
            "how to resume is not told: {}",
            stopped.stderr
        );
        let resumed = rig.repo.backup(&rig.image.path, "disk", &[])?;
        ensure!(
            resumed.number("resumed_bytes")? >= 4 * MIB,
            "{}",
            resumed.json()?
        );
        rig.restores(&resumed.string("point")?, &rig.image)?;
    }
    Ok(())
}

#[test]
fn a_second_signal_ends_at_once() -> Result<()> {
    let rig = rig("second-signal", 48 * MIB)?;
    let mut run = rig.slow_backup("disk", "1MiB/s")?;
    ensure!(run.wait_for(|| rig.segments() >= 1)?);
    // Signals of one kind that are pending together become one, so the second is repeated until it was seen.
    let begin = std::time::Instant::now();
    while run.is_running()? && begin.elapsed() < Duration::from_secs(30) {
        let _ = run.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(50));
    }
    // What is left to store takes longer than this.
    ensure!(
        begin.elapsed() < Duration::from_secs(20),
        "took {:?}",
        begin.elapsed()
    );
    let ended = run.wait()?;
    ensure!(ended.status.code() != Some(0), "{}", ended.text());
    Ok(())
}

#[test]
fn kills_at_random_moments_never_hurt_earlier_points() -> Result<()> {
    let mut rig = rig("kill-loop", 16 * MIB)?;
    let rounds = if std::env::var_os("SNAPHAUL_TEST_LONG").is_some() {
        200
    } else {
        12
    };
    let mut good: Vec<(String, Image)> = Vec::new();
    let (mut killed, mut resumed) = (0, 0);
    for round in 0..rounds {
        let at = rig.random.below(12 * MIB);
        rig.image.write_noise(at, 3 * MIB, &mut rig.random)?;
        let run = rig.slow_backup("disk", "24MiB/s")?;
        let moment = Duration::from_micros(rig.random.below(900_000));
        std::thread::sleep(moment);
        let _ = run.signal(Signal::SIGKILL);
        let ended = run.wait()?;
        killed += u32::from(ended.status.code().is_none());
        // Killed after its commit but before its last word: the point is there and must be good.
        let listed = rig.repo.ok(&["points"])?.json()?;
        let points = listed["points"].as_array().cloned().unwrap_or_default();
        ensure!(
            points.iter().all(|point| point["status"] == "complete"),
            "round {round}, killed after {moment:?}: {listed}"
        );
        for (point, _) in &good {
            ensure!(
                points
                    .iter()
                    .any(|listed| listed["point"] == point.as_str()),
                "round {round}: {point} is gone"
            );
        }
        if let Some(newest) = points.last().filter(|newest| {
            good.iter()
                .all(|(point, _)| newest["point"] != point.as_str())
        }) {
            rig.restores(newest["point"].as_str().unwrap_or_default(), &rig.image)?;
        }
        let next = rig.repo.backup(&rig.image.path, "disk", &[])?;
        resumed += u32::from(next.number("resumed_bytes")? > 0);
        let copy = rig
            .image
            .copy_to(&rig.scratch.join(&format!("good-{round}")))?;
        good.push((next.string("point")?, copy));
        if good.len() > 3 {
            let (_, old) = good.remove(0);
            std::fs::remove_file(old.path)?;
        }
    }
    for (point, image) in &good {
        rig.restores(point, image)?;
    }
    rig.repo.ok(&["verify", "--all", "--level", "data"])?;
    eprintln!("{rounds} rounds, {killed} killed, {resumed} resumed");
    ensure!(killed > 0, "no run was killed: the moments are too late");
    Ok(())
}

#[test]
fn nothing_but_names_of_the_format_is_left_after_kills() -> Result<()> {
    let rig = rig("kill-names", 12 * MIB)?;
    for segments in [1, 3, 5] {
        let mut run = rig.slow_backup("disk", "8MiB/s")?;
        let before = rig.segments();
        run.wait_for(|| rig.segments() >= before + segments)?;
        let _ = run.signal(Signal::SIGKILL);
        run.wait()?;
    }
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    let known = [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "seg/", "map/", "beat/", "tomb/",
    ];
    for name in rig.repo.objects("")? {
        ensure!(
            known.iter().any(|prefix| name.starts_with(prefix)),
            "what is {name}?"
        );
    }
    Ok(())
}

#[test]
fn a_stopped_restore_leaves_no_finished_looking_target_and_goes_on_with_delta() -> Result<()> {
    let rig = rig("restore-stop", 24 * MIB)?;
    let point = rig
        .repo
        .backup(&rig.image.path, "disk", &[])?
        .string("point")?;
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let target = rig.scratch.join(&format!("out-{signal}"));
        let words = [
            "restore".to_owned(),
            point.clone(),
            target.display().to_string(),
        ];
        let words = words.each_ref().map(String::as_str);
        let mut run = rig
            .repo
            .command(&words)?
            .args(&["--limit-download", "6MiB/s"])
            .start()?;
        let partial = rig.scratch.join(&format!("out-{signal}.partial"));
        ensure!(
            run.wait_for(|| tests::image::allocated(&partial).is_ok_and(|bytes| bytes > 4 * MIB))?
        );
        run.signal(signal)?;
        let ended = run.wait()?;
        if signal == Signal::SIGINT {
            ended.expect(75)?.names("--delta")?;
        }
        ensure!(
            !target.exists(),
            "{signal}: an unfinished restore looks finished"
        );
        let restored = rig.repo.restore(&point, &target, &["--delta"])?;
        rig.image.assert_same(&target)?;
        ensure!(
            restored.number("skipped_bytes")? > 0,
            "{signal}: nothing was resumed: {}",
            restored.json()?
        );
        ensure!(!partial.exists());
    }
    Ok(())
}

#[test]
fn two_backups_of_one_volume_at_once_both_commit_or_say_why() -> Result<()> {
    let rig = rig("same-volume", 16 * MIB)?;
    let runs = [
        rig.slow_backup("disk", "16MiB/s")?,
        rig.slow_backup("disk", "16MiB/s")?,
    ];
    let mut points = Vec::new();
    for run in runs {
        let outcome = run.wait()?.expect(0)?;
        points.push(outcome.string("point")?);
    }
    ensure!(points[0] != points[1]);
    for point in &points {
        rig.restores(point, &rig.image)?;
    }
    rig.repo.ok(&["verify", "--all", "--level", "data"])?;
    ensure!(
        rig.repo.ok(&["points"])?.json()?["points"]
            .as_array()
            .is_some_and(|points| points.len() == 2)
    );
    let next = rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(
        next.number("new_bytes")? == 0 && next.number("resumed_bytes")? == 0,
        "{}",
        next.json()?
    );
    Ok(())
}

#[test]
fn backups_of_different_volumes_at_once_do_not_meet() -> Result<()> {
    let mut rig = rig("volumes", 8 * MIB)?;
    let names = ["a", "b", "c", "d"];
    let mut images = Vec::new();
    for name in names {
        images.push(Image::mixed(
            &rig.scratch.join(&format!("{name}.img")),
            8 * MIB,
            &mut rig.random,
        )?);
    }
    for round in 0..2 {
        let mut runs = Vec::new();
        for (name, image) in names.iter().zip(&images) {
            let source = image.path.display().to_string();
            runs.push(
                rig.repo
                    .command(&["backup", &source, "--volume", name])?
                    .start()?,
            );
        }
        for run in runs {
            run.wait()?.expect(0)?;
        }
        for (name, image) in names.iter().zip(&mut images) {
            rig.restores(&format!("{name}@latest"), image)?;
            if round == 0 {
                image.edit(4, &mut rig.random)?;
            }
        }
    }
    ensure!(
        rig.repo
            .ok(&["verify", "--all", "--level", "data"])?
            .number("points")?
            == 8
    );
    Ok(())
}

#[test]
fn a_running_backup_is_never_taken_over() -> Result<()> {
    let rig = rig("live-session", 16 * MIB)?;
    let mut first = rig.slow_backup("disk", "6MiB/s")?;
    ensure!(first.wait_for(|| rig.segments() >= 3)?);
    let second = rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(
        second.number("resumed_bytes")? == 0,
        "a live session was robbed: {}",
        second.json()?
    );
    let first = first.wait()?.expect(0)?;
    rig.restores(&first.string("point")?, &rig.image)?;
    rig.restores(&second.string("point")?, &rig.image)
}

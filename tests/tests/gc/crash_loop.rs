//! Kills of everything at random moments, with two writers, a collector, forget orders and copies to another repository: nothing is lost
//! and nothing leaks, on either side. 20 rounds; 200 with `SNAPHAUL_TEST_LONG` set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::{Repo, Secret};
use tests::snaphaul::{Running, Snaphaul};

use super::{Rig, assert_empties, assert_no_leftovers, listed, rig};

/// The first moments are drawn from the longest; runs end within the shortest on no machine.
const LONGEST_SPAN: Duration = Duration::from_millis(700);
const SHORTEST_SPAN: Duration = Duration::from_millis(40);

/// One volume of the crash loop: its image, and a copy of it for each point that must be there.
struct Volume {
    name: &'static str,
    image: Image,
    good: BTreeMap<String, Image>,
}

fn rounds() -> usize {
    if std::env::var_os("SNAPHAUL_TEST_LONG").is_some() {
        200
    } else {
        20
    }
}

#[test]
fn kills_of_everything_lose_and_leak_nothing() -> Result<()> {
    let mut rig = rig("gc-crash-loop")?;
    let mut volumes = Vec::new();
    for name in ["a", "b"] {
        let image = rig.noise(&format!("{name}.img"), 6 * MIB)?;
        volumes.push(Volume {
            name,
            image,
            good: BTreeMap::new(),
        });
    }
    let other = Target::new(&rig)?;
    let (mut killed, rounds) = (0, rounds());
    // Machines differ: the moments move to where runs are still at work.
    let mut span = LONGEST_SPAN;
    for round in 0..rounds {
        let dropped = drop_some(&mut rig, &mut volumes)?;
        for volume in &volumes {
            let at = rig.random.below(4 * MIB);
            volume.image.write_noise(at, MIB, &mut rig.random)?;
        }
        let mut runs = start_all(&rig.repo, &volumes)?;
        if let Some(point) = &dropped {
            runs.push(rig.repo.command(&["forget", point])?.start()?);
        }
        // Now and then a copy comes to its end, whatever the moments are.
        let spared = (round % 5 == 4).then_some(runs.len());
        runs.extend(other.start(&rig.repo, &mut rig.random)?);
        let started = runs.len();
        let hit = kill_some(&mut rig.random, runs, spared, span)?;
        span = match hit * 2 > started {
            true => (span * 5 / 4).min(LONGEST_SPAN),
            false => (span / 2).max(SHORTEST_SPAN),
        };
        killed += hit;
        adopt_new_points(&rig, &mut volumes, round)?;
        if round % 5 == 4 {
            restore_all(&rig, &volumes).with_context(|| format!("round {round}"))?;
        }
    }
    eprintln!("{rounds} rounds, {killed} killed");
    ensure!(
        killed > rounds / 2,
        "too few runs were killed: the moments are too late"
    );
    other.judge(&rig)?;
    for _ in 0..2 {
        rig.repo.ok(&["gc", "--fence-after", "0s"])?;
    }
    restore_all(&rig, &volumes)?;
    rig.verify()?;
    assert_no_leftovers(&rig.repo, listed(&rig.repo)?.len())?;
    assert_empties(&rig.repo)
}

/// The repository that the points are copied to, in the middle of everything.
struct Target {
    repo: Repo,
}

impl Target {
    fn new(rig: &Rig) -> Result<Self> {
        let repo = Repo::directory(&rig.scratch.join("other"))?;
        repo.init()?;
        Ok(Self { repo })
    }

    fn copy(&self, from: &Repo) -> Result<Snaphaul> {
        let Secret::KeyFile(key) = &self.repo.secret else {
            bail!("the target has a key file");
        };
        let words = ["copy", "--all", "--to", self.repo.url.as_str()];
        Ok(from.command(&words)?.flag("--to-key-file", key))
    }

    /// A copy of everything, and now and then a collector and a forget order there.
    fn start(&self, from: &Repo, random: &mut Random) -> Result<Vec<Running>> {
        let mut runs = vec![self.copy(from)?.start()?];
        if random.below(4) == 0 {
            let words = ["gc", "--fence-after", "0s"];
            runs.push(self.repo.command(&words)?.start()?);
        }
        if random.below(8) == 0 {
            let words = ["forget", "--keep-last", "6"];
            runs.push(self.repo.command(&words)?.start()?);
        }
        Ok(runs)
    }

    /// Every point that arrived holds what its original held, every point that survived arrives, and nothing else is kept.
    fn judge(&self, rig: &Rig) -> Result<()> {
        let repo = &self.repo;
        let arrived = self.restore_all(rig)?;
        self.copy(&rig.repo)?.run()?.expect(0)?;
        for _ in 0..2 {
            repo.ok(&["gc", "--fence-after", "0s"])?;
        }
        let whole = self.restore_all(rig)?;
        eprintln!("{arrived} points had arrived, {whole} after the last copy");
        ensure!(arrived > 0, "no copy was ever completed");
        let originals = self.originals()?;
        for point in listed(&rig.repo)? {
            ensure!(originals.values().any(|of| *of == point), "{point} is lost");
        }
        let verified = repo.ok(&["verify", "--all", "--level", "data"])?;
        ensure!(verified.json()?["errors"] == serde_json::json!([]));
        assert_no_leftovers(repo, whole)?;
        assert_empties(repo)
    }

    /// The point that each point was copied from.
    fn originals(&self) -> Result<BTreeMap<String, String>> {
        let mut originals = BTreeMap::new();
        for point in listed(&self.repo)? {
            let shown = self.repo.ok(&["show", &point])?.json()?;
            let original = shown["identity"]["copied-from-point"].as_str();
            let original = original.with_context(|| format!("no origin: {shown}"))?;
            originals.insert(point, original.to_owned());
        }
        Ok(originals)
    }

    fn restore_all(&self, rig: &Rig) -> Result<usize> {
        let originals = self.originals()?;
        for (point, original) in &originals {
            let target = rig.scratch.join("out");
            self.repo.restore(point, &target, &[])?;
            let expected = std::fs::read_to_string(seen(rig, original))
                .with_context(|| format!("{point} is a copy of {original}, which nobody saw"))?;
            ensure!(
                digest(&target)? == expected,
                "{point}, a copy of {original}, restores to something else"
            );
            std::fs::remove_file(target)?;
        }
        Ok(originals.len())
    }
}

/// Where it is noted what a point held, for as long as the test runs.
fn seen(rig: &Rig, point: &str) -> PathBuf {
    rig.scratch.join(&format!("seen-{point}"))
}

fn digest(file: &Path) -> Result<String> {
    Ok(blake3::hash(&std::fs::read(file)?).to_string())
}

/// Every few rounds the oldest point of a volume is no longer wanted.
fn drop_some(rig: &mut Rig, volumes: &mut [Volume]) -> Result<Option<String>> {
    let at = rig.random.index(volumes.len());
    let volume = &mut volumes[at];
    if volume.good.len() < 3 {
        return Ok(None);
    }
    let at = rig.random.index(volume.good.len());
    let point = volume
        .good
        .keys()
        .nth(at)
        .cloned()
        .context("there are three")?;
    if let Some(image) = volume.good.remove(&point) {
        std::fs::remove_file(image.path)?;
    }
    Ok(Some(point))
}

fn start_all(repo: &Repo, volumes: &[Volume]) -> Result<Vec<Running>> {
    let mut runs = Vec::new();
    for volume in volumes {
        let source = volume.image.path.display().to_string();
        let words = [
            "backup",
            source.as_str(),
            "--volume",
            volume.name,
            "--limit-upload",
            "16MiB/s",
        ];
        runs.push(repo.command(&words)?.start()?);
    }
    runs.push(repo.command(&["gc", "--fence-after", "0s"])?.start()?);
    Ok(runs)
}

/// Kills most of the runs, but not the one at `spared`, each at a moment of its own; gives how many that hit.
fn kill_some(
    random: &mut Random,
    runs: Vec<Running>,
    spared: Option<usize>,
    span: Duration,
) -> Result<usize> {
    let span = u64::try_from(span.as_micros())?;
    let mut moments: Vec<(Duration, bool, Running)> = runs
        .into_iter()
        .enumerate()
        .map(|(at, run)| {
            let moment = Duration::from_micros(random.below(span));
            (moment, random.below(5) > 0 && spared != Some(at), run)
        })
        .collect();
    moments.sort_by_key(|(moment, ..)| *moment);
    let begin = std::time::Instant::now();
    let mut killed = 0;
    for (moment, is_killed, run) in moments {
        std::thread::sleep(moment.saturating_sub(begin.elapsed()));
        if is_killed {
            let _ = run.signal(Signal::SIGKILL);
        }
        let ended = run.wait()?;
        match ended.status.code() {
            None => killed += 1,
            Some(0) => {}
            // A point may be forgotten by now, a session fenced, a copy of what is gone refused.
            Some(64 | 69) if ended.json()?["error"]["kind"] != "invalid-request" => {
                eprintln!("{}", ended.complaint()?);
            }
            Some(code) => bail!("{} ended with {code}: {}", ended.shown, ended.complaint()?),
        }
    }
    Ok(killed)
}

/// What was committed in this round holds the image as it is now, whoever was killed.
fn adopt_new_points(rig: &Rig, volumes: &mut [Volume], round: usize) -> Result<()> {
    let listed = rig.repo.ok(&["points"])?.json()?;
    let points = listed["points"].as_array().cloned().unwrap_or_default();
    for volume in volumes {
        let of_volume = points.iter().filter(|point| point["volume"] == volume.name);
        let newest = of_volume.clone().next_back();
        for point in volume.good.keys() {
            ensure!(
                of_volume
                    .clone()
                    .any(|listed| listed["point"] == point.as_str()
                        && listed["status"] == "complete"),
                "round {round}: {point} is lost: {listed}"
            );
        }
        let Some(id) = newest.and_then(|point| point["point"].as_str()) else {
            continue;
        };
        let known = seen(rig, id);
        if !known.exists() {
            std::fs::write(&known, digest(&volume.image.path)?)?;
            let copy = volume
                .image
                .copy_to(&rig.scratch.join(&format!("good-{id}")))?;
            volume.good.insert(id.to_owned(), copy);
        }
    }
    Ok(())
}

fn restore_all(rig: &Rig, volumes: &[Volume]) -> Result<()> {
    for volume in volumes {
        for (point, image) in &volume.good {
            rig.restores(point, image)?;
        }
    }
    Ok(())
}

//! `snaphaul forget`: what goes, what stays, what is refused, and what can still be restored.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;

/// A repository with so many points of the volumes `a` and `b`, oldest first.
struct Rig {
    scratch: Scratch,
    repo: Repo,
    image: Image,
    a: Vec<String>,
    b: Vec<String>,
}

impl Rig {
    fn new(name: &str, a: usize, b: usize) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let repo = Repo::directory(&scratch.join("repo"))?;
        repo.init()?;
        let image = Image::noise(&scratch.join("disk.img"), MIB, &mut Random::new(7))?;
        let take = |volume: &str, count: usize| {
            (0..count)
                .map(|n| {
                    let tag = format!("number={n}");
                    repo.backup(&image.path, volume, &["--tag", &tag])?
                        .string("point")
                })
                .collect::<Result<Vec<_>>>()
        };
        let (a, b) = (take("a", a)?, take("b", b)?);
        Ok(Self {
            scratch,
            repo,
            image,
            a,
            b,
        })
    }

    fn tombs(&self) -> Result<usize> {
        Ok(self.repo.objects("tomb/")?.len())
    }

    /// Points by status.
    fn points(&self, status: &str) -> Result<Vec<String>> {
        let listed = self.repo.ok(&["points"])?.json()?;
        let points = listed["points"].as_array().context("no points")?;
        Ok(points
            .iter()
            .filter(|point| point["status"] == status)
            .filter_map(|point| point["point"].as_str().map(str::to_owned))
            .collect())
    }
}

fn ids(result: &Value, field: &str) -> Vec<String> {
    let lines = result[field].as_array().cloned().unwrap_or_default();
    lines
        .iter()
        .filter_map(|line| line["point"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_policy_forgets_what_it_showed_before() -> Result<()> {
    let rig = Rig::new("policy", 4, 2)?;
    let words = ["forget", "--keep-last", "2", "--keep-tag", "number=0"];
    let shown = rig
        .repo
        .plain(&[&words[..], &["--dry-run"]].concat())?
        .run()?
        .expect(0)?;
    for text in [
        "volume a",
        "volume b",
        "newest of the volume, last 2",
        "tag number=0",
        "not of the last 2, not tagged to be kept",
        "1 point would be forgotten, 5 kept; nothing was changed",
    ] {
        ensure!(
            shown.text().contains(text),
            "no {text:?} in\n{}",
            shown.text()
        );
    }
    let planned = rig
        .repo
        .ok(&[&words[..], &["--dry-run"]].concat())?
        .json()?;
    ensure!(rig.tombs()? == 0 && planned["dry_run"] == true, "{planned}");
    let done = rig.repo.ok(&words)?.json()?;
    ensure!(ids(&done, "forgotten") == [rig.a[1].clone()], "{done}");
    ensure!(
        ids(&planned, "forgotten") == ids(&done, "forgotten"),
        "{planned}"
    );
    ensure!(
        ids(&done, "kept").len() == 5 && done["dry_run"] == false,
        "{done}"
    );
    for line in done["forgotten"].as_array().context("no list")? {
        for field in [
            "point",
            "volume",
            "created",
            "size_bytes",
            "tags",
            "status",
            "reasons",
        ] {
            ensure!(!line[field].is_null(), "no {field} in {line}");
        }
    }
    ensure!(rig.points("forgotten")? == [rig.a[1].clone()]);
    // Once more: there is nothing left to do.
    let again = rig.repo.ok(&words)?.json()?;
    ensure!(
        ids(&again, "forgotten").is_empty() && rig.tombs()? == 1,
        "{again}"
    );
    rig.repo.ok(&["verify", "--level", "data"])?;
    Ok(())
}

#[test]
fn only_the_volume_that_is_named_is_touched() -> Result<()> {
    let rig = Rig::new("volume", 2, 3)?;
    let done = rig
        .repo
        .ok(&["forget", "--volume", "b", "--keep-daily", "1"])?
        .json()?;
    ensure!(ids(&done, "forgotten") == rig.b[..2], "{done}");
    ensure!(ids(&done, "kept") == rig.b[2..], "{done}");
    ensure!(rig.points("complete")?.len() == 3);
    Ok(())
}

#[test]
fn points_are_forgotten_by_name_even_the_newest_and_even_twice() -> Result<()> {
    let rig = Rig::new("named", 3, 0)?;
    let done = rig.repo.ok(&["forget", &rig.a[2], &rig.a[0][..10]])?;
    ensure!(
        ids(&done.json()?, "forgotten").len() == 2,
        "{}",
        done.text()
    );
    ensure!(
        done.stderr.contains("newest of volume a"),
        "{}",
        done.stderr
    );
    let again = rig.repo.ok(&["forget", &rig.a[2], &rig.a[0]])?.json()?;
    ensure!(ids(&again, "forgotten").is_empty(), "{again}");
    ensure!(
        again["already_forgotten"].as_array().map(Vec::len) == Some(2),
        "{again}"
    );
    // The one that is left is the latest now, and the next backup builds on it.
    let latest = rig.repo.ok(&["show", "a@latest"])?.string("point")?;
    ensure!(latest == rig.a[1], "{latest}");
    let next = rig.repo.backup(&rig.image.path, "a", &[])?;
    ensure!(next.string("parent")? == rig.a[1] && next.number("new_bytes")? == 0);
    Ok(())
}

#[test]
fn nothing_is_forgotten_if_anything_is_wrong() -> Result<()> {
    let rig = Rig::new("wrong", 3, 2)?;
    let other = Rig::new("wrong-other", 1, 0)?;
    let (good, foreign) = (rig.a[0].as_str(), other.a[0].as_str());
    for (words, named) in [
        (vec![], "--keep-daily"),
        (vec!["--volume", "a"], "--keep-daily"),
        (vec!["--keep-last", "0"], "keeps nothing"),
        (
            vec!["--keep-daily", "0", "--keep-within", "0s"],
            "keeps nothing",
        ),
        (vec!["--keep-tag", "nubmer"], "number=0"),
        (
            vec!["--keep-last", "1", "--keep-tag", "number=9"],
            "number=0",
        ),
        (vec!["--keep-tag", "number=2"], "volume `b`"),
        (vec!["--volume", "c", "--keep-last", "1"], "volume `c`"),
        (vec!["--volume", "../a", "--keep-last", "1"], "../a"),
        (vec!["--keep-within", "soon"], "keep-within"),
        (vec!["--keep-last", "-1"], "-1"),
        (vec![good, "--keep-last", "1"], "keep-last"),
        (
            vec![good, "0123456789abcdef-01234567"],
            "0123456789abcdef-01234567",
        ),
        (vec![good, foreign], "--repo"),
        (vec![good, "nobody@latest"], "nobody"),
        (vec![good, "a@oldest"], "@latest"),
        (vec![good, "12"], "12"),
    ] {
        let words = [&["forget"], &words[..]].concat();
        rig.repo.fails(64, &words)?.names(named)?;
        rig.repo.fails(64, &[&words[..], &["--dry-run"]].concat())?;
        ensure!(rig.tombs()? == 0, "{words:?} forgot something");
    }
    Ok(())
}

#[test]
fn a_forgotten_point_is_restored_on_purpose_until_it_is_collected() -> Result<()> {
    let rig = Rig::new("restore", 2, 0)?;
    rig.repo.ok(&["forget", &rig.a[0]])?;
    let target = rig.scratch.join("out");
    let words = |flag| {
        [
            "restore",
            &rig.a[0],
            target.to_str().unwrap_or_default(),
            flag,
        ]
    };
    rig.repo
        .fails(64, &words("--force"))?
        .names("--forgotten")?;
    ensure!(!target.exists(), "a refused restore made its target");
    let outcome = rig.repo.ok(&words("--forgotten"))?;
    ensure!(
        outcome.stderr.contains("gc will remove it"),
        "{}",
        outcome.stderr
    );
    rig.image.assert_same(&target)?;
    ensure!(
        rig.repo
            .objects("open/")?
            .iter()
            .all(|name| !name.contains("/r-"))
    );
    // A collector removes the control objects in this order, and dies before the last.
    for prefix in ["copy/", "open/", "snap/"] {
        let names = rig.repo.objects(prefix)?;
        let name = names
            .iter()
            .find(|name| name.contains(&rig.a[0][..16]))
            .with_context(|| format!("no {prefix} of the point"))?;
        rig.repo.remove(name)?;
        rig.repo.fails(
            64,
            &["restore", &rig.a[0], "/nonexistent/out", "--forgotten"],
        )?;
    }
    rig.repo.fails(64, &["forget", &rig.a[0]])?;
    Ok(())
}

#[test]
fn a_damaged_point_stays_until_it_is_named() -> Result<()> {
    let rig = Rig::new("damaged", 3, 0)?;
    for prefix in ["snap/", "copy/"] {
        let names = rig.repo.objects(prefix)?;
        let name = names.iter().find(|name| name.contains(&rig.a[2][..16]));
        let name = name.context("no manifest")?;
        let mut bytes = rig.repo.read(name)?;
        bytes[100] ^= 1;
        rig.repo.write(name, &bytes)?;
    }
    let done = rig.repo.ok(&["forget", "--keep-last", "1"])?.json()?;
    // The damaged one does not count as the last: the newest good one is kept beside it.
    ensure!(ids(&done, "forgotten") == [rig.a[0].clone()], "{done}");
    ensure!(
        ids(&done, "kept") == [rig.a[1].clone(), rig.a[2].clone()],
        "{done}"
    );
    let done = rig.repo.ok(&["forget", &rig.a[2]])?.json()?;
    ensure!(ids(&done, "forgotten") == [rig.a[2].clone()], "{done}");
    Ok(())
}

#[test]
fn a_forget_that_is_killed_is_run_again() -> Result<()> {
    let rig = Rig::new("killed", 12, 0)?;
    let mut random = Random::from_environment("forget-killed");
    for _ in 0..6 {
        let run = rig.repo.command(&["forget", "--keep-last", "1"])?.start()?;
        std::thread::sleep(std::time::Duration::from_micros(random.below(20_000)));
        // It may have ended already.
        let _ = run.signal(nix::sys::signal::Signal::SIGKILL);
        run.wait()?;
        ensure!(rig.points("complete")?.contains(&rig.a[11]));
        rig.repo.ok(&["verify", "--level", "metadata"])?;
    }
    rig.repo.ok(&["forget", "--keep-last", "1"])?;
    ensure!(rig.points("complete")? == rig.a[11..] && rig.tombs()? == 11);
    Ok(())
}

/// Copies the objects of a repository in a directory.
fn copy_all(rig: &Rig) -> Result<Vec<(String, Vec<u8>)>> {
    rig.repo
        .objects("")?
        .into_iter()
        .map(|name| Ok((name.clone(), rig.repo.read(&name)?)))
        .collect()
}

#[test]
fn an_older_state_of_the_repository_is_noticed_by_who_was_there() -> Result<()> {
    let mut rig = Rig::new("rollback", 2, 1)?;
    let state = rig.scratch.join("state");
    let state = state.to_str().context("no text")?.to_owned();
    let stranger = rig.repo.clone();
    rig.repo.env.push(("XDG_STATE_HOME".to_owned(), state));
    let old = copy_all(&rig)?;
    let third = rig.repo.backup(&rig.image.path, "a", &[])?;
    ensure!(!third.stderr.contains("older state"), "{}", third.stderr);
    ensure!(!rig.repo.ok(&["points"])?.stderr.contains("older state"));
    // The store is put back to what it was before the third point.
    for name in rig.repo.objects("")? {
        rig.repo.remove(&name)?;
    }
    for (name, bytes) in &old {
        rig.repo.write(name, bytes)?;
    }
    let id = third.string("point")?;
    let target = rig.scratch.join("out").display().to_string();
    for words in [
        vec!["points"],
        vec!["points", "--volume", "a"],
        vec!["restore", "a@latest", &target],
    ] {
        let outcome = rig.repo.ok(&words)?;
        ensure!(
            outcome.stderr.contains("older state"),
            "{words:?}: {}",
            outcome.stderr
        );
        ensure!(
            outcome.stderr.contains(&id),
            "{words:?}: {}",
            outcome.stderr
        );
        ensure!(
            outcome.json()?["warnings"]
                .to_string()
                .contains("older state")
        );
    }
    ensure!(
        !rig.repo
            .ok(&["points", "--volume", "b"])?
            .stderr
            .contains("older state")
    );
    ensure!(!stranger.ok(&["points"])?.stderr.contains("older state"));
    // The history goes on; once it is longer than what was lost, nothing is missed any more.
    let outcome = rig.repo.backup(&rig.image.path, "a", &[])?;
    ensure!(outcome.stderr.contains("older state"), "{}", outcome.stderr);
    rig.repo.backup(&rig.image.path, "a", &[])?;
    let outcome = rig.repo.ok(&["points"])?;
    ensure!(
        !outcome.stderr.contains("older state"),
        "{}",
        outcome.stderr
    );
    Ok(())
}

/// What a collector leaves of a forgotten point: nothing.
fn collect(rig: &Rig, id: &str) -> Result<()> {
    for prefix in ["copy/", "open/", "snap/", "tomb/"] {
        for name in rig.repo.objects(prefix)? {
            if name.contains(&id[..16]) {
                rig.repo.remove(&name)?;
            }
        }
    }
    Ok(())
}

#[test]
fn points_that_were_forgotten_and_collected_are_not_missed() -> Result<()> {
    let mut rig = Rig::new("collected", 3, 0)?;
    let state = rig.scratch.join("state").display().to_string();
    let elsewhere = rig.repo.clone();
    rig.repo.env.push(("XDG_STATE_HOME".to_owned(), state));
    rig.repo.ok(&["points"])?;
    // Forgotten here.
    rig.repo.ok(&["forget", &rig.a[2]])?;
    collect(&rig, &rig.a[2])?;
    ensure!(!rig.repo.ok(&["points"])?.stderr.contains("older state"));
    // Forgotten elsewhere, and seen here before it was collected.
    elsewhere.ok(&["forget", &rig.a[1]])?;
    rig.repo.ok(&["points"])?;
    collect(&rig, &rig.a[1])?;
    ensure!(!rig.repo.ok(&["points"])?.stderr.contains("older state"));
    // A forget order that somebody without the key made up is no reason to let a point go.
    let slot = rig.repo.objects("snap/")?.remove(0);
    let tomb = slot.replacen("snap/", "tomb/", 1);
    rig.repo
        .write(&tomb, b"nobody signed this, and it is long enough")?;
    let outcome = rig.repo.ok(&["points"])?;
    ensure!(
        outcome.stderr.contains("without the key"),
        "{}",
        outcome.stderr
    );
    ensure!(outcome.stderr.contains("older state"), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn a_machine_without_a_place_for_state_goes_without() -> Result<()> {
    let mut rig = Rig::new("stateless", 1, 0)?;
    let file = rig.scratch.join("file");
    std::fs::write(&file, "in the way")?;
    rig.repo
        .env
        .push(("XDG_STATE_HOME".to_owned(), file.display().to_string()));
    rig.repo.backup(&rig.image.path, "a", &[])?;
    let outcome = rig.repo.ok(&["points"])?;
    ensure!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    ensure!(std::fs::read_to_string(&file)? == "in the way");
    Ok(())
}

//! Damage to stored objects: each kind of object, each kind of damage, is detected, named, and never restored as if good.

use anyhow::{Context, Result, bail, ensure};
use tests::image::{Image, MIB, first_difference};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::tamper::{DAMAGES, Damage, KINDS, Kind, damage};

struct Rig {
    scratch: Scratch,
    repo: Repo,
    /// Volume, point and what it must restore to; the first volume has two points.
    points: Vec<(&'static str, String, Image)>,
}

/// Two volumes, three points, several objects of every kind.
fn rig(name: &str, random: &mut Random) -> Result<Rig> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let mut points = Vec::new();
    let image = Image::mixed(&scratch.join("a.img"), 5 * MIB, random)?;
    points.push((
        "a",
        repo.backup(&image.path, "a", &[])?.string("point")?,
        image.copy_to(&scratch.join("a-1"))?,
    ));
    image.write_noise(2 * MIB, 300_000, random)?;
    points.push((
        "a",
        repo.backup(&image.path, "a", &[])?.string("point")?,
        image,
    ));
    let image = Image::mixed(&scratch.join("b.img"), 3 * MIB, random)?;
    points.push((
        "b",
        repo.backup(&image.path, "b", &[])?.string("point")?,
        image,
    ));
    Ok(Rig {
        scratch,
        repo,
        points,
    })
}

impl Rig {
    /// Restores every point; each must be right or refused with 65 (or 64 where not even the repository opens).
    fn restores_are_right_or_refused(&self, hurt: &str) -> Result<Vec<bool>> {
        let mut right = Vec::new();
        for (_, point, image) in &self.points {
            let target = self.scratch.join("out");
            let words =
                ["restore", point.as_str(), &target.display().to_string()].map(str::to_owned);
            let outcome = self
                .repo
                .command(&words.each_ref().map(String::as_str))?
                .run()?;
            match outcome.status.code() {
                Some(0) => {
                    image
                        .assert_same(&target)
                        .with_context(|| format!("{hurt}: {point} was restored as if good"))?;
                    right.push(true);
                }
                Some(64 | 65) => {
                    ensure!(
                        !target.exists(),
                        "{hurt}: a failed restore of {point} left a finished-looking file"
                    );
                    right.push(false);
                }
                other => bail!(
                    "{hurt}: restore of {point} ended with {other:?}\n{}",
                    outcome.stderr
                ),
            }
            let _ = std::fs::remove_file(&target);
            let _ = std::fs::remove_file(self.scratch.join("out.partial"));
        }
        Ok(right)
    }

    /// Every command keeps its head, whatever is damaged: no panic, no success that claims too much.
    fn other_commands_end_well(&self, hurt: &str) -> Result<()> {
        for words in [
            vec!["points"],
            vec!["show", "a@latest"],
            vec!["diff", &self.points[0].1, &self.points[1].1],
            vec!["key", "list"],
        ] {
            let outcome = self.repo.command(&words)?.run()?;
            ensure!(
                matches!(outcome.status.code(), Some(0 | 64 | 65)),
                "{hurt}: {words:?}: {:?} {}",
                outcome.status,
                outcome.stderr
            );
            outcome.json()?;
        }
        Ok(())
    }
}

fn check(rig: &Rig, kind: Kind, how: Damage, random: &mut Random) -> Result<()> {
    let objects = kind.objects(&rig.repo)?;
    let at = random.index(objects.len());
    let name = &objects[at];
    let (before, behind) = (&objects[..at], &objects[at + 1..]);
    let other = behind.iter().chain(before).next().map(String::as_str);
    let other = match (how, other) {
        // The only one of its kind is given the bytes of another kind.
        (Damage::Swap, None) => rig.repo.objects("seg/")?.pop(),
        (_, other) => other.map(str::to_owned),
    };
    let hurt = format!("{how} of {name} (other: {other:?})");
    let undo = damage(&rig.repo, name, how, other.as_deref(), random)?;
    let verified = rig
        .repo
        .command(&["verify", "--all", "--level", "data"])?
        .run()?;
    ensure!(
        verified.status.code() == Some(65),
        "{hurt}: verify ended with {:?}\n{}",
        verified.status,
        verified.text()
    );
    verified.names(name).with_context(|| hurt.clone())?;
    let right = rig.restores_are_right_or_refused(&hurt)?;
    if kind.has_copy() {
        ensure!(
            right.iter().all(|right| *right),
            "{hurt}: the second copy was not used"
        );
    }
    if matches!(kind, Kind::Segment | Kind::Map) {
        ensure!(
            right.iter().any(|right| !right),
            "{hurt}: no restore noticed"
        );
        let result = verified.json()?;
        let hurt_points: Vec<&str> = result["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|finding| finding["points"].as_array().into_iter().flatten())
            .filter_map(serde_json::Value::as_str)
            .collect();
        for ((_, point, _), right) in rig.points.iter().zip(&right) {
            ensure!(
                *right != hurt_points.contains(&point.as_str()),
                "{hurt}: verify blames {hurt_points:?}, restores: {right:?}"
            );
        }
    }
    rig.other_commands_end_well(&hurt)?;
    undo.repair()?;
    Ok(())
}

fn every_damage_of(kind: Kind, name: &str) -> Result<()> {
    let mut random = Random::from_environment(name);
    let rig = rig(name, &mut random)?;
    for how in DAMAGES {
        let rounds = if how == Damage::Flip || how == Damage::Truncate {
            3
        } else {
            1
        };
        for _ in 0..rounds {
            check(&rig, kind, how, &mut random)?;
        }
    }
    rig.repo.ok(&["verify", "--all", "--level", "data"])?;
    ensure!(
        rig.restores_are_right_or_refused("nothing")?
            .iter()
            .all(|right| *right)
    );
    Ok(())
}

#[test]
fn config() -> Result<()> {
    every_damage_of(Kind::Config, "damage-config")
}

#[test]
fn keys() -> Result<()> {
    every_damage_of(Kind::Key, "damage-keys")
}

#[test]
fn segments() -> Result<()> {
    every_damage_of(Kind::Segment, "damage-segments")
}

#[test]
fn maps() -> Result<()> {
    every_damage_of(Kind::Map, "damage-maps")
}

#[test]
fn liveness() -> Result<()> {
    every_damage_of(Kind::Liveness, "damage-liveness")
}

#[test]
fn manifests() -> Result<()> {
    every_damage_of(Kind::Manifest, "damage-manifests")
}

#[test]
fn open_records() -> Result<()> {
    every_damage_of(Kind::Open, "damage-open")
}

#[test]
fn second_copies_are_checked_too() -> Result<()> {
    let mut random = Random::from_environment("damage-copies");
    let rig = rig("damage-copies", &mut random)?;
    let mut copies = rig.repo.objects("")?;
    copies.retain(|name| name.ends_with(".b") || name.starts_with("copy/"));
    ensure!(
        copies.len() >= 5,
        "config.b, a key's copy and three manifests' are expected: {copies:?}"
    );
    for name in copies {
        for how in [Damage::Flip, Damage::Remove] {
            let undo = damage(&rig.repo, &name, how, None, &mut random)?;
            rig.repo.fails(65, &["verify", "--all"])?.names(&name)?;
            ensure!(
                rig.restores_are_right_or_refused(&name)?
                    .iter()
                    .all(|right| *right),
                "{name}: the first copy is intact"
            );
            undo.repair()?;
        }
    }
    Ok(())
}

#[test]
fn both_copies_damaged_is_65_and_named() -> Result<()> {
    let mut random = Random::from_environment("damage-both");
    let rig = rig("damage-both", &mut random)?;
    for prefix in ["config", "keys/"] {
        let names = rig.repo.objects(prefix)?;
        ensure!(names.len() == 2, "{names:?}");
        let undos: Result<Vec<_>> = names
            .iter()
            .map(|name| damage(&rig.repo, name, Damage::Flip, None, &mut random))
            .collect();
        let outcome = rig.repo.command(&["points"])?.run()?;
        ensure!(
            matches!(outcome.status.code(), Some(64 | 65)),
            "{prefix}: {}",
            outcome.stderr
        );
        outcome.names(names[0].trim_end_matches(".b"))?;
        ensure!(
            rig.restores_are_right_or_refused(prefix)?
                .iter()
                .all(|right| !right)
        );
        for undo in undos? {
            undo.repair()?;
        }
    }
    ensure!(KINDS.len() == 7, "a new kind of object needs a test here");
    Ok(())
}

#[test]
fn a_point_whose_record_is_gone_is_shown_as_damaged_and_restores_from_its_copy() -> Result<()> {
    let mut random = Random::from_environment("damage-lost");
    let rig = rig("damage-lost", &mut random)?;
    for prefix in ["open/", "snap/"] {
        let name = rig.repo.objects(prefix)?.remove(0);
        let undo = damage(&rig.repo, &name, Damage::Remove, None, &mut random)?;
        let listed = rig.repo.ok(&["points"])?.json()?;
        let damaged = listed["points"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|point| point["status"] == "damaged")
            .count();
        ensure!(damaged == 1, "{prefix}: {listed}");
        ensure!(
            rig.restores_are_right_or_refused(&name)?
                .iter()
                .all(|right| *right),
            "{name}: the copy was not used"
        );
        rig.repo.fails(65, &["verify", "--all"])?;
        undo.repair()?;
    }
    Ok(())
}

#[test]
fn salvage_saves_the_rest_and_reports_what_is_lost() -> Result<()> {
    let mut random = Random::from_environment("damage-salvage");
    let scratch = Scratch::new("damage-salvage")?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), 6 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let segment = repo.objects("seg/")?.remove(1);
    damage(&repo, &segment, Damage::Remove, None, &mut random)?;
    let target = scratch.join("out");
    repo.fails(
        65,
        &["restore", "disk@latest", &target.display().to_string()],
    )?
    .names(&segment)?;
    ensure!(!target.exists());
    let outcome = repo.fails(
        65,
        &[
            "restore",
            "disk@latest",
            &target.display().to_string(),
            "--salvage",
        ],
    )?;
    let result = outcome.json()?;
    ensure!(result["lost"].to_string().contains(&segment), "{result}");
    let lost: Vec<(u64, u64)> = result["lost"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| {
            (
                range["offset"].as_u64().unwrap_or(0),
                range["length"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    let bytes: u64 = lost.iter().map(|(_, length)| length).sum();
    ensure!(bytes > 0 && bytes <= MIB, "lost {lost:?}");
    let mut at = 0;
    for (offset, length) in lost.iter().copied().chain([(image.size, 0)]) {
        ensure!(
            first_difference(&image.path, &target, at, offset - at)?.is_none(),
            "a range outside the lost ones differs"
        );
        at = offset + length;
    }
    Ok(())
}

#[test]
fn the_next_backup_stores_again_what_was_lost() -> Result<()> {
    let mut random = Random::from_environment("damage-heal");
    let scratch = Scratch::new("damage-heal")?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), 4 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let segment = repo.objects("seg/")?.remove(0);
    damage(&repo, &segment, Damage::Remove, None, &mut random)?;
    repo.fails(65, &["verify", "--all", "--level", "data"])?;
    let second = repo
        .command(&[
            "backup",
            &image.path.display().to_string(),
            "--volume",
            "disk",
        ])?
        .run()?
        .expect(0)?
        .string("point")?;
    let target = scratch.join("out");
    let outcome = repo
        .command(&["restore", &second, &target.display().to_string()])?
        .run()?;
    if outcome.status.code() == Some(0) {
        image.assert_same(&target)?;
    } else {
        // The loss of a whole segment is only found by reading it; without its parent the next point must be whole.
        outcome.expect(65)?.names(&segment)?;
        let third = repo
            .backup(&image.path, "disk", &["--parent", "none"])?
            .string("point")?;
        repo.restore(&third, &target, &[])?;
        image.assert_same(&target)?;
    }
    repo.fails(
        65,
        &[
            "restore",
            &first,
            &scratch.join("old").display().to_string(),
        ],
    )
    .map(drop)
}

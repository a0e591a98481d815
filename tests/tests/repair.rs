//! Repair: whatever a point needs beside its chunks is mended, everything mended is told, and nothing is pretended.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::tamper::{Damage, damage};

struct Rig {
    scratch: Scratch,
    repo: Repo,
    old: Image,
    new: Image,
    points: [String; 2],
}

/// A volume with two points.
fn rig(name: &str, random: &mut Random) -> Result<Rig> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let new = Image::mixed(&scratch.join("disk.img"), 5 * MIB, random)?;
    let first = repo
        .backup(&new.path, "disk", &["--tag", "n=1"])?
        .string("point")?;
    let old = new.copy_to(&scratch.join("old.img"))?;
    new.write_noise(2 * MIB, 300_000, random)?;
    let second = repo.backup(&new.path, "disk", &[])?.string("point")?;
    Ok(Rig {
        scratch,
        repo,
        old,
        new,
        points: [first, second],
    })
}

impl Rig {
    fn restores(&self, point: &str, image: &Image) -> Result<()> {
        let target = self.scratch.join("out");
        self.repo.restore(point, &target, &[])?;
        image.assert_same(&target)?;
        Ok(std::fs::remove_file(target)?)
    }

    fn everything(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let names = self.repo.objects("")?.into_iter();
        names
            .map(|name| Ok((name.clone(), self.repo.read(&name)?)))
            .collect()
    }
}

fn objects(result: &Value, field: &str) -> Vec<String> {
    let items = result[field].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["object"].as_str().map(str::to_owned))
        .collect()
}

/// The id under which a point goes on.
fn successor(result: &Value, point: &str) -> String {
    let repaired = result["repaired"].as_array().into_iter().flatten();
    repaired
        .filter(|item| item["points"] == serde_json::json!([point]))
        .find_map(|item| item["new_point"].as_str())
        .unwrap_or(point)
        .to_owned()
}

#[test]
fn every_kind_of_metadata_is_mended() -> Result<()> {
    let mut random = Random::from_environment("repair-kinds");
    for prefix in [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "map/",
    ] {
        for how in [
            Damage::Remove,
            Damage::Flip,
            Damage::Truncate,
            Damage::Empty,
        ] {
            let rig = rig("repair-kinds", &mut random)?;
            let names = rig.repo.objects(prefix)?;
            let object = names[random.index(names.len())].clone();
            let hurt = || format!("{how} of {object}");
            damage(&rig.repo, &object, how, None, &mut random)?;
            let before = rig.everything()?;
            let dry = rig
                .repo
                .ok(&["repair", "--dry-run"])
                .with_context(hurt)?
                .json()?;
            ensure!(rig.everything()? == before, "{}: a dry run wrote", hurt());
            let result = rig
                .repo
                .ok(&["repair", "--all"])
                .with_context(hurt)?
                .json()?;
            ensure!(
                objects(&dry, "repaired") == objects(&result, "repaired"),
                "{}: {dry} is not {result}",
                hurt()
            );
            ensure!(
                objects(&result, "repaired").contains(&object),
                "{}: {result}",
                hurt()
            );
            rig.repo
                .ok(&["verify", "--all", "--level", "data"])
                .with_context(hurt)?;
            let [first, second] = &rig.points;
            rig.restores(&successor(&result, first), &rig.old)
                .with_context(hurt)?;
            rig.restores(&successor(&result, second), &rig.new)
                .with_context(hurt)?;
            rig.restores("disk@latest", &rig.new).with_context(hurt)?;
            // And it is a parent like any other.
            let next = rig.repo.backup(&rig.new.path, "disk", &[])?;
            ensure!(
                next.number("new_bytes")? == 0,
                "{}: {}",
                hurt(),
                next.json()?
            );
            let idle = rig.repo.ok(&["repair"])?.json()?;
            ensure!(objects(&idle, "repaired").is_empty(), "{}: {idle}", hurt());
        }
    }
    Ok(())
}

#[test]
fn a_repaired_point_keeps_its_tags_and_its_place() -> Result<()> {
    let mut random = Random::from_environment("repair-tags");
    let rig = rig("repair-tags", &mut random)?;
    let slots = rig.repo.objects("snap/")?;
    rig.repo.remove(&slots[0])?;
    let result = rig.repo.ok(&["repair", &rig.points[0]])?.json()?;
    let again = successor(&result, &rig.points[0]);
    ensure!(again != rig.points[0], "{result}");
    let shown = rig.repo.ok(&["show", &again])?.json()?;
    ensure!(shown.to_string().contains("\"n\":\"1\""), "{shown}");
    ensure!(
        rig.repo.ok(&["show", "disk@latest"])?.json()?["point"] == rig.points[1].as_str(),
        "the repaired point must not become the latest"
    );
    Ok(())
}

#[test]
fn what_is_lost_is_told_with_ranges_and_what_to_do() -> Result<()> {
    let mut random = Random::from_environment("repair-lost");
    let rig = rig("repair-lost", &mut random)?;
    let segment = rig.repo.objects("seg/")?.remove(0);
    rig.repo.remove(&segment)?;
    let outcome = rig.repo.fails(65, &["repair"])?;
    let result = outcome.json()?;
    ensure!(objects(&result, "repaired").is_empty(), "{result}");
    ensure!(objects(&result, "lost").contains(&segment), "{result}");
    let lost = &result["lost"][0];
    ensure!(
        lost["ranges"]
            .as_array()
            .is_some_and(|ranges| !ranges.is_empty())
    );
    ensure!(lost["volume"] == "disk" && lost["message"].to_string().contains("--salvage"));
    outcome.names("salvage")?;
    // The source still has it.
    rig.repo.backup(&rig.new.path, "disk", &[])?;
    rig.repo.ok(&["verify", "disk@latest", "--level", "data"])?;
    rig.restores("disk@latest", &rig.new)
}

#[test]
fn a_map_and_its_liveness_lost_together_are_not_guessed() -> Result<()> {
    let mut random = Random::from_environment("repair-both");
    let rig = rig("repair-both", &mut random)?;
    for prefix in ["map/", "live/"] {
        for object in rig.repo.objects(prefix)? {
            rig.repo.remove(&object)?;
        }
    }
    let result = rig.repo.fails(65, &["repair"])?.json()?;
    ensure!(objects(&result, "repaired").is_empty(), "{result}");
    let lost = result["lost"].to_string();
    for point in &rig.points {
        ensure!(lost.contains(point.as_str()), "{point} is not in {lost}");
    }
    Ok(())
}

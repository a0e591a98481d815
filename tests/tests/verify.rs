//! What verify finds, whom it names, what it remembers, and that the next backup stores again what was found bad.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;
use tests::snaphaul::Snaphaul;
use tests::tamper::{Damage, damage};

struct Rig {
    scratch: Scratch,
    repo: Repo,
    image: Image,
    random: Random,
    point: String,
}

fn rig(name: &str, size: u64) -> Result<Rig> {
    let mut random = Random::from_environment(name);
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), size, &mut random)?;
    let point = repo.backup(&image.path, "disk", &[])?.string("point")?;
    Ok(Rig {
        scratch,
        repo,
        image,
        random,
        point,
    })
}

impl Rig {
    fn restores(&self, point: &str) -> Result<()> {
        let target = self.scratch.join("out");
        self.repo.restore(point, &target, &[])?;
        self.image.assert_same(&target)?;
        Ok(std::fs::remove_file(target)?)
    }

    /// Turns over one byte far behind the directory of a segment.
    fn break_a_body(&mut self) -> Result<String> {
        let object = self.repo.objects("seg/")?.remove(0);
        let mut body = self.repo.read(&object)?;
        let at = body.len() - 1000 - self.random.index(1000);
        body[at] ^= 1;
        self.repo.write(&object, &body)?;
        Ok(object)
    }
}

fn findings(result: &Value) -> Vec<Value> {
    result["errors"].as_array().cloned().unwrap_or_default()
}

/// The finding about an object says what, whom, and what next.
fn finding<'v>(findings: &'v [Value], object: &str) -> Result<&'v Value> {
    let found = findings.iter().find(|found| found["object"] == object);
    let found = found.with_context(|| format!("{object} is not among {findings:?}"))?;
    let message = found["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("; ") && message.len() > 30,
        "{object}: the message does not say what next: {found}"
    );
    Ok(found)
}

#[test]
fn each_damage_is_found_at_its_level_and_names_the_volume() -> Result<()> {
    let mut rig = rig("verify-levels", 4 * MIB)?;
    let other = Image::noise(&rig.scratch.join("other.img"), MIB, &mut rig.random)?;
    rig.repo.backup(&other.path, "other", &[])?;
    for prefix in [
        "config", "keys/", "open/", "snap/", "copy/", "live/", "map/", "seg/",
    ] {
        let object = rig.repo.objects(prefix)?.remove(0);
        let second = rig
            .repo
            .objects(prefix)?
            .pop()
            .filter(|name| *name != object);
        for (how, kind) in [
            (Damage::Remove, "missing"),
            (Damage::Empty, "truncated"),
            (Damage::Swap, "swapped"),
            (Damage::Flip, ""),
        ] {
            let swapped = match (how, &second) {
                (Damage::Swap, Some(second)) if !second.ends_with(".b") => Some(second.as_str()),
                (Damage::Swap, _) => continue,
                _ => None,
            };
            let undo = damage(&rig.repo, &object, how, swapped, &mut rig.random)?;
            let is_in_a_body = prefix == "seg/" && how == Damage::Flip;
            let level = if is_in_a_body { "data" } else { "metadata" };
            let result = rig
                .repo
                .fails(65, &["verify", "--all", "--level", level])?
                .json()?;
            let all = findings(&result);
            let found = finding(&all, &object).with_context(|| format!("{how} of {object}"))?;
            ensure!(
                kind.is_empty() || found["kind"] == kind,
                "{how} of {object}: {found}"
            );
            if prefix.starts_with("config") || prefix.starts_with("keys") {
                ensure!(found["points"] == serde_json::json!([]), "{found}");
            } else {
                ensure!(
                    found["volume"] == "disk" || found["volume"] == "other",
                    "{how} of {object}: {found}"
                );
            }
            undo.repair()?;
            for mark in rig.repo.objects("quarantine/")? {
                rig.repo.remove(&mark)?;
            }
        }
    }
    rig.repo
        .ok(&["verify", "--all", "--level", "data"])
        .map(drop)
}

#[test]
fn the_next_backup_heals_what_verify_found() -> Result<()> {
    let mut rig = rig("verify-heal", 6 * MIB)?;
    let object = rig.break_a_body()?;
    let missing = rig.repo.objects("seg/")?.remove(3);
    rig.repo.remove(&missing)?;
    rig.repo
        .fails(65, &["verify", "--all", "--level", "data"])?
        .names(&object)?
        .names(&missing)?;
    ensure!(rig.repo.objects("quarantine/")?.len() == 2);

    let healed = rig.repo.backup(&rig.image.path, "disk", &[])?;
    let stored = healed.number("new_bytes")?;
    ensure!(
        stored > 0 && stored <= MIB + 256 * 1024,
        "one segment and one chunk are stored again, not {stored} bytes"
    );
    rig.repo.ok(&["verify", "disk@latest", "--level", "data"])?;
    rig.restores("disk@latest")?;
    rig.repo.fails(65, &["verify", &rig.point])?;
    let result = rig
        .repo
        .fails(65, &["verify", "--all", "--level", "data"])?
        .json()?;
    for found in findings(&result) {
        ensure!(
            found["points"] == serde_json::json!([rig.point]),
            "only the old point is hurt: {found}"
        );
    }
    let again = rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(again.number("new_bytes")? == 0, "{}", again.json()?);
    Ok(())
}

#[test]
fn a_restore_that_meets_a_bad_chunk_marks_it_too() -> Result<()> {
    for salvage in [false, true] {
        let mut rig = rig("restore-marks", 4 * MIB)?;
        rig.break_a_body()?;
        let target = rig.scratch.join("out").display().to_string();
        let mut words = vec!["restore", "disk@latest", &target];
        if salvage {
            words.push("--salvage");
        }
        rig.repo.fails(65, &words)?;
        ensure!(rig.repo.objects("quarantine/")?.len() == 1);
        rig.repo.backup(&rig.image.path, "disk", &[])?;
        std::fs::remove_file(&target).ok();
        rig.restores("disk@latest")?;
        rig.repo.ok(&["verify", "disk@latest", "--level", "data"])?;
    }
    Ok(())
}

#[test]
fn a_lost_map_is_written_anew_by_the_next_backup() -> Result<()> {
    let rig = rig("verify-map", 4 * MIB)?;
    let map = rig.repo.objects("map/")?.remove(0);
    rig.repo.remove(&map)?;
    let result = rig.repo.fails(65, &["verify", "--all"])?.json()?;
    ensure!(finding(&findings(&result), &map)?["kind"] == "missing");
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    rig.repo.ok(&["verify", "disk@latest", "--level", "data"])?;
    rig.restores("disk@latest")
}

#[test]
fn samples_read_everything_in_as_many_runs_as_shares() -> Result<()> {
    let rig = rig("verify-sample", 8 * MIB)?;
    let whole = rig
        .repo
        .ok(&["verify", "--level", "data"])?
        .number("chunks")?;
    let mut chunks = 0;
    let mut memories = BTreeSet::new();
    for _ in 0..4 {
        let sample = rig.repo.ok(&["verify", "--sample-percent", "25"])?;
        let read = sample.number("chunks")?;
        ensure!(read > 0 && read < whole, "{read} of {whole}");
        chunks += read;
        let memory = rig.repo.objects("checked/")?;
        ensure!(memory.len() == 1, "{memory:?}");
        memories.extend(memory);
    }
    ensure!(
        chunks >= whole,
        "{chunks} of {whole} chunks in four quarters"
    );
    ensure!(memories.len() == 4, "each run writes an object of its own");
    rig.repo
        .fails(64, &["verify", "--sample-percent", "0"])?
        .names("--sample-percent")?;
    Ok(())
}

#[test]
fn a_restore_test_compares_the_content_hash() -> Result<()> {
    let mut rig = rig("restore-test", 5 * MIB)?;
    let result = rig
        .repo
        .ok(&["verify", "--restore-test", "disk@latest"])?
        .json()?;
    let shown = rig.repo.ok(&["show", "disk@latest"])?.text();
    let hash = result["content_hash"].as_str().context("no hash")?;
    ensure!(shown.contains(hash), "{hash} is not in {shown}");
    ensure!(result["restored_bytes"] == rig.image.size, "{result}");
    let object = rig.break_a_body()?;
    let result = rig
        .repo
        .fails(65, &["verify", "--restore-test", "disk@latest"])?
        .json()?;
    let all = findings(&result);
    let found = finding(&all, &object)?;
    ensure!(
        found["ranges"]
            .as_array()
            .is_some_and(|ranges| ranges.len() == 1)
    );
    ensure!(found["volume"] == "disk", "{found}");
    rig.repo
        .fails(64, &["verify", "--restore-test", "nobody@latest"])?;
    Ok(())
}

#[test]
fn errors_name_their_object_and_what_to_do() -> Result<()> {
    let rig = rig("error-words", MIB)?;
    let image = rig.image.path.display().to_string();
    for (words, object) in [
        (vec!["backup", &image, "--parent", "zz"], "zz"),
        (vec!["backup", &image, "--volume", "a b"], "a b"),
        (vec!["backup", &image, "--tag", "novalue"], "novalue"),
        (vec!["backup", "/nowhere/disk.img"], "/nowhere/disk.img"),
        (
            vec!["restore", "disk@latest", "/nowhere/out.img"],
            "/nowhere/out.img",
        ),
        (vec!["show", "disk@oldest"], "disk@oldest"),
    ] {
        let outcome = rig.repo.fails(64, &words)?;
        let error = outcome.json()?["error"].clone();
        ensure!(error["object"] == object, "{words:?}: {error}");
        ensure!(error["hint"].is_string(), "{words:?}: {error}");
        ensure!(
            !error.to_string().contains(".partial"),
            "{words:?}: {error}"
        );
    }
    for copy in ["config", "config.b"] {
        rig.repo.remove(copy)?;
    }
    let lost = rig.repo.fails(65, &["points"])?;
    lost.names("config")?.names("backup of the store")?;
    let help = Snaphaul::new(&["help", "restore"])?.run()?.expect(0)?;
    ensure!(help.text().contains("--salvage"), "{}", help.text());
    Ok(())
}

#[test]
fn a_source_that_is_cut_while_it_is_read_has_changed() -> Result<()> {
    let rig = rig("cut-source", 2 * MIB)?;
    let image = Image::sparse(&rig.scratch.join("big.img"), 64 * MIB)?;
    let mut random = Random::new(5);
    image.write_noise(0, 64 * MIB, &mut random)?;
    let path = image.path.display().to_string();
    let words = [
        "backup",
        &path,
        "--volume",
        "big",
        "--limit-upload",
        "8MiB/s",
    ];
    let mut run = rig.repo.command(&words)?.start()?;
    let before = rig.repo.objects("seg/")?.len();
    ensure!(run.wait_for(|| {
        rig.repo
            .objects("seg/")
            .is_ok_and(|names| names.len() > before + 2)
    })?);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)?
        .set_len(20 * MIB)?;
    let outcome = run.wait()?.expect(69)?;
    let error = outcome.json()?["error"].clone();
    ensure!(error["kind"] == "source-changed", "{error}");
    ensure!(error["hint"].is_string(), "{error}");
    Ok(())
}

#[test]
fn restored_bytes_must_go_somewhere() -> Result<()> {
    let rig = rig("closed-stdout", 2 * MIB)?;
    let secret = match &rig.repo.secret {
        tests::repo::Secret::KeyFile(file) => file.display().to_string(),
        _ => anyhow::bail!("a key file is expected"),
    };
    let command = format!(
        "{} restore disk@latest - --repo {} --key-file {secret}",
        tests::snaphaul::binary()?.display(),
        rig.repo.url
    );
    for (script, code) in [
        (format!("{command} >&-"), 69),
        (
            format!("{command} | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"),
            69,
        ),
        (format!("{command} >/dev/null"), 0),
    ] {
        let ended = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()?;
        ensure!(
            ended.status.code() == Some(code),
            "{script}: {}\n{}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    Ok(())
}

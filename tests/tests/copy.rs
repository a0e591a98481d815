//! Copies between repositories: other keys, other chunk sizes, only what differs, and nothing half done.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::image::{Image, MIB};
use tests::repo::{Repo, Secret, fresh};
use tests::scratch::Scratch;
use tests::snaphaul::{Outcome, Snaphaul};

/// Another repository beside the first, with its own key.
fn target(scratch: &Scratch, name: &str, flags: &[&str]) -> Result<Repo> {
    let mut target = Repo::directory(&scratch.join(name))?;
    if flags.contains(&"--no-encryption") {
        target = target.with_secret(Secret::None);
    }
    let mut words = vec!["init"];
    words.extend(flags);
    target.ok(&words)?;
    Ok(target)
}

fn copy_command(from: &Repo, to: &Repo, words: &[&str]) -> Result<Snaphaul> {
    let Secret::KeyFile(key) = &to.secret else {
        anyhow::bail!("the target has a key file");
    };
    let key = key.display().to_string();
    let mut all = vec!["copy", "--to", &to.url, "--to-key-file", &key];
    all.extend(words);
    from.command(&all)
}

fn copy(from: &Repo, to: &Repo, words: &[&str]) -> Result<Outcome> {
    copy_command(from, to, words)?.run()?.expect(0)
}

fn copies(outcome: &Outcome) -> Result<Vec<Value>> {
    let json = outcome.json()?;
    Ok(json["points"].as_array().context("points")?.clone())
}

fn restores(repo: &Repo, point: &str, scratch: &Scratch, image: &Path) -> Result<()> {
    let out = scratch.join("out");
    repo.restore(point, &out, &[])?;
    let same = std::fs::read(&out)? == std::fs::read(image)?;
    ensure!(same, "{point} restores to something else");
    Ok(std::fs::remove_file(out)?)
}

/// A history of edits, growth, shrinking and holes, copied point by point and at once, into chunks of other sizes.
#[test]
fn every_point_of_a_history_arrives_bit_for_bit() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-history")?;
    let small = ["--chunk-size", "64KiB", "--segment-size", "1MiB"];
    let large = [
        "--chunk-size",
        "1MiB",
        "--segment-size",
        "4MiB",
        "--no-encryption",
    ];
    let each = target(&scratch, "each", &small)?;
    let once = target(&scratch, "once", &large)?;
    let mut image = Image::mixed(&scratch.join("disk.img"), 40 * MIB + 777, &mut random)?;
    let mut kept = Vec::new();
    for step in 0..6u64 {
        match step {
            0 => {}
            1 | 4 => image.edit(5, &mut random)?,
            2 => image.resize(70 * MIB + 99)?,
            3 => image.resize(33 * MIB + 12_345)?,
            _ => image.punch(2 * MIB + 100, 9 * MIB)?,
        }
        let point = repo
            .backup(&image.path, "db", &["--tag", "kind=test"])?
            .string("point")?;
        let saved = image.copy_to(&scratch.join(&format!("step-{step}.img")))?;
        let outcome = copy(&repo, &each, &["db@latest"])?;
        let copied = copies(&outcome)?;
        ensure!(
            copied.len() == 1 && copied[0]["point"] == point.as_str(),
            "{copied:?}"
        );
        ensure!(copied[0]["base"].is_null() == (step == 0), "{copied:?}");
        kept.push((point, saved));
    }
    // The secret of the first must not be tried on a repository that has none: that would hide a swapped one.
    repo.fails(64, &["copy", "--all", "--to", &once.url])?;
    repo.ok(&["copy", "--all", "--to", &once.url, "--to-no-encryption"])?;
    for target in [&each, &once] {
        let listed = target.ok(&["points"])?.json()?;
        let points = listed["points"].as_array().context("points")?;
        ensure!(points.len() == kept.len());
        for (copy, (original, image)) in points.iter().zip(&kept) {
            let id = copy["point"].as_str().context("id")?;
            restores(target, id, &scratch, &image.path)?;
            let shown = repo.ok(&["show", original])?.json()?;
            for field in ["created", "tags", "group", "size_bytes", "volume"] {
                ensure!(
                    copy[field] == shown[field],
                    "{field}: {copy} is not {shown}"
                );
            }
        }
        target.ok(&["verify", "--level", "data"])?;
    }
    Ok(())
}

#[test]
fn a_second_copy_fetches_and_stores_only_the_change() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-increment")?;
    let to = target(&scratch, "to", &["--segment-size", "1MiB"])?;
    let image = Image::noise(&scratch.join("disk.img"), 64 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    copy(&repo, &to, &["--all"])?;
    image.write_noise(20 * MIB, 300_000, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let second = copy(&repo, &to, &["--all"])?;
    ensure!(second.number("present")? == 1 && copies(&second)?.len() == 1);
    ensure!(
        second.number("fetched_bytes")? < 3 * MIB,
        "{}",
        second.json()?
    );
    ensure!(
        second.number("stored_bytes")? < 2 * MIB,
        "{}",
        second.json()?
    );
    let third = copy(&repo, &to, &["--all"])?;
    ensure!(third.number("present")? == 2 && copies(&third)?.is_empty());
    restores(&to, "disk@latest", &scratch, &image.path)
}

#[test]
fn a_copy_of_a_copy_is_known_where_it_came_from() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-chain")?;
    let (second, third) = (
        target(&scratch, "second", &[])?,
        target(&scratch, "third", &[])?,
    );
    let image = Image::noise(&scratch.join("disk.img"), 3 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    copy(&repo, &second, &["--all"])?;
    copy(&second, &third, &["--all"])?;
    restores(&third, "disk@latest", &scratch, &image.path)?;
    // Back again, and around the other way: everything is there already.
    for (from, to) in [(&third, &repo), (&second, &repo), (&repo, &third)] {
        let outcome = copy(from, to, &["--all"])?;
        ensure!(outcome.number("present")? == 1 && copies(&outcome)?.is_empty());
    }
    Ok(())
}

#[test]
fn a_killed_copy_is_resumed() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-kill")?;
    let to = target(&scratch, "to", &["--segment-size", "1MiB"])?;
    let image = Image::noise(&scratch.join("disk.img"), 24 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let mut run = copy_command(&repo, &to, &["--all", "--limit-upload", "8MiB/s"])?.start()?;
    let stored = run.wait_for(|| to.objects("seg/").is_ok_and(|names| names.len() >= 6))?;
    ensure!(stored, "the copy ended before it could be killed");
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    ensure!(to.ok(&["points"])?.json()?["points"] == serde_json::json!([]));
    let resumed = copy(&repo, &to, &["--all"])?;
    let bytes = copies(&resumed)?[0]["resumed_bytes"]
        .as_u64()
        .context("resumed")?;
    ensure!(bytes >= 5 * MIB, "only {bytes} bytes were taken over");
    restores(&to, "disk@latest", &scratch, &image.path)?;
    to.ok(&["verify", "--level", "data"])?;
    Ok(())
}

#[test]
fn a_damaged_chunk_is_named_and_never_copied() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-damage")?;
    let to = target(&scratch, "to", &[])?;
    let image = Image::noise(&scratch.join("disk.img"), 6 * MIB, &mut random)?;
    let other = Image::noise(&scratch.join("other.img"), 2 * MIB, &mut random)?;
    repo.backup(&image.path, "a", &[])?;
    let segment = repo.objects("seg/")?.remove(0);
    repo.backup(&other.path, "b", &[])?;
    let mut body = repo.read(&segment)?;
    let middle = body.len() / 2;
    body[middle] ^= 1;
    repo.write(&segment, &body)?;
    let outcome = copy_command(&repo, &to, &["--all"])?.run()?.expect(65)?;
    ensure!(
        outcome.complaint()?.contains(&segment),
        "{}",
        outcome.complaint()?
    );
    let listed = to.ok(&["points"])?.json()?;
    let points = listed["points"].as_array().context("points")?;
    ensure!(points.len() == 1 && points[0]["volume"] == "b", "{listed}");
    restores(&to, "b@latest", &scratch, &other.path)
}

#[test]
fn a_damaged_target_costs_time_not_the_copy() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-mend")?;
    let to = target(&scratch, "to", &["--segment-size", "1MiB"])?;
    let image = Image::noise(&scratch.join("disk.img"), 6 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    copy(&repo, &to, &["--all"])?;
    let map = to.objects("map/")?.remove(0);
    to.remove(&map)?;
    image.write_noise(MIB, 4096, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    copy(&repo, &to, &["disk@latest"])?;
    restores(&to, "disk@latest", &scratch, &image.path)
}

/// The chunks of the target are larger, so that its last one changes although none of the source does.
#[test]
fn a_volume_that_grows_and_shrinks_by_whole_chunks_arrives() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-resize")?;
    let to = target(&scratch, "to", &["--chunk-size", "1MiB"])?;
    let mut image = Image::noise(&scratch.join("disk.img"), 10 * MIB, &mut random)?;
    let sizes = [
        10 * MIB,
        9 * MIB + (128 << 10),
        12 * MIB + (256 << 10),
        13 * MIB,
    ];
    for size in sizes {
        image.resize(size)?;
        repo.backup(&image.path, "disk", &[])?;
        copy(&repo, &to, &["--all"])?;
        restores(&to, "disk@latest", &scratch, &image.path)?;
    }
    to.ok(&["verify", "--level", "data"])?;
    Ok(())
}

#[test]
fn a_lost_map_of_the_source_stops_only_what_needs_it() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-source-map")?;
    let to = target(&scratch, "to", &[])?;
    let image = Image::noise(&scratch.join("disk.img"), 6 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let base = repo.objects("map/")?;
    copy(&repo, &to, &["--all"])?;
    image.write_noise(MIB, 4096, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    // What differs cannot be told without the map of the base: everything is read then.
    for map in &base {
        repo.remove(map)?;
    }
    copy(&repo, &to, &["disk@latest"])?;
    restores(&to, "disk@latest", &scratch, &image.path)?;
    // A point without its own map is named, and the others are copied.
    let third = target(&scratch, "third", &[])?;
    let outcome = copy_command(&repo, &third, &["--all"])?.run()?.expect(65)?;
    ensure!(
        outcome.complaint()?.contains("map/"),
        "{}",
        outcome.complaint()?
    );
    restores(&third, "disk@latest", &scratch, &image.path)
}

#[test]
fn a_mark_in_the_target_makes_a_copy_read_everything() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-mark")?;
    let to = target(&scratch, "to", &["--segment-size", "1MiB"])?;
    // More than one leaf of the map, the marked chunk in the last.
    let image = Image::noise(&scratch.join("disk.img"), 40 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    copy(&repo, &to, &["--all"])?;
    let segment = to.objects("seg/")?.pop().context("segments")?;
    let mut body = to.read(&segment)?;
    let middle = body.len() / 2;
    body[middle] ^= 1;
    to.write(&segment, &body)?;
    to.fails(65, &["verify", "--level", "data"])?;
    image.write_noise(MIB, 4096, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let outcome = copy(&repo, &to, &["disk@latest"])?;
    ensure!(
        outcome.number("fetched_bytes")? > 30 * MIB,
        "{}",
        outcome.json()?
    );
    let shown = to.ok(&["show", "disk@latest"])?.json()?;
    ensure!(shown["zero_bytes"].as_u64() == Some(0), "{shown}");
    restores(&to, "disk@latest", &scratch, &image.path)?;
    to.ok(&["verify", "disk@latest", "--level", "data"])?;
    Ok(())
}

#[test]
fn what_cannot_be_copied_is_refused() -> Result<()> {
    let (scratch, repo, mut random) = fresh("copy-refusals")?;
    let to = target(&scratch, "to", &[])?;
    let image = Image::noise(&scratch.join("disk.img"), MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    repo.fails(64, &["copy", "--all", "--to", &repo.url])?
        .names("itself")?;
    repo.fails(64, &["copy", "--to", &to.url])?;
    let nowhere = scratch.join("nowhere").display().to_string();
    repo.fails(64, &["copy", "--all", "--to", &nowhere])?;
    // The key of the first does not open the second.
    repo.fails(64, &["copy", "--all", "--to", &to.url])?;
    copy_command(&repo, &to, &["ffffffff"])?.run()?.expect(64)?;
    ensure!(to.objects("")?.iter().all(|name| !name.starts_with("seg/")));
    Ok(())
}

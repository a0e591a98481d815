//! What a repository tells of its points: `points`, `show`, `diff` and `verify` on an intact one.

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::repo::fresh;

const CHUNK: u64 = 128 << 10;

#[test]
fn points_and_show_tell_what_was_recorded() -> Result<()> {
    let (scratch, repo, mut random) = fresh("points")?;
    ensure!(repo.ok(&["points"])?.json()?["points"] == serde_json::json!([]));
    let image = Image::noise(&scratch.join("disk.img"), MIB, &mut random)?;
    let flags = ["--tag", "host=db1", "--tag", "kind=a=b", "--group", "set-7"];
    let first = repo.backup(&image.path, "db", &flags)?;
    let second = repo.backup(&image.path, "db", &[])?;
    repo.backup(&image.path, "web", &[])?;

    let all = repo.ok(&["points"])?.json()?;
    ensure!(
        all["points"]
            .as_array()
            .is_some_and(|points| points.len() == 3),
        "{all}"
    );
    let listed = repo.ok(&["points", "--volume", "db"])?.json()?;
    let points = listed["points"].as_array().cloned().unwrap_or_default();
    ensure!(
        points.len() == 2 && points[0]["point"] == first.string("point")?.as_str(),
        "{listed}"
    );
    ensure!(
        points[1]["parent"] == points[0]["point"]
            && points[1]["point"] == second.string("point")?.as_str()
    );
    ensure!(points[0]["tags"] == serde_json::json!({"host": "db1", "kind": "a=b"}));
    ensure!(
        points[0]["group"] == "set-7"
            && points[0]["size_bytes"] == MIB
            && points[0]["new_bytes"] == MIB
    );
    // A manifest cannot count itself, its copy and what comes after it.
    let stored = points[0]["stored_bytes"].as_u64().unwrap_or(0);
    ensure!(
        (MIB..=first.number("stored_bytes")?).contains(&stored),
        "{listed}"
    );
    ensure!(points[0]["state"] == "crash", "{listed}");
    let created = points[0]["created"].as_str().unwrap_or_default();
    ensure!(
        created.starts_with("20") && created.ends_with('Z') && created.contains('T'),
        "no RFC 3339 time: {created}"
    );

    let id = first.string("point")?;
    for name in [id.as_str(), &id[..10], &id[..16]] {
        let shown = repo.ok(&["show", name])?.json()?;
        ensure!(
            shown["point"] == id.as_str() && shown["tags"]["host"] == "db1",
            "{shown}"
        );
    }
    ensure!(repo.ok(&["show", "db@latest"])?.string("point")? == second.string("point")?);
    for unknown in [
        "db@first",
        "nobody@latest",
        "ffffffffffffffff-00000000",
        "zz",
        "",
    ] {
        repo.fails(64, &["show", unknown])?;
    }
    for text in [
        repo.plain(&["points"])?.run()?.expect(0)?.text(),
        repo.plain(&["show", &id])?.run()?.expect(0)?.text(),
    ] {
        ensure!(
            text.contains(&id) && text.contains("db"),
            "a person sees no point in {text}"
        );
    }
    Ok(())
}

#[test]
fn diff_lists_what_changed_and_nothing_more_than_its_chunks() -> Result<()> {
    let (scratch, repo, mut random) = fresh("diff")?;
    let image = Image::noise(&scratch.join("disk.img"), 80 * MIB + 100, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    image.write_noise(CHUNK * 3 + 5, 10, &mut random)?;
    image.write_noise(40 * MIB - 1, 2, &mut random)?;
    image.write_zeros(60 * MIB, CHUNK)?;
    image.write_noise(80 * MIB, 100, &mut random)?;
    let second = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let outcome = repo.ok(&["diff", &first, &second])?;
    let lines = outcome.lines()?;
    let extents: Vec<(u64, u64)> = lines
        .iter()
        .filter(|line| line["type"] == "extent")
        .map(|line| {
            (
                line["offset"].as_u64().unwrap_or(u64::MAX),
                line["length"].as_u64().unwrap_or(u64::MAX),
            )
        })
        .collect();
    let expected = [
        (CHUNK * 3, CHUNK),
        (40 * MIB - CHUNK, 2 * CHUNK),
        (60 * MIB, CHUNK),
        (80 * MIB, 100),
    ];
    ensure!(extents == expected, "{extents:?}");
    ensure!(outcome.number("changed_bytes")? == expected.iter().map(|(_, len)| len).sum::<u64>());
    ensure!(outcome.number("extents")? == 4);
    let same = repo.ok(&["diff", &second, &second])?;
    ensure!(same.number("changed_bytes")? == 0 && same.lines()?.len() == 1);
    repo.fails(64, &["diff", &first, "ffffffffffffffff-00000000"])?;
    Ok(())
}

#[test]
fn verify_reads_as_much_as_asked() -> Result<()> {
    let (scratch, repo, mut random) = fresh("verify")?;
    let image = Image::noise(&scratch.join("disk.img"), 8 * MIB, &mut random)?;
    let point = repo.backup(&image.path, "disk", &[])?.string("point")?;
    repo.backup(&image.path, "other", &[])?;
    let mut read = Vec::new();
    for level in ["metadata", "sample", "data"] {
        let verified = repo.ok(&["verify", "--all", "--level", level])?;
        ensure!(verified.json()?["errors"] == serde_json::json!([]));
        ensure!(verified.number("points")? == 2 && verified.string("level")? == level);
        read.push(verified.number("read_bytes")?);
    }
    ensure!(
        read[0] < read[2] && read[2] >= 16 * MIB,
        "bytes read: {read:?}"
    );
    ensure!(
        repo.ok(&["verify", &point, "--level", "data"])?
            .number("points")?
            == 1
    );
    ensure!(
        repo.ok(&["verify"])?.number("points")? == 2,
        "without points verify takes all"
    );
    repo.fails(64, &["verify", "ffffffffffffffff-00000000"])?;
    repo.fails(64, &["verify", "--level", "everything"])?;
    ensure!(
        repo.objects("open/")?.len() == 2,
        "readers left their records behind"
    );
    Ok(())
}

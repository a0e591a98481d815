//! Whole repositories in a bucket.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::in_process::InProcess;
use tests::proxy::Proxy;
use tests::random::Random;
use tests::repo::Repo;
use tests::server::S3Server;
use tests::tamper::{Damage, Kind, damage};

/// Two points, everything that reads them, and nothing left behind.
pub(crate) fn round_trip(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("s3-round-trip");
    let repo = Repo::bucket(&site.bucket, "deep/er", site.scratch.path())?;
    let made = repo.init()?.json()?;
    eprintln!("{}: {made}", site.endpoint.name);
    ensure!(
        repo.objects("")?.len() == 4,
        "init left more than config and key: {:?}",
        repo.objects("")?
    );
    ensure!(
        site.bucket.list("")?.len() == 4,
        "init left objects outside its prefix"
    );
    repo.fails(64, &["init"])?;
    repo.ok(&["init", "--if-missing"])?;
    let image = Image::mixed(&site.scratch.join("disk.img"), 20 * MIB + 333, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?;
    let before = image.copy_to(&site.scratch.join("before"))?;
    image.write_noise(9 * MIB, 4096, &mut random)?;
    let second = repo.backup(&image.path, "disk", &[])?;
    ensure!(
        second.number("new_bytes")? == 128 << 10
            && second.string("parent")? == first.string("point")?
    );
    for (point, image) in [(first, before), (second, image)] {
        let target = site.scratch.join("out");
        repo.restore(&point.string("point")?, &target, &[])?;
        image.assert_same(&target)?;
        std::fs::remove_file(&target)?;
    }
    repo.ok(&["verify", "--all", "--level", "data"])?;
    ensure!(
        repo.ok(&["points"])?.json()?["points"]
            .as_array()
            .is_some_and(|points| points.len() == 2)
    );
    ensure!(
        repo.objects("open/")?.len() == 2,
        "readers left their records: {:?}",
        repo.objects("open/")?
    );
    Ok(())
}

/// The store decides; the losers say so and leave nothing that matters.
pub(crate) fn one_of_two_inits_wins(site: &Site) -> Result<()> {
    for round in 0..3 {
        let repo = Repo::bucket(&site.bucket, &format!("round-{round}"), site.scratch.path())?;
        let runs: Result<Vec<_>> = (0..3).map(|_| repo.command(&["init"])?.start()).collect();
        let mut codes = Vec::new();
        for run in runs? {
            codes.push(run.wait()?.status.code());
        }
        codes.sort_unstable();
        ensure!(
            codes == [Some(0), Some(64), Some(64)],
            "round {round}: {codes:?}"
        );
        repo.ok(&["points"])?;
    }
    Ok(())
}

pub(crate) fn a_killed_backup_is_resumed(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("s3-resume");
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let image = Image::noise(&site.scratch.join("disk.img"), 16 * MIB, &mut random)?;
    let source = image.path.display().to_string();
    let words = [
        "backup",
        source.as_str(),
        "--volume",
        "disk",
        "--limit-upload",
        "3MiB/s",
    ];
    let mut run = repo.command(&words)?.start()?;
    ensure!(run.wait_for(|| repo.objects("seg/").is_ok_and(|names| names.len() >= 3))?);
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    let resumed = repo.backup(&image.path, "disk", &[])?;
    ensure!(
        resumed.number("resumed_bytes")? >= 2 * MIB,
        "{}",
        resumed.json()?
    );
    repo.restore("disk@latest", &site.scratch.join("out"), &[])?;
    image.assert_same(&site.scratch.join("out"))
}

pub(crate) fn runs_at_once(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("s3-at-once");
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let image = Image::mixed(&site.scratch.join("disk.img"), 6 * MIB, &mut random)?;
    let source = image.path.display().to_string();
    let runs: Result<Vec<_>> = ["same", "same", "other"]
        .iter()
        .map(|volume| {
            repo.command(&["backup", &source, "--volume", volume])?
                .start()
        })
        .collect();
    let mut points = Vec::new();
    for run in runs? {
        points.push(run.wait()?.expect(0)?.string("point")?);
    }
    for point in points {
        let target = site.scratch.join("out");
        repo.restore(&point, &target, &["--force"])?;
        image.assert_same(&target)?;
    }
    repo.ok(&["verify", "--all", "--level", "data"]).map(drop)
}

/// The matrix of damage runs on directories; here one of each, to see that nothing depends on the store.
pub(crate) fn damage_is_found(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("s3-damage");
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let image = Image::noise(&site.scratch.join("disk.img"), 3 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    for (kind, how) in [
        (Kind::Config, Damage::Remove),
        (Kind::Key, Damage::Truncate),
        (Kind::Segment, Damage::Flip),
        (Kind::Segment, Damage::Remove),
        (Kind::Map, Damage::Truncate),
        (Kind::Liveness, Damage::Remove),
        (Kind::Manifest, Damage::Flip),
    ] {
        let name = kind.objects(&repo)?.remove(0);
        let undo = damage(&repo, &name, how, None, &mut random)?;
        repo.fails(65, &["verify", "--level", "data"])
            .and_then(|outcome| outcome.names(&name).map(drop))
            .with_context(|| format!("{how} of {name}"))?;
        undo.repair()?;
    }
    repo.ok(&["verify", "--level", "data"]).map(drop)
}

/// `a` is no prefix of `ab` as far as repositories go.
pub(crate) fn prefixes_do_not_meet(site: &Site) -> Result<()> {
    let mut random = Random::new(8);
    let image = Image::noise(&site.scratch.join("disk.img"), MIB, &mut random)?;
    let repos =
        ["a", "ab", "a/b"].map(|prefix| Repo::bucket(&site.bucket, prefix, site.scratch.path()));
    for repo in repos.iter().flatten() {
        repo.init()?;
    }
    for repo in repos.iter().flatten() {
        repo.backup(&image.path, "disk", &[])?;
        ensure!(
            repo.ok(&["points"])?.json()?["points"]
                .as_array()
                .is_some_and(|points| points.len() == 1)
        );
    }
    Ok(())
}

pub(crate) fn without_conditional_writes(site: &Site) -> Result<()> {
    let mut random = Random::new(9);
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    let made = repo.ok(&["init", "--no-conditional-writes"])?.json()?;
    ensure!(made["conditional_writes"] == false, "{made}");
    let image = Image::mixed(&site.scratch.join("disk.img"), 4 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    repo.backup(&image.path, "disk", &[])?;
    repo.restore("disk@latest", &site.scratch.join("out"), &[])?;
    image.assert_same(&site.scratch.join("out"))?;
    repo.ok(&["verify", "--level", "data"]).map(drop)
}

/// A server whose create-only PUT looks first and writes later lets several callers win; `init` must not trust it.
pub(crate) fn a_store_that_lies_is_found_out(site: &Site) -> Result<()> {
    let server = InProcess::start_racy()?;
    let bucket = server.endpoint().bucket("bucket")?;
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    let made = repo.init()?.json()?;
    ensure!(
        made["conditional_writes"] == false,
        "eight creates at once all won and the probe believed the server: {made}"
    );
    Ok(())
}

/// Requests cost money: a small incremental is a handful.
pub(crate) fn requests_are_few(site: &Site) -> Result<()> {
    let mut random = Random::new(10);
    let proxy = Proxy::start(&site.endpoint)?;
    let bucket = tests::bucket::Bucket::new(proxy.endpoint(), &site.bucket.name);
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    repo.ok(&["init"])?;
    let image = Image::noise(&site.scratch.join("disk.img"), 40 * MIB, &mut random)?;
    proxy.forget_requests();
    let first = repo.backup(&image.path, "disk", &[])?;
    let puts = proxy
        .requests()
        .iter()
        .filter(|request| request.starts_with("PUT"))
        .count() as u64;
    ensure!(
        puts == first.number("put_requests")?,
        "counted {puts}: {}",
        first.json()?
    );
    // 40 MiB of noise are two segments of 32 MiB; the rest is open, map, liveness, slot and its copy.
    ensure!(puts <= 8, "{:?}", proxy.requests());
    for piece in 0..10 {
        image.write_noise(piece * 4 * MIB, 4096, &mut random)?;
    }
    proxy.forget_requests();
    repo.backup(&image.path, "disk", &[])?;
    let requests = proxy.requests();
    let lists = requests
        .iter()
        .filter(|request| request.contains("list-type"))
        .count();
    ensure!(requests.len() <= 40 && lists <= 5, "{requests:#?}");
    Ok(())
}

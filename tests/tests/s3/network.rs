//! What networks do: refuse, storm, cut, lose answers, crawl, fall silent. Behind the breaking proxy.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::bucket::Bucket;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::proxy::{Fault, Proxy, Rule};
use tests::random::Random;
use tests::repo::Repo;
use tests::server::DeafPort;

struct Rig {
    proxy: Proxy,
    /// The repository through the proxy.
    repo: Repo,
    image: Image,
}

fn rig(site: &Site, name: &str, size: u64) -> Result<Rig> {
    let proxy = Proxy::start(&site.endpoint)?;
    let bucket = Bucket::new(proxy.endpoint(), &site.bucket.name);
    let repo = Repo::bucket(&bucket, name, site.scratch.path())?;
    repo.init()?;
    let image = Image::noise(
        &site.scratch.join("disk.img"),
        size,
        &mut Random::from_environment(name),
    )?;
    proxy.forget_requests();
    Ok(Rig { proxy, repo, image })
}

impl Rig {
    fn restores(&self, site: &Site) -> Result<()> {
        self.proxy.heal();
        let target = site.scratch.join("out");
        self.repo.restore("disk@latest", &target, &["--force"])?;
        self.image.assert_same(&target)?;
        self.repo
            .ok(&["verify", "--all", "--level", "data"])
            .map(drop)
    }

    fn points(&self) -> Result<usize> {
        Ok(self.repo.ok(&["points"])?.json()?["points"]
            .as_array()
            .map_or(0, Vec::len))
    }
}

pub(crate) fn endpoint_down(site: &Site) -> Result<()> {
    let deaf = DeafPort::take()?;
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    for url in [
        format!("http://127.0.0.1:{}", deaf.number()),
        "http://no-such-host.invalid:9000".to_owned(),
    ] {
        let begin = Instant::now();
        // How long a machine looks for a name is its own affair.
        let outcome = repo
            .with_flag("--s3-endpoint", &url)
            .command(&["points"])?
            .env("RES_OPTIONS", "timeout:1 attempts:1")
            .run()?
            .expect(69)?;
        outcome.names(&url)?;
        ensure!(
            begin.elapsed() < Duration::from_secs(60),
            "{url} took {:?}",
            begin.elapsed()
        );
    }
    Ok(())
}

/// Every fourth request or so is refused, in bursts: the run slows down and succeeds.
pub(crate) fn a_storm_that_passes(site: &Site) -> Result<()> {
    let rig = rig(site, "storm", 12 * MIB)?;
    for (status, skip) in [(503, 3), (500, 8), (503, 12), (429, 20)] {
        rig.proxy.add(
            Rule::every("", "", Fault::Status(status))
                .after(skip)
                .times(3),
        );
    }
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(
        rig.proxy.broken() >= 6,
        "only {} requests were broken",
        rig.proxy.broken()
    );
    rig.restores(site)?;
    ensure!(rig.points()? == 1);
    Ok(())
}

/// Refused for ever: 69, the object named, no point; afterwards the same command works.
pub(crate) fn a_storm_that_stays(site: &Site) -> Result<()> {
    let rig = rig(site, "endless", 4 * MIB)?;
    rig.proxy
        .add(Rule::every("PUT", "/seg/", Fault::Status(503)));
    let source = rig.image.path.display().to_string();
    let outcome = rig
        .repo
        .fails(69, &["backup", &source, "--volume", "disk"])?;
    outcome.names("seg/")?;
    ensure!(
        outcome.json()?["error"]["kind"] == "unavailable",
        "{}",
        outcome.json()?
    );
    rig.proxy.heal();
    ensure!(rig.points()? == 0);
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    rig.restores(site)
}

/// Connections break in the middle of bodies, of segments, maps and the commit.
pub(crate) fn cut_in_the_middle(site: &Site) -> Result<()> {
    let rig = rig(site, "cut", 8 * MIB)?;
    for (path, bytes) in [
        ("/seg/", 0),
        ("/seg/", 1),
        ("/seg/", 700_000),
        ("/map/", 10),
        ("/live/", 5),
        ("/snap/", 100),
        ("/copy/", 1),
    ] {
        rig.proxy
            .add(Rule::once("PUT", path, Fault::CutRequest(bytes)));
    }
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(
        rig.proxy.broken() == 7,
        "{} cuts, {:?}",
        rig.proxy.broken(),
        rig.proxy.requests()
    );
    rig.restores(site)?;
    ensure!(rig.points()? == 1);
    Ok(())
}

/// The server did it and the client cannot know. For create-only PUTs that is the hard case: who won?
pub(crate) fn lost_answers(site: &Site) -> Result<()> {
    let rig = rig(site, "lost", 4 * MIB)?;
    for path in ["/seg/", "/map/", "/live/", "/snap/", "/copy/"] {
        rig.proxy.add(Rule::once("PUT", path, Fault::LostAnswer));
    }
    let point = rig
        .repo
        .backup(&rig.image.path, "disk", &[])?
        .string("point")?;
    ensure!(
        rig.proxy.broken() == 5,
        "{} answers lost",
        rig.proxy.broken()
    );
    rig.restores(site)?;
    ensure!(rig.points()? == 1, "a lost answer made a second point");
    ensure!(rig.repo.ok(&["show", "disk@latest"])?.string("point")? == point);

    // `open` is sent once per session: after doubt a new session begins, and the run goes on or says what to do.
    rig.proxy
        .add(Rule::once("PUT", "/open/", Fault::LostAnswer));
    let outcome = rig
        .repo
        .command(&[
            "backup",
            &rig.image.path.display().to_string(),
            "--volume",
            "disk",
        ])?
        .run()?;
    ensure!(
        matches!(outcome.status.code(), Some(0 | 69)),
        "{}",
        outcome.stderr
    );
    rig.proxy.heal();
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    rig.restores(site)?;

    // The race of an `init` decided by a lost answer.
    let other = rig
        .repo
        .with_url(&format!("s3://{}/other", site.bucket.name));
    rig.proxy
        .add(Rule::once("PUT", "/other/config", Fault::LostAnswer));
    other.ok(&["init"])?;
    other.fails(64, &["init"]).map(drop)
}

pub(crate) fn broken_reads(site: &Site) -> Result<()> {
    let rig = rig(site, "reads", 8 * MIB)?;
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    for (path, fault) in [
        ("/seg/", Fault::CutAnswer(1)),
        ("/seg/", Fault::CutAnswer(200_000)),
        ("/seg/", Fault::Status(503)),
        ("/map/", Fault::CutAnswer(20)),
        ("/snap/", Fault::LostAnswer),
        ("/config", Fault::CutAnswer(10)),
        ("list-type", Fault::CutAnswer(30)),
    ] {
        rig.proxy.add(Rule::once("GET", path, fault));
    }
    let target = site.scratch.join("first");
    rig.repo.restore("disk@latest", &target, &[])?;
    rig.image.assert_same(&target)?;
    ensure!(
        rig.proxy.broken() >= 5,
        "only {} reads were broken: {:?}",
        rig.proxy.broken(),
        rig.proxy.requests()
    );
    rig.restores(site)
}

/// A line of half a megabyte a second is slow, not down.
pub(crate) fn slow_lines(site: &Site) -> Result<()> {
    let rig = rig(site, "slow", 4 * MIB)?;
    rig.proxy.slow_down(500_000);
    rig.proxy
        .add(Rule::every("", "", Fault::Delay(Duration::from_millis(300))).times(10));
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    rig.restores(site)
}

/// The server goes away for good in the middle of a run.
pub(crate) fn down_in_the_middle(site: &Site) -> Result<()> {
    let rig = rig(site, "gone", 12 * MIB)?;
    let source = rig.image.path.display().to_string();
    let words = [
        "backup",
        source.as_str(),
        "--volume",
        "disk",
        "--limit-upload",
        "4MiB/s",
    ];
    let mut run = rig.repo.command(&words)?.start()?;
    let seen = |part: &str| {
        rig.proxy
            .requests()
            .iter()
            .filter(|request| request.contains(part))
            .count()
    };
    ensure!(
        run.wait_for(|| seen("PUT ") >= 5)?,
        "{:?}",
        rig.proxy.requests()
    );
    let Rig { proxy, repo, image } = rig;
    drop(proxy);
    run.wait()?.expect(69)?;
    let direct = repo.with_flag("--s3-endpoint", &site.endpoint.url);
    ensure!(direct.ok(&["points"])?.json()?["points"] == serde_json::json!([]));
    let resumed = direct.backup(&image.path, "disk", &[])?;
    ensure!(resumed.number("resumed_bytes")? > 0, "{}", resumed.json()?);
    direct.restore("disk@latest", &site.scratch.join("out"), &[])?;
    image
        .assert_same(&site.scratch.join("out"))
        .context("resumed after the server went away")
}

/// Requests that are never answered run into their deadline and are sent again.
pub(crate) fn silence(site: &Site) -> Result<()> {
    let rig = rig(site, "silence", 3 * MIB)?;
    rig.proxy.add(Rule::once("PUT", "/seg/", Fault::Silence));
    rig.proxy.add(Rule::once("PUT", "/snap/", Fault::Silence));
    rig.repo.backup(&rig.image.path, "disk", &[])?;
    ensure!(rig.proxy.broken() == 2);
    rig.restores(site)
}

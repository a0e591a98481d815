//! A repository in a bucket keeps itself healthy: copies both ways, forget, gc, repair and keys on every server.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::{Repo, Secret};
use tests::snaphaul::Snaphaul;

/// `copy` between two repositories, at least one of which is a bucket of this server.
fn copy(from: &Repo, to: &Repo, site: &Site) -> Result<Snaphaul> {
    let Secret::KeyFile(key) = &to.secret else {
        anyhow::bail!("the target has a key file");
    };
    // What reaches the bucket is known to the one of the two that lies in it.
    let bucket = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    let mut command = from
        .command(&["copy", "--all", "--to", &to.url])?
        .flag("--to-key-file", key);
    for (name, value) in &bucket.env {
        command = command.env(name, value);
    }
    if to.url.starts_with("s3:") {
        for word in &bucket.flags {
            command = command.args(&[&word.replace("--s3-", "--to-s3-")]);
        }
    }
    Ok(command)
}

struct Rig<'a> {
    site: &'a Site,
    repo: Repo,
    image: Image,
    random: Random,
    /// Ids, and what they hold.
    points: Vec<(String, Image)>,
}

impl Rig<'_> {
    fn backup(&mut self) -> Result<()> {
        if !self.points.is_empty() {
            for _ in 0..4 {
                let at = self.random.below(7 * MIB);
                self.image.write_noise(at, MIB, &mut self.random)?;
            }
        }
        let made = self.repo.backup(&self.image.path, "disk", &[])?;
        let kept = format!("kept-{}", self.points.len());
        let kept = self.image.copy_to(&self.site.scratch.join(&kept))?;
        self.points.push((made.string("point")?, kept));
        Ok(())
    }

    fn restores(&self, repo: &Repo, point: &str, image: &Image) -> Result<()> {
        let target = self.site.scratch.join("out");
        repo.restore(point, &target, &[])?;
        image
            .assert_same(&target)
            .with_context(|| format!("{point} of {}", repo.url))?;
        Ok(std::fs::remove_file(target)?)
    }

    fn all_restore(&self) -> Result<()> {
        self.repo.ok(&["verify", "--all", "--level", "data"])?;
        let mut points = self.points.iter();
        points.try_for_each(|(point, image)| self.restores(&self.repo, point, image))
    }
}

/// A life in a bucket, from a copy that was killed to the rotation of the key.
pub(crate) fn a_life_in_a_bucket(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("s3-health");
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let mut rig = Rig {
        site,
        image: Image::noise(&site.scratch.join("disk.img"), 8 * MIB, &mut random)?,
        repo,
        random,
        points: Vec::new(),
    };
    for _ in 0..5 {
        rig.backup()?;
    }
    there_and_back(&rig)?;
    forgets_and_collects(&mut rig)?;
    repairs(&rig)?;
    changes_its_key(&mut rig)?;
    rig.all_restore()
}

/// Bucket to directory and on to another prefix of the bucket; a copy that was killed goes on.
fn there_and_back(rig: &Rig<'_>) -> Result<()> {
    let folder = Repo::directory(&rig.site.scratch.join("folder"))?;
    folder.init()?;
    copy(&rig.repo, &folder, rig.site)?.run()?.expect(0)?;
    let second = Repo::bucket(&rig.site.bucket, "second", rig.site.scratch.path())?;
    second.init()?;
    let mut killed = copy(&folder, &second, rig.site)?
        .args(&["--limit-upload", "8MiB/s"])
        .start()?;
    ensure!(killed.wait_for(|| second.objects("seg/").is_ok_and(|names| names.len() >= 3))?);
    killed.signal(Signal::SIGKILL)?;
    killed.wait()?;
    let copied = copy(&folder, &second, rig.site)?.run()?.expect(0)?.json()?;
    let resumed = copied["points"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|point| point["resumed_bytes"].as_u64() > Some(0));
    ensure!(resumed, "{copied}");
    for repo in [&folder, &second] {
        repo.ok(&["verify", "--all", "--level", "data"])?;
        let listed = repo.ok(&["points"])?.json()?;
        let listed = listed["points"].as_array().context("points")?;
        ensure!(listed.len() == rig.points.len(), "{listed:?}");
        for (copy, (_, image)) in listed.iter().zip(&rig.points) {
            rig.restores(repo, copy["point"].as_str().context("id")?, image)?;
        }
    }
    Ok(())
}

/// What only dropped points used is freed by two runs, of which one is killed.
fn forgets_and_collects(rig: &mut Rig<'_>) -> Result<()> {
    let sum = |repo: &Repo| -> Result<u64> { Ok(repo.bytes("seg/")? + repo.bytes("map/")?) };
    let forgotten = rig
        .repo
        .ok(&["forget", "--keep-last", "1", "--volume", "disk"])?;
    ensure!(forgotten.json()?.to_string().contains(&rig.points[0].0));
    let last = rig.points.pop().context("a last point")?;
    rig.points = vec![last];
    let own = Repo::bucket(&rig.site.bucket, "own", rig.site.scratch.path())?;
    own.init()?;
    own.backup(&rig.image.path, "disk", &[])?;
    let (before, needed) = (sum(&rig.repo)?, sum(&own)?);
    let killed = rig.repo.command(&["gc"])?.start()?;
    let _ = killed.signal(Signal::SIGKILL);
    killed.wait()?;
    let mut rewritten = 0;
    for _ in 0..2 {
        rewritten += rig.repo.ok(&["gc"])?.number("segments_rewritten")?;
    }
    let after = sum(&rig.repo)?;
    eprintln!("before {before}, after {after}, needed {needed}, {rewritten} rewritten");
    ensure!(rewritten > 0, "nothing was compacted");
    ensure!((before - after) * 100 >= (before - needed) * 95);
    ensure!(rig.repo.objects("snap/")?.len() == 1 && rig.repo.objects("tomb/")?.is_empty());
    rig.all_restore()
}

fn repairs(rig: &Rig<'_>) -> Result<()> {
    for kind in ["copy/", "config.b"] {
        let name = rig.repo.objects(kind)?.remove(0);
        rig.repo.remove(&name)?;
        rig.repo.fails(65, &["verify", "--all"])?.names(&name)?;
        let mended = rig.repo.ok(&["repair"])?.json()?;
        ensure!(mended["repaired"][0]["object"] == name.as_str(), "{mended}");
    }
    rig.all_restore()
}

fn changes_its_key(rig: &mut Rig<'_>) -> Result<()> {
    let new = rig.site.scratch.join("new.key");
    std::fs::write(&new, [7; 40])?;
    let word = new.display().to_string();
    rig.repo.ok(&["key", "rotate", "--new-key-file", &word])?;
    rig.repo.fails(64, &["points"])?;
    rig.repo = rig
        .repo
        .with_secret(Secret::KeyFile(Path::new(&word).to_owned()));
    let keys = rig.repo.objects("keys/")?;
    ensure!(keys.len() == 2, "{keys:?}");
    Ok(())
}

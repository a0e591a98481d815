//! What `recover` takes for the true version of an object.

use anyhow::{Context, Result, ensure};
use tests::bucket::Bucket;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;

use super::immutable::locked_bucket;

/// A version that the store damaged, and that `repair` wrote again since, is not what `recover` takes for the true one; nor is what a
/// thief put on top. Whoever may delete versions uncovers, whoever may not stores the true bytes again.
pub(crate) fn the_oldest_whole_version_comes_back(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("lock-whole");
    let bucket = locked_bucket(site)?;
    let image = Image::noise(&site.scratch.join("disk.img"), 2 * MIB, &mut random)?;
    for role in [None, Some("admin")] {
        let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
        repo.init()?;
        let point = repo.backup(&image.path, "disk", &[])?.string("point")?;
        let mut hurt = vec!["config.b".to_owned()];
        for kind in ["keys/", "copy/"] {
            hurt.push(repo.objects(kind)?.pop().context("one of each kind")?);
        }
        for (index, name) in hurt.iter().enumerate() {
            // All that the bucket ever had of it: a bit is flipped, or the end is missing.
            let mut body = repo.read(name)?;
            match index % 2 {
                0 => body[70.min(40 + 10 * index)] ^= 1,
                _ => body.truncate(body.len() - 5),
            }
            only_version(&bucket, name, &body)?;
        }
        let healed = repo.ok(&["repair"])?.json()?;
        for name in &hurt {
            ensure!(healed["repaired"].to_string().contains(name), "{healed}");
        }
        let quiet = repo.ok(&["recover", "--dry-run"])?;
        let lost = quiet.number("hidden")? + quiet.number("overwritten")?;
        ensure!(lost == 0, "a repair is no loss: {}", quiet.json()?);
        let mended: Vec<_> = hurt
            .iter()
            .map(|name| repo.read(name))
            .collect::<Result<_>>()?;

        for (index, name) in hurt.iter().enumerate() {
            repo.write(name, b"all your data are belong to us")?;
            if index == 1 {
                repo.remove(name)?;
            }
        }
        let user = match role {
            Some(role) => {
                let policy = super::roles::policy(role, &bucket.name)?;
                repo.with_login(&bucket.assume_role(&policy)?)
            }
            None => repo.clone(),
        };
        let healed = user.ok(&["recover"])?;
        let found = (healed.number("hidden")?, healed.number("overwritten")?);
        ensure!(found == (1, 2), "{}", healed.json()?);
        for (name, mended) in hurt.iter().zip(&mended) {
            ensure!(repo.read(name)? == *mended, "{name} is another version");
        }
        repo.ok(&["verify", "--all", "--level", "data"])?;
        let target = site.scratch.join("out");
        repo.restore(&point, &target, &["--force"])?;
        image.assert_same(&target)?;
        for version in bucket.versions("repo/")? {
            bucket.delete_version(&version)?;
        }
    }
    Ok(())
}

/// Makes these bytes the only version there is.
fn only_version(bucket: &Bucket, name: &str, body: &[u8]) -> Result<()> {
    let key = format!("repo/{name}");
    for version in bucket.versions(&key)? {
        // Names that only begin like this one stay.
        if version.key == key {
            ensure!(bucket.delete_version(&version)? == 204, "{version:?}");
        }
    }
    bucket.put(&key, body)
}

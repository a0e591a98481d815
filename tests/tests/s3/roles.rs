//! The policies in `manifests/s3-policies`, each against a server that enforces them: a role can do its work, and no more.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use mover::repository::store::Store;
use mover::repository::store::lock::{LockMode, Purged};
use nix::sys::signal::Signal;
use tests::bucket::Bucket;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;

use super::immutable::{lock, locked_bucket, store};

/// Prefixes of everything a repository holds.
const KINDS: [&str; 10] = [
    "config", "keys/", "open/", "snap/", "copy/", "live/", "seg/", "map/", "tomb/", "beat/",
];

/// A policy as the README says to fill it in, for the repository `repo` of a bucket.
pub(crate) fn policy(role: &str, bucket: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests/s3-policies")
        .join(format!("{role}.json"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let filled = text.replace("BUCKET", bucket).replace("PREFIX", "repo");
    let value: serde_json::Value = serde_json::from_str(&filled)?;
    Ok(value.to_string())
}

pub(super) struct Rig {
    pub(super) bucket: Bucket,
    pub(super) repo: Repo,
    pub(super) image: Image,
}

impl Rig {
    /// A locked repository, made under the administrator's role.
    pub(super) fn new(site: &Site, seed: u64) -> Result<Self> {
        let bucket = locked_bucket(site)?;
        let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
        let rig = Self {
            image: Image::noise(
                &site.scratch.join("disk.img"),
                3 * MIB,
                &mut Random::new(seed),
            )?,
            bucket,
            repo,
        };
        rig.role("admin")?.ok(&[
            "init",
            "--segment-size",
            "1MiB",
            "--object-lock",
            "governance",
            "--lock-for",
            "1h",
            "--lock-window",
            "1s",
        ])?;
        ensure!(rig.repo.objects("probe/")?.is_empty());
        ensure!(
            rig.bucket.versions("repo/probe/")?.is_empty(),
            "the probe left versions"
        );
        Ok(rig)
    }

    pub(super) fn role(&self, role: &str) -> Result<Repo> {
        let login = self.bucket.assume_role(&policy(role, &self.bucket.name)?)?;
        Ok(self.repo.with_login(&login))
    }

    pub(super) fn thief(&self, role: &str) -> Result<Bucket> {
        let login = self.bucket.assume_role(&policy(role, &self.bucket.name)?)?;
        Ok(self.bucket.with_login(&login))
    }

    /// Tries to delete one object of every kind, plainly and by version; gives the kinds where it worked.
    pub(super) fn deletable(&self, thief: &Bucket) -> Result<Vec<&'static str>> {
        let mut worked = Vec::new();
        for kind in KINDS {
            let key = match self.repo.objects(kind)?.first() {
                Some(name) => format!("repo/{name}"),
                None => format!("repo/{kind}made-by-the-owner"),
            };
            if self.bucket.versions(&key)?.is_empty() {
                self.bucket.put(&key, b"x")?;
            }
            let version = self.bucket.versions(&key)?.remove(0);
            let plain = thief.try_delete(&key)?;
            let by_version = thief.delete_version(&version)?;
            if (200..300).contains(&plain) || (200..300).contains(&by_version) {
                worked.push(kind);
            }
        }
        Ok(worked)
    }

    pub(super) fn writable(&self, thief: &Bucket) -> Result<Vec<&'static str>> {
        let mut worked = Vec::new();
        for kind in KINDS {
            let name = if kind.ends_with('/') { "made" } else { "" };
            if thief.try_put(&format!("repo/{kind}{name}"), b"x")? == 200 {
                worked.push(kind);
            }
        }
        ensure!(
            thief.try_put("elsewhere/seg/x", b"x")? == 403,
            "it may write outside its prefix"
        );
        Ok(worked)
    }
}

pub(super) fn refused(repo: &Repo, words: &[&str]) -> Result<()> {
    let result = repo.fails(64, words)?.json()?;
    ensure!(
        result["error"]["kind"] == "access-denied",
        "{words:?}: {result}"
    );
    Ok(())
}

/// Backs up, also over a window that ends and over a killed run, and can delete nothing.
pub(crate) fn the_backup_role(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 31)?;
    let backup = rig.role("backup")?;
    backup.backup(&rig.image.path, "disk", &[])?;
    std::thread::sleep(Duration::from_millis(1100));
    rig.image.write_noise(0, 4096, &mut Random::new(32))?;
    let second = backup.backup(&rig.image.path, "disk", &[])?;
    ensure!(second.number("locks_extended")? > 0, "{}", second.json()?);
    ensure!(
        second.json()?["warnings"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    for words in [
        &["points"][..],
        &["show", "disk@latest"],
        &["verify", "--level", "data"],
    ] {
        backup.ok(words)?;
    }
    let thief = rig.thief("backup")?;
    let worked = rig.deletable(&thief)?;
    ensure!(worked.is_empty(), "the backup role deleted {worked:?}");
    let worked = rig.writable(&thief)?;
    let own = ["open/", "snap/", "copy/", "live/", "seg/", "map/", "beat/"];
    ensure!(worked == own, "the backup role wrote {worked:?}");
    Ok(())
}

/// Reads everything, takes its own record away again, and changes nothing.
pub(crate) fn the_restore_role(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 33)?;
    rig.role("backup")?.backup(&rig.image.path, "disk", &[])?;
    let restore = rig.role("restore")?;
    let target = site.scratch.join("out");
    let restored = restore.restore("disk@latest", &target, &[])?;
    rig.image.assert_same(&target)?;
    ensure!(
        restored.json()?["warnings"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    for words in [
        &["points"][..],
        &["show", "disk@latest"],
        &["diff", "disk@latest", "disk@latest"],
        &["verify", "--all", "--level", "data"],
        &["key", "list"],
    ] {
        restore.ok(words)?;
    }
    let records = rig.bucket.versions("repo/open/")?;
    ensure!(
        records.len() == 1,
        "readers left their records: {records:?}"
    );
    refused(&restore, &["backup", &rig.image.path.display().to_string()])?;
    let thief = rig.thief("restore")?;
    ensure!(rig.deletable(&thief)?.is_empty() && rig.writable(&thief)?.is_empty());
    Ok(())
}

/// Forgets, and nothing else; collects, but not what is locked, and cannot make points.
pub(crate) fn forget_and_collector_roles(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 34)?;
    rig.role("backup")?.backup(&rig.image.path, "disk", &[])?;
    let of_the_point = rig.bucket.versions("repo/")?;
    let forget = rig.thief("forget")?;
    ensure!(rig.writable(&forget)? == ["tomb/"]);
    ensure!(rig.deletable(&forget)?.is_empty());
    refused(
        &rig.role("forget")?,
        &["backup", &rig.image.path.display().to_string()],
    )?;

    the_collector_gives_up_who_is_dead(&rig)?;
    let collector = rig.thief("collector")?;
    ensure!(rig.writable(&collector)? == ["snap/", "copy/", "seg/", "beat/"]);
    for kind in ["tomb/", "beat/"] {
        let key = format!("repo/{kind}dead");
        rig.bucket.put(&key, b"x")?;
        let version = rig.bucket.versions(&key)?.remove(0);
        ensure!(collector.delete_version(&version)? == 204, "{key}");
    }
    for version in &of_the_point {
        let status = collector.delete_version(version)?;
        ensure!(
            !(200..300).contains(&status),
            "{status}: {version:?} was locked"
        );
    }
    // As `gc` asks: what is locked is an outcome and stays readable, what is not is gone.
    let policy = lock(
        LockMode::Governance,
        Duration::from_secs(3600),
        Duration::from_secs(1),
    )?;
    let store = store(&collector.endpoint, &rig.bucket.name, policy)?;
    for kind in ["open/", "snap/", "seg/"] {
        let name = of_the_point
            .iter()
            .find_map(|version| {
                version
                    .key
                    .strip_prefix("repo/")
                    .filter(|name| name.starts_with(kind))
            })
            .context("a point has all kinds")?;
        ensure!(
            matches!(store.purge(name)?, Purged::LockedUntil(end) if end > SystemTime::now()),
            "{name}"
        );
        ensure!(store.head(name)?.is_some(), "{name} was hidden");
    }
    rig.bucket.put("repo/tomb/dead", b"x")?;
    ensure!(store.purge("tomb/dead")? == Purged::Gone);
    ensure!(rig.bucket.versions("repo/tomb/dead")?.is_empty());
    ensure!(!matches!(store.purge("config"), Ok(Purged::Gone)));
    ensure!(store.head("config")?.is_some());
    for name in ["config", "config.b"] {
        ensure!(collector.try_delete(&format!("repo/{name}"))? == 403);
    }
    Ok(())
}

/// The statement that the README names holds back who would lock for ever.
pub(crate) fn a_condition_limits_locks(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 36)?;
    let mut limited: serde_json::Value =
        serde_json::from_str(&policy("backup", &rig.bucket.name)?)?;
    let deny = serde_json::json!({
        "Sid": "NoLongLocks",
        "Effect": "Deny",
        "Action": ["s3:PutObjectRetention"],
        "Resource": [format!("arn:aws:s3:::{}/repo/*", rig.bucket.name)],
        "Condition": {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "2"}},
    });
    let statements = limited["Statement"].as_array_mut();
    statements.context("statements")?.push(deny);
    let login = rig.bucket.assume_role(&limited.to_string())?;
    let backup = rig.repo.with_login(&login);
    backup.backup(&rig.image.path, "disk", &[])?;
    let policy = lock(
        LockMode::Governance,
        Duration::from_secs(3600),
        Duration::from_secs(1),
    )?;
    let store = store(
        &rig.bucket.with_login(&login).endpoint,
        &rig.bucket.name,
        policy,
    )?;
    let segment = rig.repo.objects("seg/")?.remove(0);
    let century = SystemTime::now() + Duration::from_secs(99 * 365 * 86_400);
    ensure!(
        store.lock(&segment, century).is_err(),
        "locked for a century"
    );
    store.lock(&segment, SystemTime::now() + Duration::from_secs(7200))?;
    Ok(())
}

/// A right that is missing is named before or instead of a point that nothing protects.
pub(crate) fn missing_rights_are_named(site: &Site) -> Result<()> {
    let rig = Rig::new(site, 35)?;
    let backup = policy("backup", &rig.bucket.name)?;
    let without = backup.replace("s3:PutObjectRetention", "s3:GetObjectTagging");
    let login = rig.bucket.assume_role(&without)?;
    let source = rig.image.path.display().to_string();
    refused(
        &rig.repo.with_login(&login),
        &["backup", &source, "--volume", "disk"],
    )?;
    ensure!(
        rig.repo.ok(&["points"])?.json()?["points"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    let elsewhere = rig
        .role("backup")?
        .with_url(&format!("s3://{}/other", rig.bucket.name));
    refused(
        &elsewhere,
        &["init", "--object-lock", "governance", "--lock-for", "1h"],
    )
}

/// A killed backup is fenced under the collector's role: it may ask for the store's time and take a slot.
fn the_collector_gives_up_who_is_dead(rig: &Rig) -> Result<()> {
    let source = rig.image.path.display().to_string();
    let slow = [
        "backup",
        &source,
        "--volume",
        "killed",
        "--limit-upload",
        "1MiB/s",
    ];
    let mut killed = rig.role("backup")?.command(&slow)?.start()?;
    let begun = killed.wait_for(|| rig.repo.objects("open/").is_ok_and(|open| open.len() > 1))?;
    ensure!(begun, "the backup ended before it could be killed");
    killed.signal(Signal::SIGKILL)?;
    killed.wait()?;
    let collected = rig
        .role("collector")?
        .ok(&["gc", "--fence-after", "0s"])?
        .json()?;
    let fenced = collected["fenced"].as_array().map(Vec::len);
    ensure!(fenced == Some(1), "{collected}");
    Ok(())
}

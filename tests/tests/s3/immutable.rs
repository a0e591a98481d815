//! Object Lock: what is locked, for how long, what a thief can do, and how it is undone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use mover::repository::store::lock::{LockMode, ObjectLock, Purged};
use mover::repository::store::probe::{ProbeOptions, probe};
use mover::repository::store::profile::StoreProfile;
use mover::repository::store::s3::{S3Credentials, S3Options, S3Store};
use mover::repository::store::{Created, Store};
use tests::bucket::{Bucket, REGION};
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::proxy::Proxy;
use tests::random::Random;
use tests::repo::Repo;
use tests::server::Endpoint;

/// Longer than any case takes, on the slowest machine.
const LONG: Duration = Duration::from_secs(3600);
/// A window that no case meets the end of before the year 2051.
const NO_END: &str = "29900d";

/// The bucket of the case, made with locks.
pub(crate) fn locked_bucket(site: &Site) -> Result<Bucket> {
    let bucket = Bucket::new(&site.endpoint, &format!("{}-locked", site.bucket.name));
    bucket.create_with_lock()?;
    Ok(bucket)
}

/// The product's store on this bucket, with a policy as a repository records it.
pub(crate) fn store(
    endpoint: &Endpoint,
    bucket: &str,
    lock: Option<ObjectLock>,
) -> Result<S3Store> {
    let keys = S3Credentials::new(&endpoint.owner.access, &endpoint.owner.secret);
    let options = S3Options {
        bucket: bucket.to_owned(),
        prefix: "repo/".to_owned(),
        endpoint: Some(endpoint.url.clone()),
        region: Some(REGION.to_owned()),
        path_style: true,
        ca_file: endpoint.ca_file.clone(),
        credentials: Some(match &endpoint.owner.token {
            Some(token) => keys.with_session_token(token),
            None => keys,
        }),
        ..S3Options::default()
    };
    let profile = StoreProfile {
        conditional_writes: true,
        lock,
        ..StoreProfile::default()
    };
    Ok(S3Store::connect(&options, &profile)?)
}

pub(crate) fn lock(mode: LockMode, keep: Duration, window: Duration) -> Result<Option<ObjectLock>> {
    Ok(Some(ObjectLock::new(mode, keep, Some(window))?))
}

fn init(repo: &Repo, mode: &str, lock_for: &str, window: &str) -> Result<()> {
    repo.ok(&[
        "init",
        "--segment-size",
        "1MiB",
        "--object-lock",
        mode,
        "--lock-for",
        lock_for,
        "--lock-window",
        window,
    ])
    .map(drop)
}

/// Waits for a moment of the server's clock, which is this machine's.
fn wait_for(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        std::thread::sleep(left + Duration::from_millis(50));
    }
}

/// A purge takes all versions or none, and says until when; a hidden name is free again.
pub(crate) fn purges_respect_locks(site: &Site) -> Result<()> {
    let bucket = locked_bucket(site)?;
    let second = Duration::from_secs(1);
    let policy = lock(LockMode::Compliance, 15 * second, second)?;
    let store = store(&site.endpoint, &bucket.name, None)?;
    // Ceph RGW has create-only writes, but not in buckets with versions: the probe finds out.
    let probed = probe(&store, ProbeOptions::default())?;
    ensure!(
        bucket.versions("repo/")?.is_empty(),
        "the probe left versions"
    );
    eprintln!(
        "{}: conditional writes {}",
        site.endpoint.name, probed.conditional_writes
    );
    store.adopt_profile(&StoreProfile {
        lock: policy,
        ..probed
    });
    let (segment, marker) = ("seg/aa/00000000.g00", "snap/v/k");
    let before = SystemTime::now();
    store.put(segment, Bytes::from_static(b"first"))?;
    // Never locked: at most 256 bytes in a slot are an abort marker.
    ensure!(store.create(marker, Bytes::from(vec![7; 200]))? == Created::Won);
    let Purged::LockedUntil(end) = store.purge(segment)? else {
        bail!("a locked object was purged")
    };
    ensure!(end >= before + 15 * second && end <= SystemTime::now() + 17 * second);
    ensure!(
        store.get(segment)? == "first",
        "a refused purge hid the object"
    );
    ensure!(store.locked_until(segment)? == Some(end) && store.locked_until(marker)?.is_none());
    ensure!(store.purge(marker)? == Purged::Gone && bucket.versions("repo/snap/")?.is_empty());

    // A plain delete hides; the name is free for exactly one create; the first version is still there.
    store.delete(segment)?;
    ensure!(store.head(segment)?.is_none());
    ensure!(store.create(segment, Bytes::from(vec![8; 300]))? == Created::Won);
    ensure!(store.create(segment, Bytes::from(vec![9; 300]))? == Created::Exists);
    ensure!(bucket.versions("repo/seg/")?.len() == 3);
    ensure!(store.purge(segment)? == Purged::LockedUntil(end));
    ensure!(store.get(segment)?.len() == 300 && bucket.versions("repo/seg/")?.len() == 3);

    // An extension holds; a shorter one is no error, because the longer lock stays.
    let longer = UNIX_EPOCH
        + Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 18);
    store.lock(segment, longer)?;
    store.lock(segment, end)?;
    ensure!(store.locked_until(segment)? == Some(longer));
    ensure!(store.lock("seg/aa/none", longer).is_err());

    wait_for(longer.max(end));
    ensure!(store.purge(segment)? == Purged::Gone);
    ensure!(
        bucket.versions("repo/")?.is_empty(),
        "{:?}",
        bucket.versions("repo/")?
    );
    Ok(())
}

/// Versions without locks, as many buckets have them: purging leaves none.
pub(crate) fn purges_free_versions(site: &Site) -> Result<()> {
    let bucket = locked_bucket(site)?;
    let store = store(&site.endpoint, &bucket.name, None)?;
    for body in ["one", "two"] {
        store.put("beat/aa", Bytes::from_static(body.as_bytes()))?;
    }
    store.put(
        "beat/aab",
        Bytes::from_static(b"another name with the same beginning"),
    )?;
    store.delete("beat/aa")?;
    ensure!(store.purge("beat/aa")? == Purged::Gone && store.purge("beat/none")? == Purged::Gone);
    let left: Vec<_> = bucket
        .versions("repo/")?
        .into_iter()
        .map(|v| v.key)
        .collect();
    ensure!(left == ["repo/beat/aab"], "{left:?}");
    Ok(())
}

fn retentions(proxy: &Proxy) -> Vec<String> {
    let requests = proxy.requests();
    let asked = requests
        .into_iter()
        .filter(|request| request.contains("?retention"));
    asked.collect()
}

/// Inside a window a backup asks for one lock, that of its start record; after it for each segment that it uses again.
pub(crate) fn locks_are_extended_once_a_window(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("lock-windows");
    let bucket = locked_bucket(site)?;
    let proxy = Proxy::start(&site.endpoint)?;
    let seen = Bucket::new(proxy.endpoint(), &bucket.name);
    let image = Image::noise(&site.scratch.join("disk.img"), 6 * MIB, &mut random)?;

    let quiet = Repo::bucket(&seen, "quiet", site.scratch.path())?;
    init(&quiet, "governance", "1h", NO_END)?;
    for round in 0..3 {
        image.write_noise(round * MIB, 4096, &mut random)?;
        proxy.forget_requests();
        let made = quiet.backup(&image.path, "disk", &[])?;
        let asked = retentions(&proxy);
        // The first point of a volume cannot know how long config and key are locked: two of each.
        let roots = if round == 0 { 4 } else { 0 };
        ensure!(
            asked.len() == 1 + roots && made.number("locks_extended")? == roots as u64,
            "round {round}: {asked:#?}"
        );
    }

    let busy = Repo::bucket(&seen, "repo", site.scratch.path())?;
    init(&busy, "governance", "1h", "2s")?;
    let policy = lock(LockMode::Governance, LONG, Duration::from_secs(2))?;
    let store = store(&site.endpoint, &bucket.name, policy)?;
    busy.backup(&image.path, "disk", &[])?;
    let old = busy.objects("seg/")?;
    wait_for(SystemTime::now() + Duration::from_secs(2));
    image.write_noise(0, 4096, &mut random)?;
    proxy.forget_requests();
    let committing = SystemTime::now();
    let made = busy.backup(&image.path, "disk", &[])?;
    let asked = retentions(&proxy);
    ensure!(
        asked.len() as u64 == made.number("locks_extended")? + 1,
        "{asked:#?}"
    );
    for segment in &old {
        let times = asked
            .iter()
            .filter(|request| request.contains(segment.as_str()))
            .count();
        ensure!(times == 1, "{segment} was locked {times} times: {asked:#?}");
        let end = store.locked_until(segment)?.context("still locked")?;
        ensure!(end >= committing + LONG, "{segment}: {end:?}");
    }
    for prefix in [
        "config", "keys/", "seg/", "map/", "live/", "snap/", "copy/", "open/",
    ] {
        for object in busy.objects(prefix)? {
            let end = store.locked_until(&object)?;
            ensure!(
                end.is_some_and(|end| end >= committing),
                "{object}: {end:?}"
            );
        }
    }
    Ok(())
}

/// Deletes and overwrites everything, with every right but that to bypass locks; then all of it comes back.
pub(crate) fn a_thief_is_survived(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("lock-thief");
    let bucket = locked_bucket(site)?;
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    init(&repo, "governance", "1h", "10min")?;
    let image = Image::mixed(&site.scratch.join("disk.img"), 5 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let before = image.copy_to(&site.scratch.join("before"))?;
    image.write_noise(2 * MIB, MIB, &mut random)?;
    let second = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let names = repo.objects("")?;

    let rights = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]},{"Effect":"Deny","Action":["s3:BypassGovernanceRetention"],"Resource":["arn:aws:s3:::*"]}]}"#;
    let thief = bucket.with_login(&bucket.assume_role(rights)?);
    for version in bucket.versions("repo/")? {
        ensure!(
            !(200..300).contains(&thief.try_unlock(&version)?),
            "a lock was ended: {version:?}"
        );
        let status = thief.delete_version(&version)?;
        ensure!(!(200..300).contains(&status), "{status} for {version:?}");
    }
    for (index, name) in names.iter().enumerate() {
        let key = format!("repo/{name}");
        let wrote =
            index % 3 == 0 && thief.try_put(&key, b"all your data are belong to us")? == 200;
        ensure!(wrote || thief.try_delete(&key)? == 204, "{key}");
    }
    repo.fails(64, &["points"])
        .or_else(|_| repo.fails(65, &["points"]))?;

    let looked = repo.ok(&["recover", "--dry-run"])?;
    let lost = looked.number("hidden")? + looked.number("overwritten")?;
    ensure!(lost == names.len() as u64, "{}", looked.json()?);
    repo.fails(64, &["points"])
        .or_else(|_| repo.fails(65, &["points"]))?;

    // The administrator's role may not delete data: what was overwritten is stored again.
    let admin = super::roles::policy("admin", &bucket.name)?;
    let admin = repo.with_login(&bucket.assume_role(&admin)?);
    let healed = admin.ok(&["recover"])?;
    ensure!(healed.number("hidden")? + healed.number("overwritten")? == lost);
    let again = repo.ok(&["recover", "--dry-run"])?;
    ensure!(
        again.number("hidden")? + again.number("overwritten")? == 0,
        "{}",
        again.json()?
    );
    repo.ok(&["verify", "--all", "--level", "data"])?;
    for (point, image) in [(first, before), (second, image)] {
        let target = site.scratch.join("out");
        repo.restore(&point, &target, &["--force"])?;
        image.assert_same(&target)?;
    }
    Ok(())
}

/// Forget orders that a thief put hide points and destroy nothing; whoever removes the orders has the points again.
pub(crate) fn false_forget_orders_destroy_nothing(site: &Site) -> Result<()> {
    let mut random = Random::new(22);
    let bucket = locked_bucket(site)?;
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    init(&repo, "compliance", "1h", "10min")?;
    let image = Image::noise(&site.scratch.join("disk.img"), MIB, &mut random)?;
    let point = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let slot = repo.objects("snap/")?.remove(0);
    let tomb = slot.replace("snap/", "tomb/");
    repo.write(&tomb, b"forget this, sixteen bytes at least")?;
    let target = site.scratch.join("out");
    repo.fails(
        64,
        &["restore", "disk@latest", &target.display().to_string()],
    )?;
    for prefix in ["open/", "snap/", "copy/", "live/", "map/", "seg/"] {
        for version in bucket.versions(&format!("repo/{prefix}"))? {
            let status = bucket.delete_version(&version)?;
            ensure!(!(200..300).contains(&status), "{status} for {version:?}");
        }
    }
    bucket.delete(&format!("repo/{tomb}"))?;
    repo.restore(&point, &target, &[])?;
    image.assert_same(&target)
}

/// An overwritten object is damage, not data, and its first version comes back.
pub(crate) fn verify_notices_what_was_put_over(site: &Site) -> Result<()> {
    let mut random = Random::new(21);
    let bucket = locked_bucket(site)?;
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    init(&repo, "compliance", "1h", "10min")?;
    let image = Image::noise(&site.scratch.join("disk.img"), 3 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let segment = repo.objects("seg/")?.remove(0);
    repo.write(&segment, b"other bytes")?;
    repo.fails(65, &["verify", "--level", "data"])?
        .names(&segment)?;
    // The owner may delete versions: what lies on top goes, and no space is used.
    let healed = repo.ok(&["recover"])?;
    ensure!(healed.number("overwritten")? == 1, "{}", healed.json()?);
    ensure!(bucket.versions(&format!("repo/{segment}"))?.len() == 1);
    repo.ok(&["verify", "--level", "data"]).map(drop)
}

/// What cannot be locked is refused before anything is stored, with what to do instead.
pub(crate) fn places_without_locks_are_refused(site: &Site) -> Result<()> {
    let flags = ["init", "--object-lock", "compliance", "--lock-for", "30d"];
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    let refused = repo.fails(64, &flags)?;
    refused.names("Object Lock")?;
    ensure!(
        repo.objects("")?.is_empty(),
        "a refused init left something"
    );
    let folder = Repo::directory(&site.scratch.join("folder"))?;
    let refused = folder.fails(64, &flags)?.json()?;
    let hint = refused["error"]["hint"].as_str().unwrap_or_default();
    ensure!(hint.contains("bucket with Object Lock"), "{refused}");
    folder.fails(64, &["recover"])?;
    for words in [
        &["init", "--object-lock", "compliance"][..],
        &["init", "--lock-for", "30d"],
        &["init", "--object-lock", "compliance", "--lock-for", "0s"],
        &["init", "--object-lock", "compliance", "--lock-for", "200y"],
    ] {
        let code = repo.command(words)?.run()?.status.code();
        ensure!(code == Some(64), "{words:?}: {code:?}");
    }
    Ok(())
}

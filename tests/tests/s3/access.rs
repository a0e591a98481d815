//! Who may do what: credentials, buckets, read-only users, certificates.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::bucket::Bucket;
use tests::cases::Site;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::server::Login;

/// Refusals are final: nobody waits half a minute to learn of a wrong key.
const AT_ONCE: Duration = Duration::from_secs(20);

fn refused(repo: &Repo, words: &[&str], kind: &str) -> Result<()> {
    let begin = Instant::now();
    let result = repo.fails(64, words)?.json()?;
    ensure!(result["error"]["kind"] == kind, "{words:?}: {result}");
    ensure!(
        begin.elapsed() < AT_ONCE,
        "{words:?} took {:?}",
        begin.elapsed()
    );
    Ok(())
}

pub(crate) fn wrong_credentials(site: &Site) -> Result<()> {
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    let owner = &site.endpoint.owner;
    let thieves = [
        Login::new(&owner.access, "wrong-secret-key"),
        Login::new("unknownuser", &owner.secret),
    ];
    for thief in &thieves {
        refused(&repo.with_login(thief), &["init"], "access-denied")?;
    }
    repo.init()?;
    for thief in &thieves {
        refused(&repo.with_login(thief), &["points"], "access-denied")?;
    }
    Ok(())
}

/// The usual files and variables of the AWS tools.
pub(crate) fn credentials_from_a_profile(site: &Site) -> Result<()> {
    let mut repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    let owner = &site.endpoint.owner;
    let file = site.scratch.join("credentials");
    let text = format!(
        "[backup]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        owner.access, owner.secret
    );
    std::fs::write(&file, text)?;
    repo.env = vec![
        (
            "AWS_SHARED_CREDENTIALS_FILE".to_owned(),
            file.display().to_string(),
        ),
        ("AWS_PROFILE".to_owned(), "backup".to_owned()),
    ];
    repo.init()?;
    let none = repo.without_env();
    none.fails(64, &["points"])?.names("credentials").map(drop)
}

pub(crate) fn bucket_missing(site: &Site) -> Result<()> {
    let bucket = Bucket::new(&site.endpoint, "there-is-no-such-bucket");
    let repo = Repo::bucket(&bucket, "repo", site.scratch.path())?;
    for words in [&["init"][..], &["points"]] {
        refused(&repo, words, "not-found")?;
        repo.fails(64, words)?.names("there-is-no-such-bucket")?;
    }
    // A bucket without a repository is another thing.
    let empty = Repo::bucket(&site.bucket, "empty", site.scratch.path())?;
    refused(&empty, &["points"], "not-found")
}

/// Restore, verify and lists need GET and LIST only; a reader that cannot announce itself says so once.
pub(crate) fn readers_may_restore(site: &Site) -> Result<()> {
    let mut random = Random::new(4);
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let image = Image::mixed(&site.scratch.join("disk.img"), 3 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    site.bucket.let_read()?;
    let reader = repo.with_login(&site.reader_bucket()?.endpoint.owner);
    let restored = reader.restore("disk@latest", &site.scratch.join("out"), &[])?;
    image.assert_same(&site.scratch.join("out"))?;
    ensure!(
        restored.json()?["warnings"]
            .as_array()
            .is_some_and(|warnings| warnings.len() == 1),
        "{}",
        restored.json()?
    );
    for words in [
        &["points"][..],
        &["show", "disk@latest"],
        &["verify", "--level", "data"],
    ] {
        reader.ok(words)?;
    }
    refused(
        &reader,
        &["backup", &image.path.display().to_string()],
        "access-denied",
    )?;
    let elsewhere = reader.with_url(&format!("s3://{}/elsewhere", site.bucket.name));
    refused(&elsewhere, &["init"], "access-denied")
}

pub(crate) fn unknown_authority(site: &Site) -> Result<()> {
    let repo = Repo::bucket(&site.bucket, "repo", site.scratch.path())?;
    repo.init()?;
    let trusting_none = repo.without_flag("--s3-ca-file");
    refused(&trusting_none, &["points"], "access-denied")?;
    trusting_none
        .fails(64, &["points"])?
        .names("--s3-ca-file")?;
    // A certificate that is good for something else.
    let other = site.scratch.join("other.pem");
    let mut make = std::process::Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3",
    ]);
    make.args(["-subj", "/CN=Another CA", "-keyout", "/dev/null", "-out"])
        .arg(&other);
    tests::part::run(&mut make)?;
    refused(
        &repo.with_flag("--s3-ca-file", &other.display().to_string()),
        &["points"],
        "access-denied",
    )?;
    let missing = repo.with_flag("--s3-ca-file", "/nonexistent/ca.pem");
    missing
        .fails(64, &["points"])?
        .names("/nonexistent/ca.pem")
        .map(drop)
}

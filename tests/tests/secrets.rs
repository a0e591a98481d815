//! Keys: what opens a repository, what does not, and what can be read without one.

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::{Repo, Secret};
use tests::scratch::Scratch;
use tests::snaphaul::Snaphaul;

const MARKER: &[u8] =
    b"the quick brown fox jumps over the lazy dog, and this text is in the volume";

fn marked_image(scratch: &Scratch) -> Result<Image> {
    let image = Image::noise(&scratch.join("disk.img"), MIB, &mut Random::new(1))?;
    let mut bytes = std::fs::read(&image.path)?;
    bytes[500_000..500_000 + MARKER.len()].copy_from_slice(MARKER);
    std::fs::write(&image.path, bytes)?;
    Ok(image)
}

/// Whether any object of the repository holds `text`.
fn stored_in_clear(repo: &Repo, text: &[u8]) -> Result<bool> {
    for name in repo.objects("")? {
        if name.contains("secret-volume")
            || repo
                .read(&name)?
                .windows(text.len())
                .any(|window| window == text)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn encrypted_repositories_show_no_data_and_no_names() -> Result<()> {
    let scratch = Scratch::new("clear")?;
    let image = marked_image(&scratch)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    repo.backup(
        &image.path,
        "secret-volume",
        &["--compression", "none", "--tag", "owner=secret-tag"],
    )?;
    for text in [MARKER, b"secret-volume", b"secret-tag"] {
        ensure!(
            !stored_in_clear(&repo, text)?,
            "{} is stored in clear",
            String::from_utf8_lossy(text)
        );
    }
    Ok(())
}

#[test]
fn unencrypted_repositories_must_be_asked_for_and_say_so() -> Result<()> {
    let scratch = Scratch::new("no-encryption")?;
    let image = marked_image(&scratch)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    let bare = repo.with_secret(Secret::None);
    // Standard input is no terminal here, so nothing can ask for a passphrase.
    bare.fails(64, &["init"])?.names("--passphrase-file")?;
    repo.fails(64, &["init", "--no-encryption"])?;
    let said = bare.ok(&["init", "--no-encryption"])?.json()?;
    ensure!(said["encrypted"] == false, "{said}");
    bare.backup(&image.path, "disk", &["--compression", "none"])?;
    ensure!(
        stored_in_clear(&bare, MARKER)?,
        "the marker is the control of the encrypted test"
    );
    bare.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))?;
    // Whoever expects encryption must not be served by a repository that claims to have none.
    for words in [
        vec!["points"],
        vec!["verify"],
        vec!["restore", "disk@latest", "/nonexistent/x"],
        vec!["key", "list"],
    ] {
        repo.fails(64, &words)?;
    }
    repo.fails(64, &["backup", &image.path.display().to_string()])?;
    Ok(())
}

#[test]
fn the_right_secret_opens_by_every_way_it_can_be_given() -> Result<()> {
    let scratch = Scratch::new("ways")?;
    let image = marked_image(&scratch)?;
    let file = scratch.join("passphrase");
    std::fs::write(&file, "correct horse battery staple\n")?;
    let repo = Repo::directory(&scratch.join("repo"))?.with_secret(Secret::PassphraseFile(file));
    repo.init()?;
    repo.backup(&image.path, "disk", &[])?;
    let bare = repo.with_secret(Secret::None);
    let open = |passphrase: &str| {
        bare.command(&["points"])?
            .env("SNAPHAUL_PASSPHRASE", passphrase)
            .run()
    };
    open("correct horse battery staple")?.expect(0)?;
    open("correct horse battery stapler")?.expect(64)?;
    open("")?.expect(64)?;
    bare.fails(64, &["points"])?.names("--passphrase-file")?;
    let url = repo.url.clone();
    let by_environment = Snaphaul::new(&["points", "--json"])?
        .env("SNAPHAUL_REPO", &url)
        .env("SNAPHAUL_PASSPHRASE", "correct horse battery staple");
    by_environment.run()?.expect(0)?;
    let listed = repo.ok(&["key", "list"])?;
    ensure!(listed.text().contains("passphrase"), "{}", listed.text());
    Ok(())
}

#[test]
fn wrong_secrets_are_refused_and_told_from_damage() -> Result<()> {
    let scratch = Scratch::new("wrong")?;
    let image = marked_image(&scratch)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    repo.backup(&image.path, "disk", &[])?;
    let other = scratch.join("other.key");
    std::fs::write(&other, [9; 32])?;
    let short = scratch.join("short.key");
    std::fs::write(&short, [9; 31])?;
    let passphrase = scratch.join("passphrase");
    std::fs::write(&passphrase, "anything")?;
    let empty = scratch.join("empty");
    std::fs::write(&empty, "\n")?;
    let missing = scratch.join("missing.key");
    let wrong = [
        Secret::KeyFile(other),
        Secret::KeyFile(short),
        Secret::KeyFile(missing.clone()),
        Secret::PassphraseFile(passphrase),
        Secret::PassphraseFile(empty),
        Secret::PassphraseFile(missing),
        Secret::None,
    ];
    let before = repo.objects("")?;
    for secret in wrong {
        let thief = repo.with_secret(secret);
        for words in [
            vec!["points"],
            vec!["verify"],
            vec!["restore", "disk@latest", "/nonexistent/x"],
            vec!["key", "list"],
        ] {
            thief.fails(64, &words)?;
        }
        thief.fails(64, &["backup", &image.path.display().to_string()])?;
    }
    ensure!(
        repo.objects("")? == before,
        "a refused command changed the repository"
    );
    Ok(())
}

#[test]
fn secrets_never_appear_in_output() -> Result<()> {
    let scratch = Scratch::new("output")?;
    let image = marked_image(&scratch)?;
    let repo = Repo::directory(&scratch.join("repo"))?.with_secret(Secret::None);
    let run = |words: &[&str]| {
        repo.command(words)?
            .args(&["--log", "trace"])
            .env("SNAPHAUL_PASSPHRASE", "swordfish-9931")
            .run()
    };
    let source = image.path.display().to_string();
    for words in [
        vec!["init"],
        vec!["backup", &source],
        vec!["points"],
        vec!["key", "list"],
        vec!["show", "nobody@latest"],
    ] {
        let outcome = run(&words)?;
        let said = format!("{}{}", outcome.text(), outcome.stderr);
        ensure!(
            !said.contains("swordfish"),
            "{words:?} tells the passphrase"
        );
    }
    Ok(())
}

#[test]
fn changing_keys_tells_none_of_them() -> Result<()> {
    let scratch = Scratch::new("changes")?;
    let repo = Repo::directory(&scratch.join("repo"))?.with_secret(Secret::None);
    let (new, sheet) = (scratch.join("new"), scratch.join("sheet"));
    std::fs::write(&new, "halibut-4407\n")?;
    let (new, sheet) = (new.display().to_string(), sheet.display().to_string());
    let run = |passphrase: &str, words: &[&str]| {
        let outcome = repo
            .command(words)?
            .args(&["--log", "trace"])
            .env("SNAPHAUL_PASSPHRASE", passphrase)
            .run()?;
        Ok::<_, anyhow::Error>(format!("{}{}", outcome.text(), outcome.stderr))
    };
    let mut said = run("swordfish-9931", &["init"])?;
    for words in [
        vec!["key", "export", "--output", &sheet],
        vec!["key", "export"],
        vec!["key", "add", "--new-passphrase-file", &new],
        vec!["key", "add", "--new-passphrase-file", &new],
        vec!["key", "remove", "00000000"],
        vec!["key", "rotate", "--new-passphrase-file", &new],
    ] {
        said.push_str(&run("swordfish-9931", &words)?);
    }
    let paper = repo.with_flag("--recovery-sheet", &sheet);
    for words in [vec!["key", "list"], vec!["key", "export"]] {
        let outcome = paper.command(&words)?.args(&["--log", "trace"]).run()?;
        said.push_str(&format!("{}{}", outcome.text(), outcome.stderr));
    }
    let text = std::fs::read_to_string(&sheet)?;
    let keys = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("key "));
    let lines: Vec<&str> = keys.filter_map(|line| line.get(3..17)).collect();
    ensure!(lines.len() == 4, "{text}");
    for secret in ["swordfish", "halibut"].iter().chain(&lines) {
        ensure!(!said.contains(*secret), "the output tells {secret}");
    }
    // The control: the new passphrase is the key now.
    ensure!(run("halibut-4407", &["points"])?.contains("\"ok\":true"));
    Ok(())
}

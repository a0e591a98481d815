//! Keys: added, removed, rotated, printed on paper, and lost.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::{Repo, Secret};
use tests::scratch::Scratch;

/// A repository with one point of `disk`.
fn rig(name: &str) -> Result<(Scratch, Repo, Image)> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), MIB, &mut Random::new(3))?;
    repo.backup(&image.path, "disk", &[])?;
    Ok((scratch, repo, image))
}

/// A file with a key or a passphrase.
fn file(scratch: &Scratch, name: &str, content: &[u8]) -> Result<(PathBuf, String)> {
    let path = scratch.join(name);
    std::fs::write(&path, content)?;
    let text = path.display().to_string();
    Ok((path, text))
}

/// Ids of all keys, and of the one in use.
fn keys(repo: &Repo) -> Result<(Vec<String>, String)> {
    let listed = repo.ok(&["key", "list"])?.json()?;
    let keys = listed["keys"].as_array().context("no keys")?;
    let id = |key: &serde_json::Value| key["id"].as_str().unwrap_or_default().to_owned();
    let in_use = keys.iter().find(|key| key["in_use"] == true).map(id);
    Ok((
        keys.iter().map(id).collect(),
        in_use.context("none is in use")?,
    ))
}

#[test]
fn several_keys_open_and_each_can_go_but_the_last() -> Result<()> {
    let (scratch, repo, image) = rig("several")?;
    let (robot, robot_text) = file(&scratch, "robot.key", &[7; 64])?;
    let (phrase, phrase_text) = file(&scratch, "phrase", b"two of a kind\n")?;
    let first = repo
        .ok(&["key", "add", "--new-key-file", &robot_text])?
        .string("added")?;
    repo.ok(&["key", "add", "--new-passphrase-file", &phrase_text])?;
    let by_robot = repo.with_secret(Secret::KeyFile(robot));
    let by_phrase = repo.with_secret(Secret::PassphraseFile(phrase));
    for repo in [&repo, &by_robot, &by_phrase] {
        ensure!(repo.ok(&["points"])?.stderr.is_empty());
    }
    let (ids, own) = keys(&repo)?;
    ensure!(
        ids.len() == 3 && ids.contains(&first) && own != first,
        "{ids:?}"
    );
    // The same again, too short, unknown, ambiguous, one's own.
    repo.fails(64, &["key", "add", "--new-key-file", &robot_text])?
        .names(&first)?;
    let (_, short) = file(&scratch, "short.key", &[7; 31])?;
    repo.fails(64, &["key", "add", "--new-key-file", &short])?;
    repo.fails(64, &["key", "add"])?
        .names("--new-passphrase-file")?;
    repo.fails(
        64,
        &[
            "key",
            "add",
            "--new-key-file",
            &short,
            "--new-passphrase-file",
            &short,
        ],
    )?;
    repo.fails(64, &["key", "remove"])?;
    repo.fails(64, &["key", "remove", "ffffffff"])?
        .names("key list")?;
    repo.fails(64, &["key", "remove", "f"])?;
    repo.fails(64, &["key", "remove", &own])?.names("rotate")?;
    ensure!(keys(&repo)?.0.len() == 3 && repo.objects("keys/")?.len() == 6);
    // Whoever holds another key may remove.
    by_phrase.ok(&["key", "remove", &own])?;
    repo.fails(64, &["points"])?;
    by_phrase.ok(&["key", "remove", &first[..8]])?;
    by_robot.fails(64, &["points"])?;
    let (_, last) = keys(&by_phrase)?;
    by_phrase.fails(64, &["key", "remove", &last])?;
    ensure!(repo.objects("keys/")?.len() == 2);
    by_phrase.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))?;
    by_phrase.ok(&["verify", "--level", "data"])?;
    Ok(())
}

#[test]
fn rotation_puts_a_new_secret_in_the_place_of_the_old() -> Result<()> {
    let (scratch, repo, image) = rig("rotate")?;
    let (_, old) = keys(&repo)?;
    let (phrase, text) = file(&scratch, "phrase", b"new\n")?;
    let done = repo
        .plain(&["key", "rotate", "--new-passphrase-file", &text])?
        .run()?
        .expect(0)?;
    ensure!(
        done.text().contains("The master key is the same"),
        "{}",
        done.text()
    );
    ensure!(done.text().contains(&old), "{}", done.text());
    repo.fails(64, &["points"])?;
    let new = repo.with_secret(Secret::PassphraseFile(phrase));
    ensure!(keys(&new)?.0.len() == 1);
    new.backup(&image.path, "disk", &[])?;
    // Interrupted between the new key and the old one's end: the same command ends it.
    let (robot, text) = file(&scratch, "robot.key", &[9; 32])?;
    new.ok(&["key", "add", "--new-key-file", &text])?;
    new.ok(&["key", "rotate", "--new-key-file", &text])?;
    let robot = repo.with_secret(Secret::KeyFile(robot));
    ensure!(keys(&robot)?.0.len() == 1);
    robot.ok(&["verify", "--level", "data"])?;
    Ok(())
}

#[test]
fn a_recovery_sheet_opens_a_repository_that_lost_all_its_keys() -> Result<()> {
    let (scratch, repo, image) = rig("recovery")?;
    let path = scratch.join("sheet.txt");
    let sheet = path.display().to_string();
    repo.fails(64, &["key", "export"])?.names("--output")?;
    let printed = repo.plain(&["key", "export"])?.run()?.expect(0)?;
    ensure!(printed.text().starts_with("SNAPHAUL RECOVERY SHEET\n") && printed.stderr.is_empty());
    let done = repo.ok(&["key", "export", "--output", &sheet])?;
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600);
    repo.fails(64, &["key", "export", "--output", &sheet])?
        .names("nothing is overwritten")?;
    repo.fails(64, &["key", "export", "--output", "/nonexistent/sheet"])?;
    let text = std::fs::read_to_string(&path)?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.trim().starts_with("key "))
        .collect();
    ensure!(
        lines.len() == 4 && printed.text().contains(lines[2]),
        "{text}"
    );
    ensure!(!format!("{}{}", done.text(), done.stderr).contains(lines[0].trim()));
    for name in repo.objects("keys/")? {
        repo.remove(&name)?;
    }
    repo.fails(65, &["points"])?.names("--recovery-sheet")?;
    // Typed by hand, and nothing but the four lines.
    let typed = lines.join("\n").to_lowercase().replace('0', "o");
    let (_, typed) = file(&scratch, "typed.txt", typed.as_bytes())?;
    let paper = repo
        .with_secret(Secret::None)
        .with_flag("--recovery-sheet", &typed);
    paper.ok(&["points"])?;
    paper.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))?;
    let (phrase, text) = file(&scratch, "phrase", b"back again")?;
    paper
        .fails(64, &["key", "rotate", "--new-passphrase-file", &text])?
        .names("key add")?;
    paper.ok(&["key", "add", "--new-passphrase-file", &text])?;
    let back = repo.with_secret(Secret::PassphraseFile(phrase));
    back.backup(&image.path, "disk", &[])?;
    ensure!(back.ok(&["verify", "--level", "data"])?.stderr.is_empty());
    Ok(())
}

#[test]
fn wrong_sheets_are_refused_and_say_where_the_slip_is() -> Result<()> {
    let (scratch, repo, image) = rig("slips")?;
    let (other_scratch, other, _) = rig("slips-other")?;
    let export = |repo: &Repo, scratch: &Scratch| {
        let path = scratch.join("sheet.txt");
        repo.ok(&["key", "export", "-o", &path.display().to_string()])?;
        Ok::<_, anyhow::Error>(std::fs::read_to_string(path)?)
    };
    let (good, foreign) = (export(&repo, &scratch)?, export(&other, &other_scratch)?);
    let line = good
        .lines()
        .find(|line| line.trim().starts_with("key 3:"))
        .context("no line")?;
    let last = line.chars().last().context("an empty line")?;
    let slipped = format!(
        "{}{}",
        &line[..line.len() - 1],
        if last == 'X' { 'Y' } else { 'X' }
    );
    let secret = line.trim().trim_start_matches("key 3:").trim().to_owned();
    for (text, named) in [
        (good.replace(line, &slipped), "key 3"),
        (good.replace(line, &line[..line.len() - 2]), "key 3"),
        (good.replace(line, ""), "key 3"),
        (foreign, "another repository"),
        (String::new(), "key 1"),
    ] {
        let (_, sheet) = file(&scratch, "wrong.txt", text.as_bytes())?;
        let paper = repo
            .with_secret(Secret::None)
            .with_flag("--recovery-sheet", &sheet);
        let outcome = paper.fails(64, &["points"])?;
        outcome.names(named)?;
        let said = format!("{}{}", outcome.text(), outcome.stderr);
        ensure!(!said.contains(&secret[..14]), "{said} tells the key");
    }
    let (_, sheet) = file(&scratch, "good.txt", good.as_bytes())?;
    repo.with_flag("--recovery-sheet", &sheet)
        .fails(64, &["points"])?;
    let fresh = Repo::directory(&scratch.join("fresh"))?
        .with_secret(Secret::None)
        .with_flag("--recovery-sheet", &sheet);
    fresh.fails(64, &["init"])?;
    fresh.fails(64, &["backup", &image.path.display().to_string()])?;
    Ok(())
}

#[test]
fn an_unencrypted_repository_has_no_keys_to_manage() -> Result<()> {
    let scratch = Scratch::new("keyless")?;
    let repo = Repo::directory(&scratch.join("repo"))?.with_secret(Secret::None);
    repo.ok(&["init", "--no-encryption"])?;
    let (_, key) = file(&scratch, "new.key", &[1; 32])?;
    repo.ok(&["key", "list"])?;
    for words in [
        vec!["key", "add", "--new-key-file", &key],
        vec!["key", "rotate", "--new-key-file", &key],
        vec!["key", "remove", "01234567"],
        vec!["key", "export", "--output", "/nonexistent/sheet"],
    ] {
        repo.fails(64, &words)?.names("not encrypted")?;
    }
    ensure!(repo.objects("keys/")?.is_empty());
    Ok(())
}

#[test]
fn of_two_who_remove_each_others_key_one_stays() -> Result<()> {
    let (scratch, repo, _) = rig("rivals")?;
    for round in 0..8_u8 {
        let name = format!("rival-{round}.key");
        let (path, text) = file(&scratch, &name, &[round; 33])?;
        repo.ok(&["key", "add", "--new-key-file", &text])?;
        let rival = repo.with_secret(Secret::KeyFile(path));
        let ((_, own), (_, theirs)) = (keys(&repo)?, keys(&rival)?);
        let one = repo.command(&["key", "remove", &theirs])?.start()?;
        let other = rival.command(&["key", "remove", &own])?.start()?;
        let codes = [one.wait()?.status.code(), other.wait()?.status.code()];
        let (first, second) = (
            repo.command(&["points"])?.run()?,
            rival.command(&["points"])?.run()?,
        );
        let opens = [&first, &second].map(|outcome| outcome.status.code() == Some(0));
        ensure!(
            opens != [false, false],
            "round {round}: no key is left, {codes:?}"
        );
        match opens {
            [true, true] => drop(repo.ok(&["key", "remove", &theirs])?),
            [true, false] => {}
            _ => {
                let key = match &repo.secret {
                    Secret::KeyFile(file) => file.display().to_string(),
                    _ => String::new(),
                };
                rival.ok(&["key", "rotate", "--new-key-file", &key])?;
            }
        }
        ensure!(keys(&repo)?.0.len() == 1, "round {round}");
    }
    Ok(())
}

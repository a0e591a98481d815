//! Whole ways: backup, incremental backups, restore to a new volume, release; and what is refused.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::mount;
use tests::image::MIB;
use tests::repo::Repo;
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, says};

const SIZE: u64 = 64 * MIB;

pub(crate) fn incremental_and_back(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-incremental", plugin)?;
    let mut volume = rig.volume("db", SIZE)?;
    let before = plugin.leaks()?;
    says(&rig.good_backup(&volume, &[])?, "csi", "no parent")?;
    rig.left(&before, 1, 0)?;
    for round in 1..4 {
        let mut random = rig.random.clone();
        volume.write(round * 5 * MIB + 4096, 8192, &mut random)?;
        rig.random = random;
        let point = rig.good_backup(&volume, &[])?;
        says(&point, "csi", DELTA)?;
        let (read, sampled) = (point.number("read_bytes")?, point.number("sampled_bytes")?);
        ensure!(
            read - sampled <= 256 << 10,
            "two blocks in at most two chunks changed, {read} bytes were read, {sampled} of them samples"
        );
        ensure!(point.json()?["csi"]["base_kept"] == true);
        rig.left(&before, 1, 0)?;
    }
    let restored = rig
        .command(&rig.restore_words("db@latest"))?
        .run()?
        .expect(0)?;
    let id = restored.string("volume_id")?;
    rig.left(&before, 1, 1)?;
    rig.check_volume(&id, &volume)?;
    rig.client.delete_volume(&id)?;
    let gone = rig.csi(&["release", &volume.id])?.json()?;
    ensure!(
        gone["released"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{gone}"
    );
    rig.left(&before, 0, 0)?;
    // Without the base everything allocated is read, and that is said.
    says(&rig.good_backup(&volume, &[])?, "csi", "")?;
    rig.left(&before, 1, 0)
}

pub(crate) fn info_and_refusals(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-refusals", plugin)?;
    let info = rig.csi(&["info"])?.json()?;
    ensure!(
        info["backups"] == true && info["incremental"] == true,
        "{info}"
    );
    ensure!(info["abilities"]["snapshots"] == true, "{info}");
    profile_is_what_flags_take(&rig, &info["profile"])?;
    let volume = rig.volume("v", SMALL)?;
    let before = plugin.leaks()?;
    // A volume that does not exist; a name that is none of ours; flags that make no sense.
    let mut words = rig.backup_words(&volume, &[]);
    words[1] = "csi:nobody".to_owned();
    rig.command(&words)?.run()?.expect(64)?.names("nobody")?;
    words[1] = "csi:".to_owned();
    rig.command(&words)?.run()?.expect(64)?;
    let none = rig.scratch.join("none").display().to_string();
    rig.backup(&volume, &["--csi-secrets", &none])?.expect(64)?;
    rig.backup(&volume, &["--csi-parameter", "a"])?.expect(64)?;
    let missing = format!("{none}/csi.sock");
    let missing = ["--csi-socket", &missing];
    let source = format!("csi:{}", volume.id);
    let refused = rig
        .repo
        .fails(69, &[["backup", &source].as_slice(), &missing].concat())?;
    refused.names(missing[1])?;
    rig.repo
        .fails(64, &["backup", &source])?
        .names("--csi-socket")?;
    let mut words = rig.restore_words("nothing@latest");
    rig.command(&words)?.run()?.expect(64)?;
    words[2] = "csi:old".to_owned();
    rig.command(&words)?.run()?.expect(64)?;
    rig.left(&before, 0, 0)
}

/// Each field that is printed can be given as it is printed, and another value of it counts.
fn profile_is_what_flags_take(rig: &Rig<'_>, printed: &Value) -> Result<()> {
    let fields = printed.as_object().context("a profile")?;
    let known = |flags: &[String]| -> Result<Value> {
        let words: Vec<&str> = ["info"]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .collect();
        Ok(rig.csi(&words)?.json()?["profile"].clone())
    };
    let mut all = Vec::new();
    for (name, value) in fields {
        let word = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let flag = format!("--csi-profile={name}={word}");
        let same = known(std::slice::from_ref(&flag))?;
        ensure!(same == *printed, "{flag} changes {printed} to {same}");
        all.push(flag);
    }
    ensure!(all.len() == 10 && known(&all)? == *printed, "{all:?}");
    all.push("--csi-profile=maxSnapshotsPerVolume=7".to_owned());
    let changed = known(&all)?;
    ensure!(changed["maxSnapshotsPerVolume"] == 7, "{changed}");
    let words = ["csi", "info", "--csi-socket", "/nonexistent"];
    let wrong = ["--csi-profile=maxSnapshots=7"];
    rig.repo
        .fails(64, &[&words[..], &wrong].concat())?
        .names("maxSnapshotsPerVolume")?;
    Ok(())
}

pub(crate) fn without_a_base(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-no-base", plugin)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    rig.left(&before, 1, 0)?;
    let mut random = rig.random.clone();
    volume.write(0, 4096, &mut random)?;
    let point = rig.good_backup(&volume, &["--keep-base", "never"])?;
    // The base was still there for this one, and goes with it.
    says(&point, "csi", DELTA)?;
    ensure!(point.json()?["csi"]["base_kept"] == false);
    rig.left(&before, 0, 0)?;
    volume.write(8192, 4096, &mut random)?;
    let point = rig.good_backup(&volume, &["--keep-base", "never"])?;
    let reason = point.string("changed_blocks_reason")?;
    ensure!(!reason.contains("what changed since"), "{reason}");
    rig.left(&before, 0, 0)
}

pub(crate) fn two_repositories(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-two", plugin)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = plugin.leaks()?;
    let first = rig.repo.clone();
    let second = Repo::directory(&rig.scratch.join("second"))?;
    second.init()?;
    let mut random = rig.random.clone();
    for round in 0..3 {
        for repo in [&first, &second] {
            rig.repo = repo.clone();
            volume.write(round * 8192, 4096, &mut random)?;
            let point = rig.good_backup(&volume, &[])?;
            let why = if round == 0 {
                "no parent"
            } else {
                "what changed since"
            };
            says(&point, "csi", why)?;
        }
    }
    // One base for each.
    rig.left(&before, 2, 0)?;
    rig.csi(&["release", "--all"])?;
    rig.left(&before, 0, 0)
}

/// A volume that is used as a file system is backed up as the block device that it is.
pub(crate) fn mounted_source(driver: &mut TestDriver) -> Result<()> {
    let rig = Rig::new("csi-mounted", driver)?;
    let capability = mount("ext4");
    let made = rig
        .client
        .create_volume_for("files", SIZE, None, capability.clone())?;
    let context = rig.client.controller_publish(&made, "node-1")?;
    let user = Attached::new(rig.plugin, "files", &made, &capability, context)?;
    let before = rig.plugin.leaks()?;
    std::fs::write(user.path().join("note"), "kept")?;
    std::fs::File::open(user.path().join("note"))?.sync_all()?;
    let file_system = std::fs::File::open(user.path())?;
    file_system.sync_all()?;
    let source = format!("csi:{}", made.volume_id);
    let mut words = rig.restore_words("unused");
    words.splice(..3, ["backup".to_owned(), source]);
    let point = rig.command(&words)?.run()?.expect(0)?.string("point")?;
    let image = rig.scratch.join("files.img");
    rig.repo.restore(&point, &image, &[])?;
    let bytes = std::fs::read(&image)?;
    // The magic number of ext4, 56 bytes into the superblock at 1024.
    ensure!(bytes[1080..1082] == [0x53, 0xEF], "no ext4 was restored");
    ensure!(
        bytes.windows(4).any(|window| window == b"kept"),
        "no file content was restored"
    );
    rig.left(&before, 1, 0)
}

//! Drivers that say what is not so, or too much: no wrong point, nothing left, and no secret shown.

use anyhow::{Context, Result, ensure};
use tests::csi_driver::faults::{Fault, Order};
use tests::snaphaul::Outcome;
use tests::test_driver::TestDriver;

use crate::rig::{Rig, SMALL, files};

/// Sizes that the driver does not tell, and devices that are smaller than it tells: all of the volume, or no point.
pub(crate) fn sizes(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-sizes", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let unknown = |call| Order::next(call, Fault::UnknownSize);
    for call in ["CreateSnapshot", "CreateVolume"] {
        driver.order(&[unknown(call)])?;
        rig.good_backup(&volume, &[]).context(call)?;
        rig.left(&before, 1, 0).context(call)?;
    }
    // The volume itself tells it then.
    driver.order(&[unknown("CreateSnapshot"), unknown("CreateVolume")])?;
    rig.good_backup(&volume, &[])?;
    rig.left(&before, 1, 0)?;
    driver.order(&[
        unknown("CreateSnapshot"),
        unknown("CreateVolume"),
        unknown("ControllerGetVolume"),
    ])?;
    rig.backup(&volume, &[])?
        .expect(69)?
        .names("tells no size")?;
    rig.left(&before, 1, 0)?;
    let short = |bytes| Order::next("NodeStageVolume", Fault::ShortDevice { bytes });
    for bytes in [512, 1 << 20] {
        driver.order(&[short(bytes)])?;
        rig.backup(&volume, &[])?
            .expect(69)?
            .names("would be lost")?;
        rig.left(&before, 1, 0)?;
    }
    // A driver that makes volumes of whole MiB, and tells the size that it was asked for.
    let odd = rig.volume("odd", SMALL + 512)?;
    let with_both = rig.plugin.leaks()?;
    driver.order(&[short(512)])?;
    let rounded = rig.backup(&odd, &["--keep-base", "never"])?.expect(0)?;
    ensure!(rounded.number("size_bytes")? == SMALL);
    ensure!(
        rounded.json()?["warnings"]
            .to_string()
            .contains("its device has")
    );
    rig.left(&with_both, 0, 0)?;
    rig.good_backup(&volume, &[])?;
    rig.left(&with_both, 1, 0)
}

/// Volumes and snapshots that are not of what was asked for: no point, nothing left, and the volume of the user stays.
pub(crate) fn wrong_sources(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-wrong-sources", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for (call, fault, names) in [
        ("CreateVolume", Fault::IgnoreSource, "from nothing"),
        ("CreateVolume", Fault::OtherSource, "the volume itself"),
        (
            "CreateSnapshot",
            Fault::OtherSource,
            "says that it is one of",
        ),
    ] {
        driver.order(&[Order::next(call, fault)])?;
        rig.backup(&volume, &[])?.expect(69)?.names(names)?;
        rig.left(&before, 1, 0).with_context(|| names)?;
    }
    rig.good_backup(&volume, &[])?;
    rig.left(&before, 1, 0)
}

/// Trimmed, by the line and in other writings it is a secret, too.
const SECRET: &str = "  hunter2 of-the/storage+\"1\"\nsecond-line-of-it%\n";
/// What of it tells it.
const PARTS: [&str; 4] = [
    "hunter2",
    "of-the/storage",
    "second-line",
    "%73%65%63%6F%6E%64",
];

/// Without secrets a driver that wants some refuses; with them they are nowhere but in the calls.
pub(crate) fn secrets(_: &mut TestDriver) -> Result<()> {
    let driver = TestDriver::start(|options| {
        options
            .secrets
            .insert("userKey".to_owned(), SECRET.to_owned());
    })?;
    let rig = Rig::new("csi-secrets", &driver)?;
    let folder = rig.scratch.join("secrets");
    for group in [
        "provisioner",
        "controller-publish",
        "node-stage",
        "node-publish",
        "snapshotter",
        "snapshotter-list",
    ] {
        std::fs::create_dir_all(folder.join(group))?;
        std::fs::write(folder.join(group).join("userKey"), format!("{SECRET}\n"))?;
    }
    // The client of the tests has none, so that this volume is made by a restore.
    let image = tests::image::Image::mixed(
        &rig.scratch.join("disk.img"),
        SMALL,
        &mut rig.random.clone(),
    )?;
    rig.repo.backup(&image.path, "disk", &[])?;
    rig.command(&rig.restore_words("disk@latest"))?
        .run()?
        .expect(64)?;
    let shown = folder.display().to_string();
    let mut words = rig.restore_words("disk@latest");
    words.extend([
        "--csi-secrets".to_owned(),
        shown,
        "--log".to_owned(),
        "trace".to_owned(),
    ]);
    let restored = rig.command(&words)?.run()?.expect(0)?;
    words[0] = "backup".to_owned();
    words[1] = format!("csi:{}", restored.string("volume_id")?);
    words.remove(2);
    let backed = rig.command(&words)?.run()?.expect(0)?;
    let point = backed.string("point")?;
    rig.repo
        .restore(&point, &rig.scratch.join("again.img"), &[])?;
    image.assert_same(&rig.scratch.join("again.img"))?;
    let mut outcomes = told_back(&driver, &rig, &words)?;
    outcomes.extend([restored, backed]);
    hidden(&rig, &outcomes)
}

/// What runs say whose driver repeats the secrets in its errors.
fn told_back(driver: &TestDriver, rig: &Rig<'_>, words: &[String]) -> Result<Vec<Outcome>> {
    driver.order(&[Order::next("GetMetadataDelta", Fault::Echo { code: 7 })])?;
    let read = rig.command(words)?.run()?.expect(0)?;
    ensure!(
        read.json()?.to_string().contains("(redacted)"),
        "{}",
        read.text()
    );
    let mut outcomes = vec![read];
    for call in ["CreateSnapshot", "CreateVolume", "NodeStageVolume"] {
        driver.order(&[Order::next(call, Fault::Echo { code: 16 }).times(0)])?;
        let refused = rig.command(words)?.run()?.expect(64)?;
        let shown = refused.complaint()?;
        ensure!(
            shown.contains("cannot log in with userKey=(redacted)"),
            "{shown}"
        );
        outcomes.push(refused);
    }
    driver.order(&[])?;
    Ok(outcomes)
}

/// Nothing of the secret is in what runs said, or noted.
fn hidden(rig: &Rig<'_>, outcomes: &[Outcome]) -> Result<()> {
    for outcome in outcomes {
        for part in PARTS {
            let shown = [&outcome.stderr, &outcome.text()].map(|text| text.contains(part));
            ensure!(shown == [false; 2], "{part}: {}", outcome.shown);
        }
    }
    for file in files(&rig.scratch.join("state")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        ensure!(
            !PARTS.iter().any(|part| text.contains(part)),
            "{} holds the secret",
            file.display()
        );
    }
    Ok(())
}

//! What a driver is asked for: modes of access, sizes and secrets, as its record shows them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use csi_proto::csi::volume_capability::access_mode::Mode;
use tests::csi_driver::faults::{Fault, Order};
use tests::csi_driver::record::Call;
use tests::test_driver::TestDriver;

use crate::rig::{Rig, SMALL};

/// Controller and node declare the newer access modes each for itself: each is asked only for what it declares, and refuses the rest.
pub(crate) fn modes_of_access(_: &mut TestDriver) -> Result<()> {
    for (controller, node) in [(false, false), (false, true), (true, false), (true, true)] {
        let context = || format!("controller {controller}, node {node}");
        let driver = TestDriver::start(|options| {
            options.attach = true;
            options.controller_multi_writer = controller;
            options.node_multi_writer = node;
        })?;
        let mut rig = Rig::new("csi-modes", &driver)?;
        let volume = rig.volume("v", SMALL)?;
        let before = rig.plugin.leaks()?;
        let first = driver.calls()?.len();
        rig.good_backup(&volume, &["--keep-base", "never"])
            .with_context(context)?;
        let restored = rig.command(&rig.restore_words("v@latest"))?.run()?;
        restored.expect(0).with_context(context)?;
        for (calls, is_newer) in [
            (["CreateVolume", "ControllerPublishVolume"], controller),
            (["NodeStageVolume", "NodePublishVolume"], node),
        ] {
            let mode = if is_newer {
                Mode::SingleNodeMultiWriter
            } else {
                Mode::SingleNodeWriter
            };
            for call in calls {
                let asked = asked(&driver, first, call, |one| one.subject.mode)?;
                ensure!(
                    asked == [i32::from(mode); 2],
                    "{}: {call} asked for {asked:?}",
                    context()
                );
            }
        }
        rig.left(&before, 0, 1).with_context(context)?;
    }
    Ok(())
}

/// A clone is as large as the larger of snapshot and volume, however the volume's size is told; where the driver makes no such
/// volume, as large as the snapshot.
pub(crate) fn sizes_of_clones(_: &mut TestDriver) -> Result<()> {
    for get_volume in [true, false] {
        let driver = TestDriver::start(|options| options.get_volume = get_volume)?;
        let mut rig = Rig::new("csi-clone-sizes", &driver)?;
        let volume = rig.volume("v", SMALL)?;
        let before = rig.plugin.leaks()?;
        let tells = if get_volume {
            "ControllerGetVolume"
        } else {
            "ListVolumes"
        };
        let holds = Order::next("CreateSnapshot", Fault::OtherSize { bytes: 4096 });
        let sizes = |first| asked(&driver, first, "CreateVolume", |one| one.subject.bytes);
        let size = |bytes: u64| i64::try_from(bytes).ok();
        // The snapshot tells how much it holds; a volume of that size cannot be made of it.
        let first = driver.calls()?.len();
        driver.order(std::slice::from_ref(&holds))?;
        rig.good_backup(&volume, &[]).context(tells)?;
        ensure!(sizes(first)? == [size(SMALL)], "{:?}", sizes(first)?);
        rig.left(&before, 1, 0)?;
        // Nobody tells the size of the volume, in whatever way.
        for fault in [Fault::UnknownSize, Fault::Refuse { code: 13 }] {
            let first = driver.calls()?.len();
            driver.order(&[
                Order::next("CreateSnapshot", Fault::OtherSize { bytes: 4096 }),
                Order::next(tells, fault),
            ])?;
            rig.backup(&volume, &[])?
                .expect(64)?
                .names("of this size")?;
            ensure!(sizes(first)? == [size(4096)], "{:?}", sizes(first)?);
            rig.left(&before, 1, 0)?;
        }
        driver.order(&[])?;
        rig.good_backup(&volume, &[])?;
        rig.left(&before, 1, 0)?;
    }
    larger_is_refused()
}

/// A driver that makes no volume larger than its snapshot, although its volume says that it is.
fn larger_is_refused() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let mut rig = Rig::new("csi-larger", &driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let first = driver.calls()?.len();
    let twice = Fault::OtherSize { bytes: 2 * SMALL };
    driver.order(&[
        Order::next("ControllerGetVolume", twice.clone()),
        Order::next("CreateVolume", Fault::Refuse { code: 11 }),
    ])?;
    rig.good_backup(&volume, &[])?;
    let sizes = |first| asked(&driver, first, "CreateVolume", |one| one.subject.bytes);
    let wanted = [2 * SMALL, SMALL].map(|bytes| i64::try_from(bytes).ok());
    ensure!(sizes(first)? == wanted, "{:?}", sizes(first)?);
    rig.left(&before, 1, 0)?;
    // The snapshot of somebody else is older than what his volume is now.
    let older = rig.client.create_snapshot("older", &volume.id)?.snapshot_id;
    let with_older = rig.plugin.leaks()?;
    let first = driver.calls()?.len();
    driver.order(&[Order::next("ControllerGetVolume", twice)])?;
    let mut words = rig.backup_words(&volume, &[]);
    words[1] = format!("csi:{}@{older}", volume.id);
    let point = rig.command(&words)?.run()?.expect(0)?;
    rig.check_point(&volume, &point)?;
    ensure!(sizes(first)? == [size_of_small()], "{:?}", sizes(first)?);
    // It took the place of the base.
    ensure!(rig.client.snapshots()? == BTreeSet::from([older]));
    rig.left(&with_older, 0, 0)
}

fn size_of_small() -> Option<i64> {
    i64::try_from(SMALL).ok()
}

/// ListSnapshots gets the secrets of its own group, and no other call does; without such a group it gets those of snapshots.
pub(crate) fn secrets_of_lists(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-list-secrets", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let given = rig.client.create_snapshot("given", &volume.id)?.snapshot_id;
    let folder = rig.scratch.join("secrets");
    let shown = folder.display().to_string();
    for (group, key) in [("snapshotter", "takes"), ("snapshotter-list", "lists")] {
        std::fs::create_dir_all(folder.join(group))?;
        std::fs::write(folder.join(group).join(key), "secret")?;
    }
    let mut words = rig.backup_words(&volume, &["--csi-secrets", &shown]);
    words[1] = format!("csi:{}@{given}", volume.id);
    let keys = |call: &str, first| -> Result<BTreeSet<String>> {
        let asked = asked(driver, first, call, |one| one.subject.secrets.clone())?;
        ensure!(!asked.is_empty(), "no {call}");
        Ok(asked.into_iter().flatten().collect())
    };
    for (lists, snapshots) in [("lists", "takes"), ("takes", "takes")] {
        let first = driver.calls()?.len();
        rig.command(&words)?.run()?.expect(0)?;
        ensure!(keys("ListSnapshots", first)? == BTreeSet::from([lists.to_owned()]));
        let asks = keys("GetMetadataAllocated", first).or_else(|_| keys("GetMetadataDelta", first));
        ensure!(asks? == BTreeSet::from([snapshots.to_owned()]));
        ensure!(keys("CreateVolume", first)?.is_empty());
        if lists == "lists" {
            std::fs::remove_dir_all(folder.join("snapshotter-list"))?;
        }
    }
    Ok(())
}

/// What the calls of this name, from the one of this number on, asked for.
fn asked<T>(
    driver: &TestDriver,
    first: usize,
    call: &str,
    what: impl Fn(&Call) -> T,
) -> Result<Vec<T>> {
    let calls = driver.calls()?;
    let own = calls[first..].iter().filter(|one| one.call == call);
    Ok(own.map(what).collect())
}

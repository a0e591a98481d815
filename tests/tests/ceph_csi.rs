//! The newer Ceph of the tests, and images in it as ceph-csi leaves them: that the layout is really the one others build on.
//!
//! The whole test runs on that Ceph: `main` begins by starting it again there.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use tests::ceph::{BlockCeph, Ceph};
use tests::ceph_csi::{CephCsi, Snapshot, Volume, handle};
use tests::ceph_root::CephRoot;
use tests::part;
use tests::random::Random;
use tests::rbd_pool::{Change, RbdPool};

const MIB: u64 = 1 << 20;
const OBJECT: u64 = 4 * MIB;
const VOLUME: u64 = 16 * OBJECT;

type Case = fn(&CephCsi) -> Result<()>;
type Rig = Arc<Mutex<Option<(BlockCeph, CephCsi)>>>;

fn main() -> ExitCode {
    if let Err(error) = CephRoot::enter() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::from_args();
    let rig = Rig::default();
    let cases: [(&str, Case); 6] = [
        ("snapshots_are_clones_of_trashed_snapshots", layout),
        (
            "a_deleted_volume_keeps_its_snapshots_in_the_trash",
            delete_volume,
        ),
        ("a_flattened_snapshot_forgets_its_parent", flatten),
        (
            "a_deleted_snapshot_takes_the_trashed_one_along",
            delete_snapshot,
        ),
        ("a_restored_volume_is_a_clone_of_a_clone", restore),
        ("changes_land_where_they_should", changes),
    ];
    let mut trials = vec![
        Trial::test("programs_and_libraries_are_the_newer_ones", || {
            newer().map_err(|error| format!("{error:#}").into())
        }),
        Trial::test("handles_have_the_form_of_ceph_csi", || {
            handles().map_err(|error| format!("{error:#}").into())
        }),
    ];
    for (name, case) in cases {
        let rig = Arc::clone(&rig);
        trials.push(Trial::test(name, move || {
            on(&rig, case).map_err(|error| format!("{error:#}").into())
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The daemons stop here: nothing drops what `main` still holds at its end.
    drop(rig);
    conclusion.exit_code()
}

/// One cluster for all cases, started by the first; each case makes volumes of its own.
fn on(rig: &Rig, case: Case) -> Result<()> {
    // A case that panicked leaves a cluster that the others can use.
    let mut rig = rig.lock().unwrap_or_else(PoisonError::into_inner);
    if rig.is_none() {
        let begin = Instant::now();
        let cluster = Ceph::start_block()?;
        let pool = RbdPool::create(&cluster.conf(), "volumes")?;
        eprintln!("the newer Ceph is up after {:?}", begin.elapsed());
        *rig = Some((
            cluster,
            CephCsi::new(
                pool,
                "layering,exclusive-lock,object-map,fast-diff,deep-flatten",
            ),
        ));
    }
    let (_, csi) = rig.as_ref().context("a started cluster")?;
    case(csi)
}

/// A volume with some data, a snapshot, some more data, and a second snapshot.
fn two_snapshots(csi: &CephCsi) -> Result<(Volume, Snapshot, Snapshot)> {
    let volume = csi.create_volume(VOLUME)?;
    let written = |offset, byte| Change::Write {
        offset,
        data: vec![byte; 65_536],
    };
    csi.pool()
        .apply(&volume.image(), &[written(0, 1), written(OBJECT, 2)])?;
    let first = csi.create_snapshot(&volume)?;
    csi.pool().apply(
        &volume.image(),
        &[written(OBJECT, 3), written(3 * OBJECT, 4)],
    )?;
    let second = csi.create_snapshot(&volume)?;
    Ok((volume, first, second))
}

/// The parent that `rbd info` shows; null where there is none.
fn parent(csi: &CephCsi, image: &str) -> Result<Value> {
    Ok(csi.pool().info(image)?["parent"].clone())
}

fn newer() -> Result<()> {
    let version = part::run(Command::new("/usr/bin/rbd").arg("--version"))?;
    ensure!(version.contains("ceph version 18."), "rbd is {version}");
    // The C library that this very process has mapped must be the root's: an older one cannot load that release's librbd.
    let root = CephRoot::find()?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mapped = maps
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| {
            columns
                .last()
                .is_some_and(|path| path.ends_with("/libc.so.6"))
        })
        .context("a C library")?;
    let library = root.file(Path::new(mapped[5]))?;
    let inode = std::fs::metadata(&library)?.ino();
    ensure!(
        mapped[4] == inode.to_string(),
        "{} is not {mapped:?}",
        library.display()
    );
    let symbols = std::fs::read(library.with_file_name("librbd.so.1"))?;
    let wanted = b"rbd_diff_iterate3\0";
    ensure!(
        symbols.windows(wanted.len()).any(|bytes| bytes == wanted),
        "librbd has no rbd_diff_iterate3"
    );
    Ok(())
}

fn handles() -> Result<()> {
    let uuid = "0d9b4c4e-72a1-4a6e-9f0b-6a3c5a7d9e10";
    let made = handle("c1uster-ID", 26, uuid);
    ensure!(
        made == format!("0001-000a-c1uster-ID-000000000000001a-{uuid}"),
        "made {made}"
    );
    Ok(())
}

fn layout(csi: &CephCsi) -> Result<()> {
    let (volume, first, second) = two_snapshots(csi)?;
    let on_volume = csi.pool().snapshots(&volume.image_id)?;
    ensure!(
        on_volume.len() == 2,
        "two snapshots on the volume: {on_volume:?}"
    );
    ensure!(
        on_volume[0]["id"].as_u64() < on_volume[1]["id"].as_u64(),
        "older ids are lower: {on_volume:?}"
    );
    for (seen, snapshot) in on_volume.iter().zip([&first, &second]) {
        let namespace = json!({"type": "trash", "original_name": snapshot.image()});
        ensure!(
            seen["namespace"] == namespace,
            "in the trash namespace: {seen}"
        );
        ensure!(seen["name"] != snapshot.image().as_str(), "renamed: {seen}");

        let info = csi.pool().info(&snapshot.image())?;
        let expected = json!({
            "pool": "volumes", "pool_namespace": "", "image": volume.image(), "id": volume.image_id,
            "snapshot": seen["name"], "trash": false, "overlap": VOLUME,
        });
        ensure!(
            info["parent"] == expected,
            "parent {} is not {expected}",
            info["parent"]
        );
        let features = info["features"].as_array().cloned().unwrap_or_default();
        for feature in ["layering", "deep-flatten"] {
            ensure!(features.contains(&json!(feature)), "{feature} in {info}");
        }
        ensure!(
            !features.contains(&json!("exclusive-lock")),
            "no more features than ceph-csi gives: {info}"
        );
        ensure!(
            info["op_features"] == json!(["clone-child"]),
            "a clone of format 2: {info}"
        );

        let on_clone = csi.pool().snapshots(&snapshot.image_id)?;
        ensure!(
            on_clone.len() == 1,
            "one snapshot on the clone: {on_clone:?}"
        );
        ensure!(
            on_clone[0]["name"] == snapshot.image().as_str(),
            "of its name: {on_clone:?}"
        );
        ensure!(
            on_clone[0]["namespace"] == json!({"type": "user"}),
            "that users see: {on_clone:?}"
        );
    }
    let info = csi.pool().info(&volume.image())?;
    ensure!(
        info["op_features"] == json!(["clone-parent", "snap-trash"]),
        "the volume's own state: {info}"
    );
    let pool = csi.pool().id()?;
    let handle = csi.handle("ceph", &second.uuid)?;
    ensure!(
        handle == format!("0001-0004-ceph-{pool:016x}-{}", second.uuid),
        "handle {handle}"
    );
    Ok(())
}

fn delete_volume(csi: &CephCsi) -> Result<()> {
    let (volume, first, second) = two_snapshots(csi)?;
    let before = csi.pool().content(&first.spec())?;
    csi.delete_volume(&volume)?;
    ensure!(
        csi.pool().info(&volume.image()).is_err(),
        "no image of that name is left"
    );
    let trashed = csi
        .pool()
        .json(&["trash", "ls", "--all", csi.pool().name()])?;
    ensure!(
        trashed
            .as_array()
            .into_iter()
            .flatten()
            .any(|image| image["id"] == volume.image_id.as_str()),
        "{} is not in the trash: {trashed}",
        volume.image_id
    );
    ensure!(
        csi.pool().snapshots(&volume.image_id)?.len() == 2,
        "both snapshots are there by id"
    );
    for snapshot in [&first, &second] {
        let parent = parent(csi, &snapshot.image())?;
        ensure!(
            parent["trash"] == true && parent["id"] == volume.image_id.as_str(),
            "parent {parent}"
        );
    }
    ensure!(
        csi.pool().content(&first.spec())? == before,
        "the snapshot still reads through its trashed parent"
    );
    Ok(())
}

fn flatten(csi: &CephCsi) -> Result<()> {
    let (volume, first, second) = two_snapshots(csi)?;
    let before = csi.pool().content(&first.spec())?;
    csi.flatten(&first)?;
    ensure!(parent(csi, &first.image())?.is_null(), "no parent is left");
    let left = csi.pool().snapshots(&volume.image_id)?;
    ensure!(
        left.len() == 1,
        "only the other trashed snapshot is left: {left:?}"
    );
    ensure!(
        left[0]["namespace"]["original_name"] == second.image().as_str(),
        "{left:?}"
    );
    ensure!(
        csi.pool().content(&first.spec())? == before,
        "flattening keeps the content"
    );
    Ok(())
}

fn delete_snapshot(csi: &CephCsi) -> Result<()> {
    let (volume, first, second) = two_snapshots(csi)?;
    csi.delete_snapshot(&first)?;
    ensure!(
        csi.pool().info(&first.image()).is_err(),
        "the clone is gone"
    );
    let left = csi.pool().snapshots(&volume.image_id)?;
    ensure!(left.len() == 1, "one trashed snapshot is left: {left:?}");
    ensure!(
        left[0]["namespace"]["original_name"] == second.image().as_str(),
        "{left:?}"
    );
    Ok(())
}

fn restore(csi: &CephCsi) -> Result<()> {
    let (_, first, _) = two_snapshots(csi)?;
    let restored = csi.restore_volume(&first)?;
    let parent = parent(csi, &restored.image())?;
    ensure!(
        parent["id"] == first.image_id.as_str() && parent["snapshot"] == first.image().as_str(),
        "parent {parent}"
    );
    ensure!(
        csi.pool().content(&restored.image())? == csi.pool().content(&first.spec())?,
        "it has the snapshot's content"
    );
    let again = csi.create_snapshot(&restored)?;
    let grandparent = self::parent(csi, &again.image())?;
    ensure!(
        grandparent["id"] == restored.image_id.as_str(),
        "a snapshot of it is a clone of it: {grandparent}"
    );
    Ok(())
}

/// Random writes and discards through the command, against the same on a plain array.
fn changes(csi: &CephCsi) -> Result<()> {
    let mut random = Random::from_environment("changes_land_where_they_should");
    let volume = csi.create_volume(VOLUME)?;
    let mut expected = vec![0; usize::try_from(VOLUME)?];
    let mut kept = Vec::new();
    for _ in 0..3 {
        let list: Vec<_> = (0..20).map(|_| change(&mut random)).collect();
        list.iter()
            .try_for_each(|change| on_array(&mut expected, change))?;
        csi.pool().apply(&volume.image(), &list)?;
        kept.push((csi.create_snapshot(&volume)?, expected.clone()));
    }
    for (snapshot, expected) in &kept {
        ensure!(
            csi.pool().content(&snapshot.spec())? == *expected,
            "{} differs",
            snapshot.image()
        );
    }
    Ok(())
}

fn change(random: &mut Random) -> Change {
    let offset = random.next_u64() % VOLUME;
    let length = 1 + random.next_u64() % (VOLUME - offset).min(300_000);
    if random.next_u64().is_multiple_of(3) {
        return Change::Discard { offset, length };
    }
    let byte = u8::try_from(random.next_u64() % 256).expect("a remainder of 256 is a byte");
    Change::Write {
        offset,
        data: vec![byte; usize::try_from(length).expect("below 300,001")],
    }
}

fn on_array(array: &mut [u8], change: &Change) -> Result<()> {
    let (offset, length, byte) = match change {
        Change::Write { offset, data } => (*offset, data.len(), data[0]),
        Change::Discard { offset, length } => (*offset, usize::try_from(*length)?, 0),
    };
    let offset = usize::try_from(offset)?;
    array[offset..offset + length].fill(byte);
    Ok(())
}

//! Clones: those of ceph-csi's kind, and what shows through where objects come and go.
//!
//! Owns: those cases. Must not: break the cluster.

use anyhow::{Result, ensure};
use changed_blocks::rbd::Access;
use changed_blocks::{ChangedBlocks, ExtentKind, contract};

use crate::binding::{SIZE, bind, identity, image, open, refused};
use crate::content;
use crate::site::Site;
use crate::writer::{LAYERING, Writer};

const MIB: u64 = 1 << 20;

/// Two clones of two snapshots of one origin, as ceph-csi makes them for two snapshots of one volume.
pub(crate) fn of_one_origin(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let origin = image(site, &mut writer, "origin", &["s1", "s2", "s3"])?;
    let features = LAYERING.to_string();
    let mut clones = Vec::new();
    for snapshot in ["s1", "s2", "s3"] {
        let clone = site.name("csi-snap");
        writer.order(&["clone", &origin, snapshot, &clone, &features, "20"])?;
        writer.order(&["snapshot", &clone, "own"])?;
        clones.push(clone);
    }
    let own = |index: usize| format!("{}@own", clones[index]);
    let base = identity(site, &own(0))?;
    let mut target = open(site, &own(1))?;
    bind(&mut target, &base, None)?;
    let read = |index: usize| -> Result<Vec<u8>> {
        content::read(&site.open(&clones[index], Some("own"), Access::Read)?)
    };
    let changed = content::changed(&read(0)?, &read(1)?);
    ensure!(!changed.is_empty());
    contract::check_delta(&mut target, SIZE, &changed);
    contract::check_allocated(&mut target, SIZE, &content::not_zero(&read(1)?));

    // Somebody wrote to a clone, and zeroed what its origin holds, before it was frozen again.
    writer.change("write", &clones[2], &[9 * MIB, 4096, 5])?;
    writer.change("zero", &clones[2], &[2 * MIB, MIB])?;
    writer.order(&["snapshot", &clones[2], "late"])?;
    let late = content::read(&site.open(&clones[2], Some("late"), Access::Read)?)?;
    let mut target = open(site, &format!("{}@late", clones[2]))?;
    bind(&mut target, &base, None)?;
    contract::check_delta(&mut target, SIZE, &content::changed(&read(0)?, &late));

    // The snapshots go to the trash, where only their ids are known.
    for snapshot in ["s1", "s2", "s3"] {
        writer.order(&["remove_snapshot", &origin, snapshot])?;
    }
    let trashed = site.open(&origin, None, Access::Read)?.snapshots()?;
    let names: Vec<_> = trashed
        .iter()
        .map(|snapshot| snapshot.original_name.as_deref())
        .collect();
    ensure!(names == [Some("s1"), Some("s2"), Some("s3")], "{trashed:?}");
    let mut target = open(site, &own(1))?;
    if site.cluster.library().diffs_by_id() {
        bind(&mut target, &base, None)?;
        contract::check_delta(&mut target, SIZE, &changed);
    } else {
        refused(&mut target, &base, "in the trash")?;
    }
    contract::check_allocated(&mut target, SIZE, &content::not_zero(&read(1)?));

    writer.order(&["flatten", &clones[1]])?;
    writer.order(&["snapshot", &clones[1], "flat"])?;
    let mut target = open(site, &format!("{}@flat", clones[1]))?;
    refused(&mut target, &base, "was flattened")
}

/// What a clone does not show any more: librbd tells nothing of what was cut off and came back as zeros.
pub(crate) fn shrunk_and_grown(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 4096)?;
    let parent = site.name("full");
    writer.create(&parent, SIZE, LAYERING)?;
    writer.change("write", &parent, &[0, SIZE, 1])?;
    writer.order(&["snapshot", &parent, "s"])?;
    let clone = site.name("cut");
    writer.order(&["clone", &parent, "s", &clone, &LAYERING.to_string(), "20"])?;
    writer.order(&["snapshot", &clone, "a"])?;
    writer.change("resize", &clone, &[5 * MIB + 77])?;
    writer.change("resize", &clone, &[SIZE])?;
    writer.change("zero", &clone, &[MIB, MIB])?;
    writer.change("discard", &clone, &[2 * MIB + 4096, MIB - 4096])?;
    writer.change("discard", &clone, &[3 * MIB, MIB])?;
    writer.order(&["snapshot", &clone, "b"])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&clone, Some(snapshot), Access::Read)?)
    };
    let (before, after) = (read("a")?, read("b")?);
    let changed = content::changed(&before, &after);
    ensure!(
        changed.bytes().0 > 9 * MIB,
        "the image was cut: {}",
        changed.bytes()
    );
    let record = identity(site, &format!("{clone}@a"))?;
    let mut source = open(site, &format!("{clone}@b"))?;
    bind(&mut source, &record, None)?;
    contract::check_delta(&mut source, SIZE, &changed);
    contract::check_allocated(&mut source, SIZE, &content::not_zero(&after));
    source.delta(&mut |extent| {
        assert!(extent.kind == ExtentKind::Data || content::is_zero(&after, extent));
        true
    })?;
    Ok(())
}

/// Objects that come and go over a parent, as clients leave them that are not librbd: what librbd tells of them is not what
/// the image shows.
pub(crate) fn objects_over_a_parent(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 4096)?;
    let parent = site.name("under");
    writer.create(&parent, SIZE, LAYERING)?;
    writer.change("write", &parent, &[0, SIZE, 1])?;
    writer.order(&["snapshot", &parent, "s"])?;
    let clone = site.name("over");
    writer.order(&["clone", &parent, "s", &clone, &LAYERING.to_string(), "20"])?;
    writer.change("write", &clone, &[3 * MIB, MIB, 2])?;
    writer.change("hide", &clone, &[7])?;
    writer.order(&["snapshot", &clone, "a"])?;
    // An object of no length hides the parent; an object that went away shows it.
    writer.change("hide", &clone, &[5])?;
    for object in [3, 7] {
        writer.change("reveal", &clone, &[object])?;
    }
    writer.order(&["snapshot", &clone, "b"])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&clone, Some(snapshot), Access::Read)?)
    };
    let (before, after) = (read("a")?, read("b")?);
    let changed = content::changed(&before, &after);
    ensure!(changed.bytes().0 > 3 * MIB - 30_000, "{}", changed.bytes());
    let record = identity(site, &format!("{clone}@a"))?;
    let mut source = open(site, &format!("{clone}@b"))?;
    bind(&mut source, &record, None)?;
    source.delta(&mut |extent| {
        assert!(
            extent.kind == ExtentKind::Data || content::is_zero(&after, extent),
            "{extent:?}"
        );
        true
    })?;
    contract::check_delta(&mut source, SIZE, &changed);
    contract::check_allocated(&mut source, SIZE, &content::not_zero(&after));
    Ok(())
}

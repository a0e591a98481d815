//! Bases that are gone, others, or not comparable: a reason, a full backup, and never a wrong delta.
//!
//! Owns: those cases, and the clones of ceph-csi's kind. Must not: break the cluster.

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{Access, RbdOptions, RbdSource, cross_check};
use changed_blocks::{
    Base, ChangedBlocks, ExtentKind, ExtentSet, Identity, SourceError, SourceErrorKind, contract,
    source::Trust,
};

use crate::content;
use crate::site::{POOL, Site};
use crate::writer::{FAST_DIFF, LAYERING, Writer};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 12 * MIB;
const PLAIN: RbdOptions = RbdOptions {
    whole_object: false,
};

fn open(site: &Site, image: &str) -> Result<RbdSource, SourceError> {
    let name = format!("rbd:{POOL}/{image}");
    let name = name
        .parse()
        .map_err(|error| SourceError::full(format!("{error}")))?;
    RbdSource::open(&site.cluster, &name, PLAIN)
}

fn identity(site: &Site, snapshot: &str) -> Result<Identity> {
    let source = open(site, snapshot)?;
    source.identity().context("snapshots have an identity")
}

fn bind(source: &mut RbdSource, record: &Identity, named: Option<&str>) -> Result<(), SourceError> {
    source.bind(&Base {
        record,
        point: "p1",
        named,
    })
}

/// That `source` cannot be bound to `record`, for a reason that says `because`.
fn refused(source: &mut RbdSource, record: &Identity, because: &str) -> Result<()> {
    let error = bind(source, record, None).err().context("it was bound")?;
    ensure!(error.kind == SourceErrorKind::FullBackup, "{error}");
    ensure!(error.message.contains(because), "{because}: {error}");
    contract::check_without_base(source);
    Ok(())
}

/// An image with a snapshot for each of `snapshots`, something written before each.
fn image(site: &Site, writer: &mut Writer, kind: &str, snapshots: &[&str]) -> Result<String> {
    let image = site.name(kind);
    writer.create(&image, SIZE, LAYERING)?;
    for (number, snapshot) in (1..).zip(snapshots) {
        writer.change("write", &image, &[number * MIB + 7, 5000, number])?;
        writer.order(&["snapshot", &image, snapshot])?;
    }
    Ok(image)
}

pub(crate) fn bases(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let one = image(site, &mut writer, "one", &["a", "b", "c"])?;
    let other = image(site, &mut writer, "other", &["a"])?;
    let [a, b, c] = ["a", "b", "c"].map(|snapshot| format!("{one}@{snapshot}"));
    let [record_a, record_b, record_c] = [
        identity(site, &a)?,
        identity(site, &b)?,
        identity(site, &c)?,
    ];

    let mut source = open(site, &b)?;
    refused(
        &mut source,
        &identity(site, &format!("{other}@a"))?,
        "another image",
    )?;
    refused(&mut source, &record_c, "younger")?;
    refused(
        &mut source,
        &record_a.clone().with("fsid", "x"),
        "in the cluster x",
    )?;
    refused(&mut source, &record_a.clone().with("size", 5), "size is")?;
    refused(&mut source, &record_a.clone().with("pool", 99_999), "pool")?;
    refused(
        &mut source,
        &record_a.clone().with("snapshot", "?"),
        "not a number",
    )?;
    refused(
        &mut source,
        &Identity::new("fiemap").with("ino", 1),
        "it is of fiemap",
    )?;
    let wrong = format!("rbd:{POOL}/{c}");
    let error = bind(&mut source, &record_a, Some(&wrong))
        .err()
        .context("bound")?;
    ensure!(
        error.message.contains("of the recorded one snapshot is"),
        "{error}"
    );
    bind(&mut source, &record_a, Some(&format!("rbd:{POOL}/{a}")))?;
    bind(&mut source, &record_b, None)?;
    ensure!(
        source.delta(&mut |_| true)?.extents == 0,
        "a snapshot differs from itself"
    );

    // The head is not frozen.
    let mut head = open(site, &one)?;
    ensure!(head.identity().is_none());
    refused(&mut head, &record_a, "not frozen")?;

    // Another name is the same snapshot; the same name may be another one.
    writer.order(&["rename_snapshot", &one, "a", "renamed"])?;
    bind(&mut source, &record_a, None)?;
    ensure!(source.delta(&mut |_| true)?.extents > 0);
    writer.order(&["remove_snapshot", &one, "renamed"])?;
    writer.order(&["snapshot", &one, "a"])?;
    refused(&mut source, &record_a, "was deleted")?;
    let mut source = open(site, &c)?;
    refused(&mut source, &record_a, "the snapshot with id")?;

    let kinds = [format!("{one}@none"), "none@a".to_owned()]
        .map(|name| open(site, &name).map(drop).map_err(|error| error.kind));
    ensure!(kinds == [Err(SourceErrorKind::GiveUp); 2], "{kinds:?}");
    Ok(())
}

pub(crate) fn flattened_and_striped(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let parent = image(site, &mut writer, "parent", &["s"])?;
    let clone = site.name("clone");
    let features = LAYERING.to_string();
    writer.order(&["clone", &parent, "s", &clone, &features, "20"])?;
    writer.order(&["snapshot", &clone, "a"])?;
    let record = identity(site, &format!("{clone}@a"))?;
    ensure!(
        record.fact("parent-overlap") == Some(&SIZE.to_string()),
        "{record:?}"
    );
    writer.order(&["flatten", &clone])?;
    writer.order(&["snapshot", &clone, "b"])?;
    refused(
        &mut open(site, &format!("{clone}@b"))?,
        &record,
        "flattened",
    )?;

    let striped = site.name("striped");
    writer.change(
        "create",
        &striped,
        &[SIZE, 20, LAYERING | 1 << 1, 65_536, 4],
    )?;
    writer.change("write", &striped, &[123, 456, 1])?;
    writer.order(&["snapshot", &striped, "a"])?;
    let record = identity(site, &format!("{striped}@a"))?;
    writer.order(&["snapshot", &striped, "b"])?;
    let mut source = open(site, &format!("{striped}@b"))?;
    refused(&mut source, &record, "striped over 4 objects")?;
    let mut told = ExtentSet::empty();
    source.allocated(&mut |extent| {
        told = told.union(&[extent].into_iter().collect());
        true
    })?;
    ensure!(told.bytes().0 == SIZE, "all of a striped image is read");
    Ok(())
}

/// Two clones of two snapshots of one origin, as ceph-csi makes them for two snapshots of one volume.
pub(crate) fn clones_of_one_origin(site: &Site) -> Result<()> {
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

/// Namespaces, ids, and an image in the trash, which has only an id.
pub(crate) fn every_form_of_a_name(site: &Site) -> Result<()> {
    let image = site.name("named");
    site.ceph
        .rbd(&["namespace", "create", &format!("{POOL}/{image}")])?;
    let spec = format!("{POOL}/{image}/{image}");
    site.ceph.rbd(&[
        "create",
        &spec,
        "--size",
        "12M",
        "--image-feature",
        "layering",
    ])?;
    site.ceph
        .rbd(&["snap", "create", &format!("{spec}@s"), "--no-progress"])?;
    let by_name = open(site, &format!("{image}/{image}@s"))?;
    let record = by_name.identity().context("snapshots have an identity")?;
    ensure!(record.fact("namespace") == Some(&image), "{record:?}");
    let fact = |fact| record.fact(fact).context("the record has it");
    let by_id = format!("{image}/id={}@id={}", fact("image")?, fact("snapshot")?);
    ensure!(open(site, &by_id)?.identity().as_ref() == Some(&record));
    site.ceph.rbd(&["trash", "move", &spec])?;
    let mut trashed = open(site, &by_id)?;
    ensure!(trashed.identity().as_ref() == Some(&record));
    bind(&mut trashed, &record, None)?;
    contract::check_delta(&mut trashed, SIZE, &ExtentSet::empty());
    ensure!(open(site, &format!("{image}/{image}@s")).is_err());
    Ok(())
}

/// What a clone does not show any more: librbd tells nothing of what was cut off and came back as zeros.
pub(crate) fn clones_shrunk_and_grown(site: &Site) -> Result<()> {
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

/// Object maps that are lost or marked invalid are not believed, however fast an answer is wanted.
pub(crate) fn invalid_object_maps(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("maps");
    writer.create(&image, SIZE, FAST_DIFF)?;
    for (number, snapshot) in (1..).zip(["a", "b"]) {
        writer.change("write", &image, &[number * MIB + 7, 5000, number])?;
        writer.order(&["snapshot", &image, snapshot])?;
    }
    writer.order(&["close", &image])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&image, Some(snapshot), Access::Read)?)
    };
    let changed = content::changed(&read("a")?, &read("b")?);
    let record = identity(site, &format!("{image}@a"))?;
    let target = site.open(&image, Some("b"), Access::Read)?;
    let id = target.id()?;
    let check = || -> Result<()> {
        let name = format!("rbd:{POOL}/{image}@b").parse()?;
        let mut source = RbdSource::open(&site.cluster, &name, RbdOptions { whole_object: true })?;
        bind(&mut source, &record, None)?;
        contract::check_delta(&mut source, SIZE, &changed);
        Ok(())
    };
    check()?;
    let snapshot = target.snapshot().context("it is open at a snapshot")?;
    let map = format!("rbd_object_map.{id}.{snapshot:016x}");
    site.ceph.rados(&["-p", POOL, "truncate", &map, "0"])?;
    check()?;
    // Ceph's own check finds the damage and marks the map.
    let spec = format!("{POOL}/{image}@b");
    site.ceph
        .rbd(&["object-map", "check", &spec, "--no-progress"])?;
    let flags = site.open(&image, Some("b"), Access::Read)?.flags()?;
    ensure!(
        flags & 3 != 0,
        "the map is marked invalid, flags are {flags}"
    );
    check()
}

/// Ceph's own program says the same, for every byte.
pub(crate) fn agrees_with_rbd_diff(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let image = image(site, &mut writer, "diff", &["a", "b"])?;
    writer.change("discard", &image, &[MIB, MIB])?;
    writer.change("zero", &image, &[2 * MIB + 5, 100])?;
    writer.change("write", &image, &[6 * MIB - 300, 3 * MIB, 9])?;
    writer.order(&["snapshot", &image, "c"])?;
    let record = identity(site, &format!("{image}@a"))?;
    let mut source = open(site, &format!("{image}@c"))?;
    bind(&mut source, &record, None)?;
    let mut ours = Vec::new();
    source.delta(&mut |extent| {
        ours.push(extent);
        true
    })?;
    let spec = format!("{POOL}/{image}@c");
    let json = site
        .ceph
        .rbd(&["diff", "--from-snap", "a", &spec, "--format", "json"])?;
    let theirs = cross_check::parse_diff(json.as_bytes())?;
    ensure!(!theirs.is_empty());
    for kind in [ExtentKind::Data, ExtentKind::Zero] {
        let [ours, theirs] = [&ours, &theirs].map(|extents| -> ExtentSet {
            extents
                .iter()
                .copied()
                .filter(|extent| extent.kind == kind)
                .collect()
        });
        ensure!(ours == theirs, "{kind:?}: {ours:?} and {theirs:?}");
    }
    let export = site.ceph.folder().join("export");
    let file = export.display().to_string();
    site.ceph.rbd(&[
        "export-diff",
        "--from-snap",
        "a",
        &spec,
        &file,
        "--no-progress",
    ])?;
    let head = cross_check::read_export_head(&mut std::fs::File::open(&export)?)?;
    let named = (head.from.as_deref(), head.to.as_deref());
    ensure!(
        named == (Some("a"), Some("c")) && head.size == Some(SIZE),
        "{head:?}"
    );
    Ok(())
}

/// Why object maps are asked only when somebody insists: a rollback brings back the older snapshot's map, in which an object
/// is clean that changed in between. Seen in a randomised history on Ceph 16.2.15.
pub(crate) fn object_maps_after_a_rollback(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("rollback");
    writer.create(&image, SIZE, FAST_DIFF)?;
    for (snapshot, seed) in [("a", Some(1)), ("b", None), ("c", Some(2))] {
        if let Some(seed) = seed {
            writer.change("write", &image, &[MIB + 7, 5000, seed])?;
        }
        writer.order(&["snapshot", &image, snapshot])?;
    }
    writer.order(&["rollback", &image, "b"])?;
    writer.order(&["snapshot", &image, "d"])?;
    writer.order(&["close", &image])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&image, Some(snapshot), Access::Read)?)
    };
    let changed = content::changed(&read("c")?, &read("d")?);
    let record = identity(site, &format!("{image}@c"))?;
    for whole_object in [false, true] {
        let name = format!("rbd:{POOL}/{image}@d").parse()?;
        let mut source = RbdSource::open(&site.cluster, &name, RbdOptions { whole_object })?;
        bind(&mut source, &record, None)?;
        let mut told = Vec::new();
        source.delta(&mut |extent| {
            told.push(extent);
            true
        })?;
        let told: ExtentSet = told.into_iter().collect();
        let missed = changed.subtract(&told).bytes();
        eprintln!(
            "whole_object {whole_object}: missed {missed} of {} bytes",
            changed.bytes()
        );
        let trust = source.capabilities().trust;
        ensure!(
            missed.0 == 0 || trust == Trust::Unverified,
            "missed {missed}"
        );
    }
    Ok(())
}

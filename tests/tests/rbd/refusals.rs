//! Bases that are gone, others, or not comparable: a reason, a full backup, and never a wrong delta.
//!
//! Owns: those cases, and every form of a name. Must not: break the cluster.

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{Access, RbdOptions, RbdSource, cross_check};
use changed_blocks::{ChangedBlocks, ExtentKind, ExtentSet, Identity, SourceErrorKind, contract};

use crate::binding::{SIZE, bind, identity, image, open, refused};
use crate::site::{POOL, Site};
use crate::writer::{LAYERING, Writer};

const MIB: u64 = 1 << 20;

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

    swapped_names(&mut writer, &one, &mut source, &record_a)?;

    // Another name is the same snapshot; the same name may be another one.
    writer.order(&["rename_snapshot", &one, "a", "renamed"])?;
    bind(&mut source, &record_a, None)?;
    ensure!(source.delta(&mut |_| true)?.extents > 0);
    writer.order(&["remove_snapshot", &one, "renamed"])?;
    writer.order(&["snapshot", &one, "a"])?;
    refused(&mut source, &record_a, "was deleted")?;
    let mut source = open(site, &c)?;
    refused(&mut source, &record_a, "the snapshot with id")?;

    made_again(site, &mut writer, &one, [&record_b, &record_c])?;

    let kinds = [format!("{one}@none"), "none@a".to_owned()]
        .map(|name| open(site, &name).map(drop).map_err(|error| error.kind));
    ensure!(kinds == [Err(SourceErrorKind::GiveUp); 2], "{kinds:?}");
    Ok(())
}

/// Names that were swapped since the target was opened: the difference is still that of the ids.
fn swapped_names(
    writer: &mut Writer,
    image: &str,
    source: &mut RbdSource,
    base: &Identity,
) -> Result<()> {
    let mut swap = || -> Result<()> {
        let renames = [("a", "x"), ("b", "a"), ("x", "b")];
        renames
            .iter()
            .try_for_each(|(old, new)| writer.order(&["rename_snapshot", image, old, new]))
    };
    let before = told(source, base)?;
    ensure!(!before.is_empty());
    swap()?;
    ensure!(told(source, base)? == before);
    swap()
}

/// What was opened stays what it is, and is no longer compared once it is deleted, whatever has its name now.
fn made_again(
    site: &Site,
    writer: &mut Writer,
    image: &str,
    [base, target]: [&Identity; 2],
) -> Result<()> {
    let opened = site.open(image, Some("c"), Access::Read)?;
    writer.order(&["remove_snapshot", image, "c"])?;
    writer.order(&["snapshot", image, "c"])?;
    let mut source = RbdSource::of_image(opened, RbdOptions::default())?;
    ensure!(source.identity().as_ref() == Some(target));
    refused(&mut source, base, "the target is gone")
}

/// All that `source` tells of the difference to `record`.
fn told(source: &mut RbdSource, record: &Identity) -> Result<ExtentSet> {
    bind(source, record, None)?;
    let mut told = Vec::new();
    source.delta(&mut |extent| {
        told.push(extent);
        true
    })?;
    Ok(told.into_iter().collect())
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

/// Handles of ceph-csi stand for the images that it makes.
pub(crate) fn handles_of_ceph_csi(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let uuid = "eee8e87e-9f8a-4c3b-9b0e-0242ac110004";
    let handle = format!("0001-0004-rook-{:016x}-{uuid}", site.pool.id());
    let [volume, snapshot] = ["csi-vol", "csi-snap"].map(|kind| format!("{kind}-{uuid}"));
    for image in [&volume, &snapshot] {
        writer.create(image, SIZE, LAYERING)?;
        writer.order(&["snapshot", image, image])?;
    }
    for (kind, name) in [("csi-vol", &volume), ("csi-snap", &snapshot)] {
        let source = RbdSource::open(
            &site.cluster,
            &format!("rbd:{kind}={handle}").parse()?,
            RbdOptions::default(),
        )?;
        ensure!(&source.image().name()? == name);
        ensure!(source.identity().is_some() == (kind == "csi-snap"));
    }
    Ok(())
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

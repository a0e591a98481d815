//! Sources on snapshots of the cases, and bases for them.
//!
//! Owns: opening and binding, and what a refusal looks like. Must not: compare content.

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{RbdOptions, RbdSource};
use changed_blocks::{Base, ChangedBlocks, Identity, SourceError, SourceErrorKind, contract};

use crate::site::{POOL, Site};
use crate::writer::{LAYERING, Writer};

const MIB: u64 = 1 << 20;
/// Size of the images of these cases.
pub(crate) const SIZE: u64 = 12 * MIB;
const PLAIN: RbdOptions = RbdOptions {
    whole_object: false,
};

pub(crate) fn open(site: &Site, image: &str) -> Result<RbdSource, SourceError> {
    let name = format!("rbd:{POOL}/{image}");
    let name = name
        .parse()
        .map_err(|error| SourceError::full(format!("{error}")))?;
    RbdSource::open(&site.cluster, &name, PLAIN)
}

pub(crate) fn identity(site: &Site, snapshot: &str) -> Result<Identity> {
    let source = open(site, snapshot)?;
    source.identity().context("snapshots have an identity")
}

pub(crate) fn bind(
    source: &mut RbdSource,
    record: &Identity,
    named: Option<&str>,
) -> Result<(), SourceError> {
    source.bind(&Base {
        record,
        point: "p1",
        named,
    })
}

/// That `source` cannot be bound to `record`, for a reason that says `because`.
pub(crate) fn refused(source: &mut RbdSource, record: &Identity, because: &str) -> Result<()> {
    let error = bind(source, record, None).err().context("it was bound")?;
    ensure!(error.kind == SourceErrorKind::FullBackup, "{error}");
    ensure!(error.message.contains(because), "{because}: {error}");
    contract::check_without_base(source);
    Ok(())
}

/// An image with a snapshot for each of `snapshots`, something written before each.
pub(crate) fn image(
    site: &Site,
    writer: &mut Writer,
    kind: &str,
    snapshots: &[&str],
) -> Result<String> {
    let image = site.name(kind);
    writer.create(&image, SIZE, LAYERING)?;
    for (number, snapshot) in (1..).zip(snapshots) {
        writer.change("write", &image, &[number * MIB + 7, 5000, number])?;
        writer.order(&["snapshot", &image, snapshot])?;
    }
    Ok(image)
}

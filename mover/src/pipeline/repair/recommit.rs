//! Commits a damaged point again: a new session that references the same data (data-plane 3).
//!
//! ```text
//!   open (pins the damaged point) ─► its leaves, lost ones rebuilt ─► map, liveness ─► slot ─► tomb of the damaged point
//! ```
//!
//! Owns: that session. Must not: change what the point holds: its content hash must come out the same. The new point stands at the
//! same place of the volume's history, so that "latest" stays what it was.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::rebuild::Leaves;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::repository::access::Repository;
use crate::repository::format::Manifest;
use crate::repository::format::manifest::TAKEN;
use crate::repository::ids::{SessionKey, name};
use crate::repository::map::{
    Leaf, LivenessBuilder, MapCursor, MapWriter, WrittenMap, damaged_page,
};
use crate::repository::segments::SegmentReader;
use crate::repository::session::forget::{self, Tomb};
use crate::repository::session::points::Point;
use crate::repository::session::protect;
use crate::repository::session::writer::WriterSession;

/// Bytes of a map segment, as a backup writes them.
const MAP_SEGMENT_BYTES: usize = 8 << 20;

/// Commits `point` again with the rebuilt leaves at their places, and forgets the damaged one. Gives the new point.
///
/// # Errors
/// `NotFound` where the point was forgotten meanwhile; `Corrupt` where the map that comes out holds something else; what the store
/// answers. Before the new point is committed nothing is changed.
pub(super) fn recommit(
    context: &Context,
    reader: &Arc<SegmentReader>,
    point: &Point,
    rebuilt: &Leaves,
) -> Result<Point> {
    let repository = &context.repository;
    let began = SystemTime::now();
    let session = WriterSession::begin_again(repository, point)?;
    let key = session.key();
    let (map, mut liveness) = write_map(context, reader, point, (key, rebuilt))?;
    let manifest = &point.manifest;
    if map
        .root
        .content_hash(&repository.keys, manifest.size, manifest.chunk_size)
        != manifest.content_hash
    {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "commit the point again: its map holds something else than its manifest says",
        )
        .object(name::slot(&point.key))
        .hint("save what can be read with `snaphaul restore --salvage`"));
    }
    liveness.set_pages(map.pages);
    let liveness = liveness.finish();
    let created_unix_millis = unix_millis();
    let locks = protect::Base {
        own: key.session,
        began,
        committed: protect::moment(created_unix_millis),
        parents: vec![protect::moment(manifest.created_unix_millis)],
        adopted: Vec::new(),
    };
    protect::extend(repository, &liveness, &locks)?;
    let (object, liveness) = liveness.seal(&repository.keys, &key)?;
    repository.store.put(&name::live(&key), object)?;
    let committed = session.commit(Manifest {
        session: key,
        root: map.root,
        liveness,
        exact_liveness_age: 0,
        tool: concat!("snaphaul ", env!("CARGO_PKG_VERSION")).to_owned(),
        pins: vec![point.key],
        created_unix_millis,
        identity: with_time(manifest),
        ..manifest.clone()
    })?;
    bury(repository, point, &committed)?;
    Ok(committed)
}

/// Walks the old map into a new one; unchanged pages are used again.
fn write_map(
    context: &Context,
    reader: &Arc<SegmentReader>,
    point: &Point,
    (key, rebuilt): (SessionKey, &Leaves),
) -> Result<(WrittenMap, LivenessBuilder)> {
    let repository = &context.repository;
    let mut liveness = LivenessBuilder::fresh();
    let store = Arc::clone(&repository.store);
    let mut writer = MapWriter::new(
        Arc::clone(&repository.keys),
        key.session,
        MAP_SEGMENT_BYTES,
        Box::new(move |id, body| store.put(&name::map_segment(id), body)),
    );
    let mut cursor = MapCursor::with_segments(reader, &point.manifest.root);
    let mut from = 0;
    loop {
        context.stop.check()?;
        match cursor.next(from) {
            Ok(Some((index, leaf))) => {
                liveness.replace_leaf(None, Some(&leaf.leaf));
                writer.keep(index, &leaf)?;
                from = index + 1;
            }
            Ok(None) => break,
            Err(error) => {
                let Some(page) = damaged_page(&error) else {
                    return Err(error);
                };
                let leaves = page.leaves();
                from = page.next_leaf();
                for (index, leaf) in rebuilt.range(leaves) {
                    push(&mut writer, &mut liveness, *index, leaf)?;
                }
            }
        }
    }
    Ok((writer.finish(point.manifest.chunks())?, liveness))
}

fn push(
    writer: &mut MapWriter,
    liveness: &mut LivenessBuilder,
    index: u64,
    leaf: &Leaf,
) -> Result<()> {
    liveness.replace_leaf(None, Some(leaf));
    writer.push(index, leaf)
}

/// The damaged point has a whole successor: collectors, which wait for what it lost, need not any more.
fn bury(repository: &Repository, point: &Point, committed: &Point) -> Result<()> {
    let why = format!("repaired: committed again as {}", committed.id());
    let now = unix_millis() / 1000;
    if !forget::bury(repository, &point.key, &Tomb::new(&why, now))? {
        // Whoever forgot the point while it was committed again meant what it holds.
        let why = format!("{} was forgotten while it was repaired", point.id());
        forget::bury(repository, &committed.key, &Tomb::new(&why, now))?;
    }
    repository.store.sync()
}

/// The identity records with the time at which the image was taken: the new manifest is younger than that.
fn with_time(manifest: &Manifest) -> Vec<(String, String)> {
    let mut identity = manifest.identity.clone();
    if identity.iter().all(|(name, _)| name != TAKEN) {
        identity.push((TAKEN.to_owned(), manifest.taken_unix_millis().to_string()));
    }
    identity
}

fn unix_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

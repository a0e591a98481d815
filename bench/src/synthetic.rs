//! A repository that exists as listings and liveness only: what garbage collection looks at before it deletes.
//!
//! ```text
//!   Shape: sessions with so many segments ─► names, page by page │ liveness, made on demand or kept in files
//! ```
//!
//! Owns: names, sizes and real liveness records of repositories too large to make. Must not: hold them in memory, which is measured.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mover::error::{Error, ErrorKind, Result};
use mover::repository::format::Keys;
use mover::repository::ids::{SegmentId, Sequence, SessionId, SessionKey, VolumeId, name};
use mover::repository::map::Liveness;
use mover::repository::store::profile::StoreProfile;
use mover::repository::store::{Created, ObjectInfo, RequestCounts, Store};

/// Objects in a page of a listing, as S3 has them.
const PAGE: usize = 1000;
/// Chunks that are overwritten together: 4 MiB of a volume.
const CLUMP: u64 = 32;
/// Bytes of a data segment.
const SEGMENT_BYTES: u64 = 32 << 20;

/// A repository of volumes that are all alike.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Volumes.
    pub volumes: u64,
    /// Points of each.
    pub points: u64,
    /// Data segments of a volume's first point.
    pub first_segments: u64,
    /// Data segments of each later point.
    pub later_segments: u64,
    /// Chunks in a data segment.
    pub chunks: u64,
    /// Thousandths of a volume that each later point overwrites.
    pub changed_permille: u64,
}

impl Shape {
    /// One volume of `tib` TiB in chunks of 128 KiB that do not compress.
    #[must_use]
    pub fn wide(tib: u64, points: u64) -> Self {
        let first_segments = (tib << 40) / SEGMENT_BYTES;
        Self {
            volumes: 1,
            points,
            first_segments,
            later_segments: (first_segments / 100).max(1),
            chunks: 256,
            changed_permille: 10,
        }
    }

    /// Many volumes of 320 MiB.
    #[must_use]
    pub fn many(volumes: u64, points: u64) -> Self {
        Self {
            volumes,
            points,
            first_segments: 10,
            later_segments: 1,
            chunks: 256,
            changed_permille: 10,
        }
    }

    /// Sessions, ascending by id.
    fn sessions(&self) -> u64 {
        self.volumes * self.points
    }

    /// The session that committed point `point` of volume `volume`; ids ascend with the number and spread evenly.
    fn session(&self, number: u64) -> SessionId {
        SessionId(spread(number, self.sessions()))
    }

    fn key(&self, volume: u64, point: u64) -> SessionKey {
        SessionKey {
            volume: VolumeId(spread(volume, self.volumes)),
            sequence: Sequence(u32::try_from(point).unwrap_or(u32::MAX)),
            session: self.session(volume * self.points + point),
        }
    }

    fn segments(&self, point: u64) -> u64 {
        if point == 0 {
            self.first_segments
        } else {
            self.later_segments
        }
    }

    /// Map segments: a page of 256 chunks takes about 5 KiB.
    fn map_segments(&self, point: u64) -> u64 {
        let pages = self.first_segments * self.chunks / 256;
        let share = if point == 0 { pages } else { pages / 2 };
        (share * 5 * 1024).div_ceil(SEGMENT_BYTES).max(1)
    }

    /// The record of a point: which clumps of which segments no point up to it has overwritten.
    fn record(&self, volume: u64, point: u64) -> Vec<u8> {
        let mut out = Vec::new();
        head(&mut out, 4, 2);
        let mut living = Vec::new();
        for owner in 0..=point {
            let mut sets = Vec::new();
            let (mut items, mut gap) = (0, 0);
            for segment in 0..self.segments(owner) {
                let before = sets.len();
                head(&mut sets, 0, gap);
                if self.live(&mut sets, (volume, owner, point), segment) {
                    head(&mut sets, 0, 0);
                    (items, gap) = (items + 3, 0);
                } else {
                    sets.truncate(before);
                    gap += 1;
                }
            }
            // A session of which nothing lives has no place in the record.
            if items > 0 {
                living.push((owner, items, sets));
            }
        }
        head(&mut out, 4, living.len() as u64);
        for (owner, items, sets) in &living {
            self.put_session(&mut out, volume, *owner, (*items, sets));
        }
        head(&mut out, 4, point + 1);
        for owner in 0..=point {
            let count = self.map_segments(owner);
            let mut sets = Vec::new();
            for _ in 0..count {
                head(&mut sets, 0, 0);
                head(&mut sets, 0, 4096);
            }
            self.put_session(&mut out, volume, owner, (2 * count, &sets));
        }
        out
    }

    fn put_session(&self, out: &mut Vec<u8>, volume: u64, owner: u64, (items, sets): (u64, &[u8])) {
        head(out, 4, 2);
        head(out, 2, 16);
        out.extend_from_slice(&self.session(volume * self.points + owner).0);
        head(out, 4, items);
        out.extend_from_slice(sets);
    }

    /// Writes the live set of one segment; false where nothing lives.
    fn live(
        &self,
        out: &mut Vec<u8>,
        (volume, owner, point): (u64, u64, u64),
        segment: u64,
    ) -> bool {
        let clumps = self.chunks / CLUMP;
        let lives = |clump: u64| {
            (owner + 1..=point).all(|by| {
                let place = (volume << 48) ^ (owner << 40) ^ (segment * clumps + clump);
                mix(place ^ mix(by)) % 1000 >= self.changed_permille
            })
        };
        let bits: u64 = (0..clumps)
            .filter(|clump| lives(*clump))
            .map(|clump| 1 << clump)
            .sum();
        if bits == 0 {
            return false;
        }
        let end = u64::from(64 - bits.leading_zeros());
        if bits.count_ones() == 64 - bits.leading_zeros() {
            head(out, 0, end * CLUMP);
            return true;
        }
        head(out, 2, end * CLUMP / 8);
        for clump in 0..end {
            let byte = if bits >> clump & 1 == 1 { 0xff } else { 0 };
            out.extend_from_slice(&[byte; 4]);
        }
        true
    }

    /// The sealed liveness of a point.
    ///
    /// # Errors
    /// If the record is not one.
    pub fn liveness(&self, keys: &Arc<Keys>, volume: u64, point: u64) -> Result<Bytes> {
        let key = self.key(volume, point);
        let liveness = Liveness::decode(&self.record(volume, point))?;
        Ok(liveness.seal(keys, &key)?.0)
    }
}

/// The head of a CBOR item.
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..24 => out.push(major | bytes[7]),
        24..0x100 => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        _ => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
    }
}

/// Id number `number` of `count` that divide all ids evenly.
fn spread(number: u64, count: u64) -> [u8; 16] {
    let step = u128::MAX / u128::from(count.max(1));
    (u128::from(number) * step + 1).to_be_bytes()
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The store of such a repository. It takes nothing.
pub struct SyntheticStore {
    shape: Shape,
    keys: Arc<Keys>,
    /// Where liveness objects were put before; they are made on demand without.
    folder: Option<PathBuf>,
    lists: AtomicU64,
    gets: AtomicU64,
    bytes: AtomicU64,
}

impl fmt::Debug for SyntheticStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyntheticStore")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl SyntheticStore {
    /// The store of `shape`.
    #[must_use]
    pub fn new(shape: Shape, keys: Arc<Keys>, folder: Option<PathBuf>) -> Self {
        Self {
            shape,
            keys,
            folder,
            lists: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn refuse<T>(name: &str) -> Result<T> {
        Err(Error::new(
            ErrorKind::AccessDenied,
            "write to a repository that is none",
        )
        .object(name))
    }

    /// Names and sizes under a prefix, ascending.
    fn objects(
        &self,
        prefix: &str,
        found: &mut dyn FnMut(String, u64) -> Result<()>,
    ) -> Result<()> {
        let shape = self.shape;
        let (kind, part) = prefix.split_at(prefix.find('/').map_or(0, |at| at + 1));
        let control_size = match kind {
            name::OPEN => Some(400),
            name::SNAP | name::COPY => Some(900),
            name::LIVE => Some(0),
            _ => None,
        };
        if let Some(size) = control_size {
            for volume in 0..shape.volumes {
                for point in 0..shape.points {
                    let key = shape.key(volume, point).to_string();
                    if key.starts_with(part) {
                        let size = if kind == name::LIVE {
                            self.live_len(volume, point)
                        } else {
                            size
                        };
                        found(format!("{kind}{key}"), size)?;
                    }
                }
            }
        }
        if kind == name::SEG || kind == name::MAP {
            for at in 0..shape.sessions() {
                let session = shape.session(at);
                if !session.to_string().starts_with(part) {
                    continue;
                }
                let point = at % shape.points;
                let count = if kind == name::SEG {
                    shape.segments(point)
                } else {
                    shape.map_segments(point)
                };
                for number in 0..count {
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    let id = SegmentId { session, number };
                    let object = if kind == name::SEG {
                        name::segment(id, 0)
                    } else {
                        name::map_segment(id)
                    };
                    found(object, SEGMENT_BYTES)?;
                }
            }
        }
        Ok(())
    }

    /// Small ones are made on demand; their length is about this.
    fn live_len(&self, volume: u64, point: u64) -> u64 {
        let kept = self.folder.as_ref().and_then(|folder| {
            let file = folder.join(format!("live-{volume}-{point}"));
            std::fs::metadata(file).ok()
        });
        kept.map_or(400, |kept| kept.len())
    }

    fn liveness(&self, object: &str) -> Result<Bytes> {
        let missing = || Error::new(ErrorKind::NotFound, "read the object").object(object);
        let key = object
            .strip_prefix(name::LIVE)
            .and_then(SessionKey::parse)
            .ok_or_else(missing)?;
        let step = u128::MAX / u128::from(self.shape.volumes);
        let volume = (u128::from_be_bytes(key.volume.0) - 1) / step;
        let (volume, point) = (
            u64::try_from(volume).unwrap_or(0),
            u64::from(key.sequence.0),
        );
        match &self.folder {
            Some(folder) => std::fs::read(folder.join(format!("live-{volume}-{point}")))
                .map(Bytes::from)
                .map_err(|error| missing().source(error)),
            None => self.shape.liveness(&self.keys, volume, point),
        }
    }
}

impl Store for SyntheticStore {
    fn url(&self) -> String {
        "synthetic:".to_owned()
    }

    fn put(&self, name: &str, _: Bytes) -> Result<()> {
        Self::refuse(name)
    }

    fn put_once(&self, name: &str, _: Bytes) -> Result<()> {
        Self::refuse(name)
    }

    fn create(&self, name: &str, _: Bytes) -> Result<Created> {
        Self::refuse(name)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let object = self.liveness(name)?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(object.len() as u64, Ordering::Relaxed);
        Ok(object)
    }

    fn get_range(&self, name: &str, _: Range<u64>) -> Result<Bytes> {
        Err(Error::new(ErrorKind::NotFound, "read a part of the object").object(name))
    }

    fn head(&self, _: &str) -> Result<Option<ObjectInfo>> {
        Ok(None)
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        let mut pending = Vec::with_capacity(PAGE);
        let mut hand_out = |pending: &mut Vec<ObjectInfo>| {
            self.lists.fetch_add(1, Ordering::Relaxed);
            page(std::mem::replace(pending, Vec::with_capacity(PAGE)))
        };
        self.objects(prefix, &mut |name, size| {
            pending.push(ObjectInfo {
                name,
                size,
                modified: None,
            });
            if pending.len() == PAGE {
                hand_out(&mut pending)?;
            }
            Ok(())
        })?;
        hand_out(&mut pending)
    }

    fn delete(&self, name: &str) -> Result<()> {
        Self::refuse(name)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> RequestCounts {
        RequestCounts {
            list: self.lists.load(Ordering::Relaxed),
            get: self.gets.load(Ordering::Relaxed),
            get_bytes: self.bytes.load(Ordering::Relaxed),
            ..RequestCounts::default()
        }
    }

    fn explore(&self, _: &str) -> Result<StoreProfile> {
        Ok(StoreProfile::default())
    }
}

//! The sample disk: contents that look like a disk, the same on every machine.
//!
//! ```text
//!   every 32 MiB:  4 MiB log text | 2 MiB random | 1 MiB seen before | 1 MiB zeros, written | 24 MiB hole
//! ```
//!
//! Owns: making and changing it. Must not: know backups.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::{Progress, StopFlag};

const MIB: u64 = 1 << 20;
/// Size of the disk: large enough that a rate means something, small enough for a laptop.
pub(super) const DISK_BYTES: u64 = 1 << 30;
/// Period of the layout.
const PERIOD: u64 = 32;
/// Bytes that are written to a fresh disk: a quarter of it.
const WRITTEN_BYTES: u64 = DISK_BYTES / 4;
/// Scattered rewrites of the change: 6 MiB, about 2 % of what the disk holds.
const REWRITES: u64 = 96;
const REWRITE_BYTES: u64 = 64 << 10;

/// Writes a fresh disk to `path`.
pub(super) fn create(path: &Path, progress: &Progress, stop: &StopFlag) -> Result<()> {
    let failed = |error| disk_error("make the sample disk", path, error);
    let file = File::create_new(path).map_err(failed)?;
    file.set_len(DISK_BYTES).map_err(failed)?;
    progress.total.store(WRITTEN_BYTES, Ordering::Relaxed);
    let mut buffer = vec![0; usize_of(MIB)];
    for unit in 0..DISK_BYTES / MIB {
        stop.check()?;
        if fill(unit, &mut buffer) {
            file.write_all_at(&buffer, unit * MIB).map_err(failed)?;
            Progress::add(&progress.done, MIB);
        }
    }
    file.sync_all().map_err(failed)
}

/// Changes the disk at `path`: scattered rewrites, new text in a hole, and a text overwritten by zeros.
pub(super) fn change(path: &Path) -> Result<()> {
    let failed = |error| disk_error("change the sample disk", path, error);
    let file = File::options().write(true).open(path).map_err(failed)?;
    let mut buffer = vec![0; usize_of(MIB)];
    let mut random = Random::new(0xc4a9);
    let mut piece = vec![0; usize_of(REWRITE_BYTES)];
    for _ in 0..REWRITES {
        random.fill(&mut piece);
        let slots = DISK_BYTES / MIB / PERIOD * 4 * (MIB / REWRITE_BYTES);
        let slot = random.below(slots);
        let per_text = 4 * MIB / REWRITE_BYTES;
        let offset = slot / per_text * PERIOD * MIB + slot % per_text * REWRITE_BYTES;
        file.write_all_at(&piece, offset).map_err(failed)?;
    }
    text(DISK_BYTES, &mut buffer);
    file.write_all_at(&buffer, 20 * MIB).map_err(failed)?;
    buffer.fill(0);
    file.write_all_at(&buffer, PERIOD * MIB).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Fills one MiB of the disk; false for a hole.
fn fill(unit: u64, buffer: &mut [u8]) -> bool {
    match unit % PERIOD {
        0..=3 => text(unit, buffer),
        4..=5 => Random::new(unit).fill(buffer),
        // The same MiB in every period, as copies of one file are.
        6 => Random::new(6).fill(buffer),
        7 => buffer.fill(0),
        _ => return false,
    }
    true
}

/// Lines as in a log: they compress well, and no two chunks are equal.
fn text(seed: u64, buffer: &mut [u8]) {
    const WORDS: [&str; 16] = [
        "accepted",
        "connection",
        "from",
        "worker",
        "closed",
        "request",
        "served",
        "in",
        "volume",
        "snapshot",
        "attached",
        "node",
        "timeout",
        "retry",
        "info",
        "warning",
    ];
    let mut random = Random::new(seed);
    let mut line = String::new();
    let mut rest = buffer;
    while !rest.is_empty() {
        line.clear();
        line.push_str(&format!("{:016x}", random.next()));
        for _ in 0..8 {
            line.push(' ');
            line.push_str(WORDS[usize_of(random.below(16))]);
        }
        line.push('\n');
        let len = line.len().min(rest.len());
        let (head, tail) = rest.split_at_mut(len);
        head.copy_from_slice(&line.as_bytes()[..len]);
        rest = tail;
    }
}

fn disk_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    Error::new(kind, what)
        .object(path.display())
        .hint("choose another directory with --dir")
        .source(error)
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// SplitMix64: short, fast and the same everywhere. Not for secrets.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn unit(number: u64) -> Option<Vec<u8>> {
        let mut buffer = vec![0; usize_of(MIB)];
        fill(number, &mut buffer).then_some(buffer)
    }

    #[test]
    fn the_mix_is_as_described() {
        assert_eq!(
            (0..1024).filter(|number| number % PERIOD < 8).count() as u64 * MIB,
            WRITTEN_BYTES
        );
        assert!(unit(8).is_none() && unit(31).is_none());
        assert_eq!(unit(6), unit(38), "copies are equal");
        assert!(unit(7).unwrap().iter().all(|byte| *byte == 0));
        assert!(unit(0).unwrap().is_ascii());
    }

    #[test]
    fn no_chunks_but_the_copies_repeat() {
        let mut seen = HashSet::new();
        for number in [0, 1, 2, 3, 4, 5, 6, 32, 33, 36, 37] {
            for chunk in unit(number).unwrap().chunks(64 << 10) {
                assert!(
                    seen.insert(chunk.to_vec()),
                    "a chunk of unit {number} repeats"
                );
            }
        }
    }

    #[test]
    fn a_stop_ends_the_writing() {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopFlag::default();
        stop.stop();
        let error = create(&folder.path().join("disk"), &Progress::default(), &stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn a_change_stays_inside_the_disk_and_changes_little() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(DISK_BYTES).unwrap();
        change(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), DISK_BYTES);
        let written = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert!((2 * MIB..=10 * MIB).contains(&written), "{written}");
    }

    #[test]
    fn the_generator_never_changes() {
        let mut random = Random::new(1);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }
}

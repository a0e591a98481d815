//! What may happen to a file between two points, drawn at random.
//!
//! Owns: the edits and which bytes they touched. Must not: know maps.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use changed_blocks::split_mix::SplitMix64;
use changed_blocks::{Extent, ExtentSet};
use nix::fcntl::{FallocateFlags, fallocate};

use super::mounted::{run, succeeds};

const BLOCK: u64 = 4096;

/// A file that is edited, and the older file that it shares blocks with.
pub(crate) struct History<'a> {
    pub(crate) live: PathBuf,
    pub(crate) base: PathBuf,
    /// Bytes that any edit may have moved or changed.
    pub(crate) touched: Vec<Extent>,
    /// Whether blocks were moved without being written.
    pub(crate) relocated: bool,
    pub(crate) random: &'a mut SplitMix64,
}

impl History<'_> {
    /// One more edit.
    pub(crate) fn edit(&mut self) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.live)
            .unwrap();
        let size = file.metadata().unwrap().len();
        let (start, len) = self.range(size);
        let (block, blocks) = (
            start / BLOCK * BLOCK,
            len.div_ceil(BLOCK)
                .min((size - start / BLOCK * BLOCK) / BLOCK)
                * BLOCK,
        );
        match self.random.below(14) {
            0..5 => self.write(&file, start, len),
            5 => self.allocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, start, len),
            6 => self.allocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, start, len),
            7 => self.allocate(&file, FallocateFlags::empty(), start, len),
            8 => self.resize(&file, size),
            9 if blocks > 0 => self.clone_range(block, block, blocks),
            10 if blocks > 0 => {
                let from = self.random.below(size / BLOCK) * BLOCK;
                self.clone_range(from, block, blocks.min(size - from) / BLOCK * BLOCK);
            }
            11 if blocks > 0 => self.deduplicate(&file, block, blocks),
            12 => self.defragment(),
            13 => file.sync_all().unwrap(),
            _ => {}
        }
    }

    /// Small ranges mostly, at odd places.
    fn range(&mut self, size: u64) -> (u64, u64) {
        let start = self.random.below(size);
        let most = match self.random.below(4) {
            0 => 100,
            1 => 4 * BLOCK,
            2 => 64 * BLOCK,
            _ => 300 * BLOCK,
        };
        let len = (self.random.below(most) + 1).min(size - start);
        (start, len)
    }

    fn touch(&mut self, offset: u64, len: u64) {
        self.touched.push(Extent::data(offset, len));
    }

    fn write(&mut self, file: &File, start: u64, len: u64) {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        noise(self.random, &mut bytes);
        file.write_all_at(&bytes, start).unwrap();
        self.touch(start, len);
    }

    fn allocate(&mut self, file: &File, mode: FallocateFlags, start: u64, len: u64) {
        let [from, len] = [start, len].map(|bytes| i64::try_from(bytes).unwrap());
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(file, mode, from, len) {
            Ok(()) => self.touch(start, len.unsigned_abs()),
            Err(error) => panic!("fallocate {mode:?}: {error}"),
        }
    }

    /// Cuts the file, or makes it longer by a hole.
    fn resize(&mut self, file: &File, size: u64) {
        let new = size - size / 8 + self.random.below(size / 4);
        file.set_len(new).unwrap();
        self.touch(size.min(new), u64::MAX / 4);
    }

    /// Lets a range of the live file share the blocks of a range of the base.
    fn clone_range(&mut self, from: u64, to: u64, len: u64) {
        self.xfs_io(&format!(
            "reflink {} {from} {to} {len}",
            self.base.display()
        ));
        self.touch(to, len);
    }

    /// Writes what the base has and lets the file system find out.
    fn deduplicate(&mut self, file: &File, at: u64, len: u64) {
        let base = File::open(&self.base).unwrap();
        let end = base.metadata().unwrap().len().min(at + len) / BLOCK * BLOCK;
        if at >= end {
            return;
        }
        let mut bytes = vec![0; usize::try_from(end - at).unwrap()];
        base.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes, at).unwrap();
        file.sync_all().unwrap();
        self.xfs_io(&format!(
            "dedupe {} {at} {at} {}",
            self.base.display(),
            end - at
        ));
        self.touch(at, end - at);
    }

    fn xfs_io(&self, command: &str) {
        run("xfs_io", &["-c", command, self.live.to_str().unwrap()]);
    }

    fn defragment(&mut self) {
        self.relocated = true;
        let live = self.live.to_str().unwrap();
        // One of them, by the file system; xfs_fsr may decline a file that shares blocks.
        let args = ["filesystem", "defragment", "-f", live];
        if !succeeds("btrfs", &args) {
            succeeds("xfs_fsr", &[live]);
        }
    }
}

/// Makes a copy that shares every block.
pub(crate) fn reflink(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|path| path.to_str().unwrap());
    run("cp", &["--reflink=always", from, to]);
}

/// Fills `bytes` with noise, in runs of one byte so that it compresses a little.
pub(crate) fn noise(random: &mut SplitMix64, bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(16) {
        let word = random.next_u64().to_le_bytes();
        for (index, byte) in piece.iter_mut().enumerate() {
            *byte = word[index / 2];
        }
    }
}

/// The pieces of 512 bytes in which two files differ, as far as both reach.
pub(crate) fn differing(one: &Path, other: &Path) -> ExtentSet {
    let [one, other] = [one, other].map(|path| std::fs::read(path).unwrap());
    let pairs = one.chunks(512).zip(other.chunks(512)).enumerate();
    pairs
        .filter_map(|(index, (a, b))| {
            let len = a.len().min(b.len());
            (a[..len] != b[..len]).then(|| Extent::data(index as u64 * 512, len as u64))
        })
        .collect()
}

/// The pieces of 512 bytes that are not zero.
pub(crate) fn not_zero(path: &Path) -> ExtentSet {
    let bytes = std::fs::read(path).unwrap();
    let pieces = bytes.chunks(512).enumerate();
    pieces
        .filter(|(_, piece)| piece.iter().any(|byte| *byte != 0))
        .map(|(index, piece)| Extent::data(index as u64 * 512, piece.len() as u64))
        .collect()
}

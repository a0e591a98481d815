//! Disk images of tests: made from a seed, edited at random, compared bit by bit.
//!
//! Owns: content and edits. Must not: know what a chunk is. Sizes need not be round: odd tails are part of the job.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::part;
use crate::random::Random;

/// One MiB, the unit most images are sized in.
pub const MIB: u64 = 1 << 20;
const BLOCK: usize = 64 * 1024;

/// A file or device that stands for a volume.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where it is.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

impl Image {
    /// A sparse image: one hole of `size` bytes.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn sparse(path: &Path, size: u64) -> Result<Self> {
        File::create(path)
            .with_context(|| format!("create {}", path.display()))?
            .set_len(size)?;
        Ok(Self {
            path: path.to_owned(),
            size,
        })
    }

    /// An image of noise without holes.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn noise(path: &Path, size: u64, random: &mut Random) -> Result<Self> {
        let image = Self::sparse(path, size)?;
        image.write_noise(0, size, random)?;
        Ok(image)
    }

    /// An image with everything a real one has: holes, written zeros, text, noise, and blocks that occur twice.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn mixed(path: &Path, size: u64, random: &mut Random) -> Result<Self> {
        let image = Self::sparse(path, size)?;
        let mut offset = 0;
        while offset < size {
            let len = (random.below(24) + 1)
                .saturating_mul(BLOCK as u64 / 2)
                .min(size - offset);
            match random.below(6) {
                0 => {}
                1 => image.write_zeros(offset, len)?,
                2 => image.write_text(offset, len, random)?,
                3 if offset > len => image.copy(random.below(offset - len), offset, len)?,
                _ => image.write_noise(offset, len, random)?,
            }
            offset += len;
        }
        Ok(image)
    }

    /// A copy, holes kept.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn copy_to(&self, path: &Path) -> Result<Self> {
        part::run(
            Command::new("cp")
                .arg("--sparse=always")
                .arg(&self.path)
                .arg(path),
        )?;
        Ok(Self {
            path: path.to_owned(),
            size: self.size,
        })
    }

    /// Applies `count` random edits: overwrite, text, zeros, hole, copy; aligned and not. Files may also grow or shrink.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn edit(&mut self, count: u64, random: &mut Random) -> Result<()> {
        for _ in 0..count {
            let offset = random.below(self.size);
            let len = (random.below(5 * BLOCK as u64) + 1).min(self.size - offset);
            match random.below(7) {
                0 => self.write_zeros(offset, len)?,
                1 => self.punch(offset, len)?,
                2 => self.write_text(offset, len, random)?,
                3 => self.copy(random.below(self.size - len + 1), offset, len)?,
                4 => self.write_noise(offset / 4096 * 4096, len.min(4096), random)?,
                _ => self.write_noise(offset, len, random)?,
            }
        }
        Ok(())
    }

    /// Changes the size; what is new is a hole.
    ///
    /// # Errors
    /// Where it is no regular file.
    pub fn resize(&mut self, size: u64) -> Result<()> {
        self.open()?.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Overwrites a range with noise.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn write_noise(&self, offset: u64, len: u64, random: &mut Random) -> Result<()> {
        self.write_with(offset, len, |bytes| random.fill(bytes))
    }

    /// Overwrites a range with text that compresses to about a third.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn write_text(&self, offset: u64, len: u64, random: &mut Random) -> Result<()> {
        const WORDS: [&[u8]; 8] = [
            b"volume ",
            b"chunk ",
            b"page ",
            b"point ",
            b"0451 ",
            b"\n",
            b"segment ",
            b"{} ",
        ];
        self.write_with(offset, len, |bytes| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let word = WORDS[random.index(WORDS.len())];
                let len = word.len().min(rest.len());
                rest[..len].copy_from_slice(&word[..len]);
                rest = &mut rest[len..];
            }
        })
    }

    /// Overwrites a range with zeros that take room.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.write_with(offset, len, |bytes| bytes.fill(0))
    }

    /// Turns a range into a hole.
    ///
    /// # Errors
    /// Where the file system knows no holes.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(
            self.open()?.as_fd(),
            flags,
            i64::try_from(offset)?,
            i64::try_from(len)?,
        )?;
        Ok(())
    }

    /// Copies a range inside the image.
    ///
    /// # Errors
    /// Where reading or writing fails.
    pub fn copy(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let file = self.open()?;
        let mut bytes = vec![0; usize::try_from(len)?];
        file.read_exact_at(&mut bytes, from)?;
        Ok(file.write_all_at(&bytes, to)?)
    }

    /// Fails unless `other` holds the same bytes, and tells the first that differs.
    ///
    /// # Errors
    /// On a difference in size or content.
    pub fn assert_same(&self, other: &Path) -> Result<()> {
        let size = size_of(other)?;
        if size != self.size {
            bail!(
                "{} has {size} bytes, {} has {}",
                other.display(),
                self.path.display(),
                self.size
            );
        }
        match first_difference(&self.path, other, 0, self.size)? {
            None => Ok(()),
            Some(at) => bail!(
                "{} differs from {} at byte {at}",
                other.display(),
                self.path.display()
            ),
        }
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .with_context(|| format!("open {}", self.path.display()))
    }

    fn write_with(&self, offset: u64, len: u64, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(offset))?;
        let mut block = vec![0; BLOCK];
        let mut rest = usize::try_from(len)?;
        while rest > 0 {
            let len = rest.min(BLOCK);
            fill(&mut block[..len]);
            file.write_all(&block[..len])?;
            rest -= len;
        }
        Ok(())
    }
}

/// Size of a file or block device.
///
/// # Errors
/// Where it cannot be opened.
pub fn size_of(path: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(file.seek(SeekFrom::End(0))?)
}

/// Bytes of disk a file takes.
///
/// # Errors
/// Where it does not exist.
pub fn allocated(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

/// First byte of `len` from `offset` on that differs between two files.
///
/// # Errors
/// Where one of them ends early.
pub fn first_difference(one: &Path, other: &Path, offset: u64, len: u64) -> Result<Option<u64>> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    one.seek(SeekFrom::Start(offset))?;
    other.seek(SeekFrom::Start(offset))?;
    let (mut left, mut right) = (vec![0; BLOCK * 16], vec![0; BLOCK * 16]);
    let mut done = 0;
    while done < len {
        let step = usize::try_from((len - done).min(left.len() as u64))?;
        one.read_exact(&mut left[..step])?;
        other.read_exact(&mut right[..step])?;
        if left[..step] != right[..step] {
            let at = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + done + at as u64));
        }
        done += step as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_difference_is_found_at_its_byte() {
        let scratch = Scratch::new("image").unwrap();
        let mut random = Random::new(3);
        let one = Image::mixed(&scratch.join("one"), 3 * MIB + 777, &mut random).unwrap();
        let other = one.copy_to(&scratch.join("other")).unwrap();
        one.assert_same(&other.path).unwrap();
        let byte = [!std::fs::read(&one.path).unwrap()[2_000_001]];
        other
            .open()
            .unwrap()
            .write_all_at(&byte, 2_000_001)
            .unwrap();
        assert_eq!(
            first_difference(&one.path, &other.path, 0, one.size).unwrap(),
            Some(2_000_001)
        );
        one.assert_same(&other.path).unwrap_err();
    }

    #[test]
    fn sparse_images_take_no_room() {
        let scratch = Scratch::new("image").unwrap();
        let image = Image::sparse(&scratch.join("hole"), 64 * MIB).unwrap();
        assert!(allocated(&image.path).unwrap() < MIB);
    }
}

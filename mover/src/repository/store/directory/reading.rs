//! Reads objects: small ranges through the page cache, large ones past it.
//!
//! Owns: the descriptor and buffer of one read. Must not: check contents.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::incoming::DIRECT_FROM;
use crate::device::{ALIGNMENT, AlignedBuffer};

/// Bytes compared at a time.
const COMPARE_LEN: u64 = 1024 * 1024;

/// Reads `range`, shorter where the object ends.
pub(super) fn read(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let end = range.end.min(metadata.len());
    let wanted = end.saturating_sub(range.start);
    let len = usize::try_from(wanted).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    if len < DIRECT_FROM {
        return read_buffered(&file, range.start, len);
    }
    let refused = |e: &io::Error| e.raw_os_error() == Some(libc::EINVAL);
    match set_direct(&file, true).and_then(|()| read_direct(&file, range.start, len)) {
        Err(e) if refused(&e) => {
            set_direct(&file, false)?;
            read_buffered(&file, range.start, len)
        }
        read => read,
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let flags = if direct {
        OFlag::O_DIRECT
    } else {
        OFlag::empty()
    };
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn read_buffered(file: &File, start: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let got = fill(file, &mut bytes, start)?;
    bytes.truncate(got);
    Ok(Bytes::from(bytes))
}

/// Rounds the range out to whole sectors and hands out the part asked for without a copy.
fn read_direct(file: &File, start: u64, len: usize) -> io::Result<Bytes> {
    let skip = usize::try_from(start % ALIGNMENT as u64).expect("less than the alignment");
    let span = (skip + len).next_multiple_of(ALIGNMENT);
    let mut buffer = AlignedBuffer::new(span);
    let got = fill(file, &mut buffer[..span], start - skip as u64)?;
    Ok(buffer.into_bytes(skip.min(got)..(skip + len).min(got)))
}

/// Reads until `bytes` is full or the file ends; returns how much it got. A direct read that ends inside a sector has
/// reached the end of the file.
fn fill(file: &File, bytes: &mut [u8], start: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], start + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A direct read that goes on behind an odd end of file.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && done % ALIGNMENT != 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Whether the object holds exactly `body`.
pub(super) fn equals(path: &Path, body: &Bytes) -> io::Result<bool> {
    if std::fs::metadata(path)?.len() != body.len() as u64 {
        return Ok(false);
    }
    let mut start = 0;
    for part in body.chunks(usize::try_from(COMPARE_LEN).expect("a mebibyte fits")) {
        let end = start + part.len() as u64;
        if read(path, start..end)? != part {
            return Ok(false);
        }
        start = end;
    }
    Ok(true)
}

/// Sets the time of the last change to now, by the clock of the file system.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?)
}

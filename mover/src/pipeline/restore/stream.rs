//! Where a restore in order ends: a pipe, or a target whose bytes move against its alignment.
//!
//! Owns: gathering bytes into what the far end takes. Must not: fetch or decode.

use std::fs::File;
use std::io::Write;

use super::decode::WRITE_BYTES;
use super::ordered::ByteSink;
use super::output::Output;
use crate::device::buffer::AlignedBuffer;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::error::{Error, ErrorKind, Result};

/// Zeros are written to a pipe in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes everything, zeros included, to a pipe or any other stream.
#[derive(Debug)]
pub(crate) struct Pipe<W> {
    stream: W,
}

impl<W: Write + Send> Pipe<W> {
    /// Into `stream`, which should not buffer.
    pub(crate) fn new(stream: W) -> Self {
        Self { stream }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|cause| {
            let kind = match cause.kind() {
                std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
                _ => ErrorKind::Io,
            };
            Error::new(kind, "write to standard output")
                .object("-")
                .hint("the reader of the pipe ended early, or what it writes to failed")
                .source(cause)
        })
    }

    /// Flushes what the stream may hold.
    ///
    /// # Errors
    /// As a write.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.write(&[])?;
        self.stream.flush().map_err(|cause| {
            Error::new(ErrorKind::Io, "flush standard output")
                .object("-")
                .source(cause)
        })
    }
}

/// Standard output without the line buffer of the standard library, which would copy everything.
///
/// # Errors
/// `Io` where it is closed: restored bytes must not end nowhere and count as restored.
pub(crate) fn standard_output() -> Result<File> {
    use std::os::fd::AsFd;
    let opened = std::io::stdout().as_fd().try_clone_to_owned();
    let file = opened.map(File::from).map_err(|cause| {
        Error::new(ErrorKind::Io, "open standard output")
            .object("-")
            .source(cause)
    })?;
    if is_stand_in(&file) {
        return Err(Error::new(ErrorKind::Io, "write to standard output: it is closed")
            .object("-")
            .hint("connect it to a file or a program; `snaphaul verify --restore-test` restores to nowhere on purpose"));
    }
    Ok(file)
}

/// Whether the Rust runtime put /dev/null in the place of a closed descriptor, which it opens for reading and writing; a shell's
/// `>/dev/null` is open for writing only.
fn is_stand_in(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::os::unix::fs::MetadataExt;
    let same_device =
        |null: std::fs::Metadata| file.metadata().map(|own| own.rdev() == null.rdev());
    let is_null = std::fs::metadata("/dev/null").and_then(same_device);
    let is_both_ways = fcntl(file, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDWR);
    is_both_ways && is_null.unwrap_or(false)
}

impl<W: Write + Send> ByteSink for Pipe<W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let piece = left.min(ZEROS.len() as u64);
            self.write(&ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())])?;
            left -= piece;
        }
        Ok(())
    }
}

/// Writes a stream of bytes to a target in aligned blocks; the first chunk is kept for the end.
pub(crate) struct Blocks<'a> {
    output: &'a dyn Output,
    queue: Box<dyn IoQueue>,
    free: Vec<AlignedBuffer>,
    first: Vec<u8>,
    first_len: usize,
    first_is_data: bool,
    /// The block being filled: where it begins, how much it has, and whether anything in it is data.
    current: Option<AlignedBuffer>,
    at: u64,
    used: usize,
    is_data: bool,
}

impl<'a> Blocks<'a> {
    /// For a target of `len` bytes whose first chunk has `chunk_size` bytes at most.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) fn new(
        output: &'a dyn Output,
        options: &QueueOptions,
        chunk_size: u64,
        len: u64,
    ) -> Result<Self> {
        let mut queue = output.queue(options)?;
        let free = queue.take_buffers();
        let first_len = usize::try_from(chunk_size.min(len)).unwrap_or(usize::MAX);
        Ok(Self {
            output,
            queue,
            free,
            first: Vec::with_capacity(first_len),
            first_len,
            first_is_data: false,
            current: None,
            at: first_len as u64,
            used: 0,
            is_data: false,
        })
    }

    /// Writes what is left and hands out the first chunk, unless it is zero.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) fn finish(mut self) -> Result<Option<Vec<u8>>> {
        self.end_block()?;
        while let Some(done) = self.queue.wait() {
            done.result?;
        }
        Ok(self.first_is_data.then_some(self.first))
    }

    /// Adds bytes, or zeros where there are none to copy.
    fn add(&mut self, mut bytes: Option<&[u8]>, mut len: usize) -> Result<()> {
        while len > 0 {
            let room = if self.first.len() < self.first_len {
                self.first_len - self.first.len()
            } else {
                block_len() - self.used
            };
            let take = len.min(room);
            let part = bytes.map(|bytes| &bytes[..take]);
            self.place(part, take)?;
            bytes = bytes.map(|bytes| &bytes[take..]);
            len -= take;
        }
        Ok(())
    }

    fn place(&mut self, part: Option<&[u8]>, len: usize) -> Result<()> {
        if self.first.len() < self.first_len {
            match part {
                Some(part) => self.first.extend_from_slice(part),
                None => self.first.resize(self.first.len() + len, 0),
            }
            self.first_is_data |= part.is_some();
            return Ok(());
        }
        let mut buffer = match self.current.take() {
            Some(buffer) => buffer,
            None => self.take_buffer()?,
        };
        let to = &mut buffer[self.used..self.used + len];
        match part {
            Some(part) => to.copy_from_slice(part),
            None => to.fill(0),
        }
        self.current = Some(buffer);
        self.used += len;
        self.is_data |= part.is_some();
        if self.used == block_len() {
            self.end_block()
        } else {
            Ok(())
        }
    }

    fn end_block(&mut self) -> Result<()> {
        let Some(buffer) = self.current.take() else {
            return Ok(());
        };
        let (at, used, is_data) = (self.at, self.used, std::mem::take(&mut self.is_data));
        self.at += used as u64;
        self.used = 0;
        if is_data {
            self.queue.write(at, at, used, buffer);
            return Ok(());
        }
        self.free.push(buffer);
        if self.output.is_fresh() {
            Ok(())
        } else {
            self.output.zero(at, used as u64)
        }
    }

    fn take_buffer(&mut self) -> Result<AlignedBuffer> {
        if let Some(buffer) = self.free.pop() {
            return Ok(buffer);
        }
        let done = self.queue.wait().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "write the target: no buffer is free and none is in flight",
            )
        })?;
        done.result?;
        Ok(done.buffer)
    }
}

fn block_len() -> usize {
    usize::try_from(WRITE_BYTES).expect("1 MiB")
}

impl ByteSink for Blocks<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.add(Some(bytes), bytes.len())
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let is_between_blocks = self.first.len() == self.first_len && self.used == 0;
            if is_between_blocks && left >= WRITE_BYTES {
                // Whole blocks of zeros need no buffer.
                let whole = left / WRITE_BYTES * WRITE_BYTES;
                if !self.output.is_fresh() {
                    self.output.zero(self.at, whole)?;
                }
                self.at += whole;
                left -= whole;
                continue;
            }
            let piece = left.min(WRITE_BYTES - self.used as u64);
            self.add(None, usize::try_from(piece).unwrap_or(usize::MAX))?;
            left -= piece;
        }
        Ok(())
    }
}

//! An image as the target of a restore.
//!
//! Owns: which images are written, and how. Must not: make images, or know in which order (`first_chunk` does).

use std::sync::Arc;

use changed_blocks::ChangedBlocks as _;
use changed_blocks::rbd::{Access, AioQueue, Image, RbdOptions, RbdSource};

use super::super::buffer::AlignedBuffer;
use super::super::first_chunk::{Before, FirstChunk, Medium};
use super::super::queue::{IoQueue, QueueOptions};
use super::super::target::TargetOptions;
use super::queue::{RbdQueue, at};
use super::{failed, open, parse};
use crate::{Error, ErrorKind, Result};

/// Zeroed at once: librbd splits requests by object, and a length must fit the address space.
const ZERO_STEP: u64 = 1 << 30;

/// An opened image.
#[derive(Debug)]
pub struct RbdTarget {
    text: String,
    image: Arc<Image>,
    capacity: u64,
    first: FirstChunk,
}

impl RbdTarget {
    /// Opens `rbd:POOL[/NAMESPACE]/IMAGE`, or refuses it: a snapshot, one that is too small or that somebody has open, and without
    /// `force` or `delta` one that holds anything.
    ///
    /// # Errors
    /// `InvalidRequest` for refusals; `NotFound`, `AccessDenied`, `Io`.
    pub fn open(text: &str, options: &TargetOptions) -> Result<Self> {
        let name = parse(text)?;
        let refuse = |why: &str, hint: &str| {
            let message = format!("refuse target: {why}");
            Err(Error::new(ErrorKind::InvalidRequest, message)
                .object(text)
                .hint(hint))
        };
        if name.snapshot.is_some() {
            return refuse("a snapshot is never written", "leave @SNAPSHOT out");
        }
        let (_, image) = open(text, &name, Access::Write).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.hint(format!(
                "make it first: rbd create --size {}B POOL/IMAGE",
                options.size
            )),
            _ => error,
        })?;
        let ask = |error| failed("look at the image", text, error);
        // Ours is the one watcher that is allowed.
        if image.watchers().map_err(ask)?.len() > 1 {
            return refuse(
                "somebody has the image open",
                "unmap it everywhere, or restore to another image",
            );
        }
        let capacity = image.size().map_err(ask)?;
        if capacity < options.size {
            return refuse(
                &format!("it has {capacity} bytes, {} are needed", options.size),
                "enlarge it with `rbd resize`, or give a larger image",
            );
        }
        let asked = RbdSource::of_image(Arc::clone(&image), RbdOptions::default())
            .and_then(|mut source| is_empty(&mut source));
        let fresh = asked.map_err(|error| {
            Error::new(ErrorKind::Io, "ask what the target holds")
                .object(text)
                .source(error)
        })?;
        if !fresh && !options.force && !options.delta {
            return refuse(
                "it holds data",
                "--force overwrites it, --delta writes only what differs",
            );
        }
        let first = u64::from(options.chunk_size).min(options.size);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let before = if fresh {
            Before::Zeros
        } else {
            Before::Something
        };
        Ok(Self {
            text: text.to_owned(),
            image,
            capacity,
            first: FirstChunk::new(first, before),
        })
    }

    /// Whether it held nothing when it was opened: ranges never written read as zero.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.first.is_fresh()
    }

    /// A queue for reading and writing.
    ///
    /// # Errors
    /// `Io` where the image can no longer be asked.
    pub fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        RbdQueue::new(&self.image, &self.text, options)
            .map(|queue| Box::new(queue) as Box<dyn IoQueue>)
    }

    /// Makes the first chunk zero, in the cluster, before anything else is written; see `Target::protect`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn protect(&self) -> Result<()> {
        self.first.protect(self)
    }

    /// Makes a range read as zeros, by what guarantees that; see `Target::zero`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `Internal` for a range past the end.
    pub fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.capacity)
        {
            return Err(
                Error::new(ErrorKind::Internal, "zero a range past the end").object(&self.text)
            );
        }
        if self.is_fresh() {
            return Ok(());
        }
        let mut queue = self.requests()?;
        let mut done = 0;
        while done < len {
            let step = ZERO_STEP.min(len - done);
            queue.write_zeroes(
                0,
                offset + done,
                usize::try_from(step).unwrap_or(usize::MAX),
            );
            self.wait(&mut queue)?;
            done += step;
        }
        Ok(())
    }

    /// Brings everything to the cluster, then the first chunk, then that; see `Target::settle`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `Internal` where the first chunk is given but was not protected, or the reverse, or has another length.
    pub fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        self.first.settle(self, first_chunk)
    }

    /// Reads from the cluster, in this thread; nothing is cached on this side.
    ///
    /// # Errors
    /// `Io` with the offset.
    pub fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut queue = self.requests()?;
        queue.read(0, offset, len, AlignedBuffer::new(len));
        let buffer = self.wait(&mut queue)?;
        Ok(buffer
            .map(|buffer| buffer[..len].to_vec())
            .unwrap_or_default())
    }

    fn requests(&self) -> Result<AioQueue<AlignedBuffer>> {
        AioQueue::new(Arc::clone(&self.image))
            .map_err(|error| failed("ask the size of the image", &self.text, error))
    }

    fn wait(&self, queue: &mut AioQueue<AlignedBuffer>) -> Result<Option<AlignedBuffer>> {
        let Some(done) = queue.wait() else {
            return Err(Error::new(ErrorKind::Internal, "wait for a request").object(&self.text));
        };
        done.result
            .map(|()| done.buffer)
            .map_err(|error| at(error, &self.text, done.offset, done.len))
    }
}

impl Medium for RbdTarget {
    fn shown(&self) -> String {
        self.text.clone()
    }

    fn write_start(&self, buffer: AlignedBuffer, len: usize) -> Result<()> {
        let mut queue = self.requests()?;
        queue.write(0, 0, len, buffer);
        self.wait(&mut queue).map(drop)
    }

    fn flush(&self) -> Result<()> {
        self.image
            .flush()
            .map_err(|error| failed("flush the image", &self.text, error))
    }
}

/// Whether an image holds nothing, its parent's data included.
fn is_empty(source: &mut RbdSource) -> std::result::Result<bool, changed_blocks::SourceError> {
    let mut holds = false;
    let answer = source.allocated(&mut |_| {
        holds = true;
        false
    });
    if holds {
        Ok(false)
    } else {
        answer.map(|_| true)
    }
}

//! The first chunk of a target: zero while the rest is written, written last.
//!
//! ```text
//!   protect: zeros ─► flush ─► … everything else … ─► settle: flush ─► the chunk ─► flush
//! ```
//!
//! Owns: that order, for every kind of target. Must not: know what a target is.

use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer::AlignedBuffer;
use crate::{Error, ErrorKind, Result};

/// A target as far as this order needs it.
pub(super) trait Medium {
    /// What it is called.
    fn shown(&self) -> String;
    /// Writes the first `len` bytes of `buffer` to its start.
    fn write_start(&self, buffer: AlignedBuffer, len: usize) -> Result<()>;
    /// Brings everything that was written to where it survives a crash.
    fn flush(&self) -> Result<()>;
}

/// What a target held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Something, or nobody knows.
    Something,
    /// Nothing but zeros, under the name by which it is found.
    Zeros,
    /// Nothing: it gets its name once it is whole.
    Nothing,
}

/// Boot sector or superblock are in it: without it nothing mistakes a broken restore for a whole one.
#[derive(Debug)]
pub(super) struct FirstChunk {
    len: usize,
    before: Before,
    protected: AtomicBool,
}

impl FirstChunk {
    pub(super) fn new(len: usize, before: Before) -> Self {
        Self {
            len,
            before,
            protected: AtomicBool::new(false),
        }
    }

    /// Whether ranges never written read as zero.
    pub(super) fn is_fresh(&self) -> bool {
        self.before != Before::Something
    }

    pub(super) fn protect(&self, medium: &impl Medium) -> Result<()> {
        if !self.is_fresh() {
            medium.write_start(AlignedBuffer::new(self.len), self.len)?;
            medium.flush()?;
        }
        self.protected.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn settle(&self, medium: &impl Medium, chunk: Option<&[u8]>) -> Result<()> {
        let misused =
            |message| Err(Error::new(ErrorKind::Internal, message).object(medium.shown()));
        let protected = self.protected.load(Ordering::Acquire);
        if (!self.is_fresh() || protected) && chunk.is_some() != protected {
            return misused("settle a first chunk that was not protected, or the reverse");
        }
        if chunk.is_some_and(|chunk| chunk.len() != self.len) {
            return misused("settle a first chunk of another length");
        }
        if self.before != Before::Nothing {
            medium.flush()?;
        }
        if let Some(chunk) = chunk {
            let mut buffer = AlignedBuffer::new(chunk.len());
            buffer[..chunk.len()].copy_from_slice(chunk);
            medium.write_start(buffer, chunk.len())?;
        }
        medium.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Writes down what is asked of it.
    #[derive(Default)]
    struct Written(RefCell<Vec<String>>);

    impl Medium for Written {
        fn shown(&self) -> String {
            "medium".to_owned()
        }

        fn write_start(&self, buffer: AlignedBuffer, len: usize) -> Result<()> {
            let byte = buffer[..len].iter().max().copied().unwrap_or_default();
            self.0.borrow_mut().push(format!("write {byte} × {len}"));
            Ok(())
        }

        fn flush(&self) -> Result<()> {
            self.0.borrow_mut().push("flush".to_owned());
            Ok(())
        }
    }

    #[test]
    fn the_first_chunk_is_zero_until_all_else_is_there() {
        let all = ["write 0 × 3", "flush", "flush", "write 7 × 3", "flush"];
        for (before, steps) in [
            (Before::Something, &all[..]),
            (Before::Zeros, &all[2..]),
            (Before::Nothing, &all[3..]),
        ] {
            let (first, medium) = (FirstChunk::new(3, before), Written::default());
            first.protect(&medium).unwrap();
            first.settle(&medium, Some(&[7; 3])).unwrap();
            assert_eq!(medium.0.into_inner(), steps, "{before:?}");
        }
    }

    #[test]
    fn it_is_protected_and_given_or_neither() {
        let medium = Written::default();
        for before in [Before::Something, Before::Zeros, Before::Nothing] {
            let first = FirstChunk::new(3, before);
            first.settle(&medium, None).unwrap();
            first.protect(&medium).unwrap();
            assert!(first.settle(&medium, None).is_err());
            assert!(first.settle(&medium, Some(&[7; 2])).is_err());
        }
        let first = FirstChunk::new(3, Before::Something);
        let error = first.settle(&medium, Some(&[7; 3])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

//! Reads and decodes the bodies of one data segment.
//!
//! Owns: the requests, and falling back to one body at a time where many cannot be read. Must not: decide whom a bad body hurts.

use bytes::Bytes;

use super::super::findings::Fault;
use super::Checker;
use crate::error::{Error, Result};
use crate::pipeline::progress::Progress;
use crate::repository::format::{BodyEntry, Class, Decoder, Directory, fault};

impl Checker<'_> {
    /// Reads and checks all bodies, many with one request; `front` is what is here already.
    pub(super) fn read_bodies(
        &self,
        decoder: &mut Decoder,
        directory: &Directory,
        front: Bytes,
    ) -> Result<()> {
        let entries = directory.entries();
        let mut raw = Vec::new();
        let (mut bytes, mut base) = (front, 0);
        for (at, entry) in entries.iter().enumerate() {
            self.context.stop.check()?;
            if base + (bytes.len() as u64) < body_end(entry) || entry.offset < base {
                bytes = match self.read_from(directory, &entries[at..]) {
                    Ok(bytes) => bytes,
                    // Compacted away meanwhile: what is needed of it was checked when it was copied.
                    Err(error) if Fault::of(&error) == Some(Fault::Missing) => {
                        return self.vanished(directory, error);
                    }
                    Err(error) => {
                        self.note(directory.id(), Some(&[entry.ordinal]), error)?;
                        bytes = Bytes::new();
                        continue;
                    }
                };
                base = entry.offset;
                Progress::add(&self.context.progress.read, bytes.len() as u64);
            }
            let stored = slice(&bytes, base, entry);
            if let Err(error) = self.body(decoder, directory, entry, stored, &mut raw) {
                self.note(directory.id(), Some(&[entry.ordinal]), error)?;
            }
            self.lock().counted.chunks += 1;
        }
        Ok(())
    }

    /// Reads the first of the bodies, with as many behind it as one request takes, or alone where these cannot be read.
    fn read_from(&self, directory: &Directory, entries: &[BodyEntry]) -> Result<Bytes> {
        let Some(first) = entries.first() else {
            return Ok(Bytes::new());
        };
        let get_bytes = self.get_bytes();
        let fits = |next: &&BodyEntry| body_end(next) - first.offset <= get_bytes;
        let last = entries.iter().take_while(fits).last().unwrap_or(first);
        match self.reader.read(directory, first.offset..body_end(last)) {
            Err(error)
                if Fault::of(&error).is_some_and(|fault| fault != Fault::Missing)
                    && last.ordinal != first.ordinal =>
            {
                tracing::debug!(%error, "read a body alone");
                self.reader.read(directory, first.offset..body_end(first))
            }
            read => read,
        }
    }

    /// An object that was there a moment ago: look for another generation, which the next leaf that needs it checks.
    fn vanished(&self, directory: &Directory, error: Error) -> Result<()> {
        let id = directory.id();
        self.reader.forget(Class::Data, id);
        match self.reader.directory(Class::Data, id) {
            Ok(_) => {
                self.lock().data.remove(&id);
                Ok(())
            }
            Err(_) => self.note(id, None, error),
        }
    }

    fn body(
        &self,
        decoder: &mut Decoder,
        directory: &Directory,
        entry: &BodyEntry,
        stored: Option<&[u8]>,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let stored =
            stored.ok_or_else(|| fault::truncated(directory.object(), 0, body_end(entry)))?;
        let len = usize::try_from(entry.raw_len).unwrap_or(usize::MAX);
        if raw.len() < len {
            raw.resize(len, 0);
        }
        decoder.decode(
            &self.context.repository.keys,
            directory,
            entry,
            stored,
            &mut raw[..len],
        )
    }
}

/// Where a body ends in its object.
pub(super) fn body_end(entry: &BodyEntry) -> u64 {
    entry.offset + u64::from(entry.stored_len)
}

/// A body's bytes, of an object of which `bytes` begin at `base`.
fn slice<'b>(bytes: &'b [u8], base: u64, entry: &BodyEntry) -> Option<&'b [u8]> {
    let start = usize::try_from(entry.offset.checked_sub(base)?).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(entry.stored_len).ok()?)?)
}

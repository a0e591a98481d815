//! Chunks that killed sessions of the same volume had stored already.
//!
//! Owns: finding them again by chunk number and digest, in bounded memory: per segment the span of its chunk numbers, and
//! the directories of the few segments around the reader. Must not: take a chunk whose digest differs, or rely on segments none of
//! whose bodies were looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::error::{ErrorKind, Result};
use crate::pipeline::restore::sample::Random;
use crate::repository::access::Repository;
use crate::repository::format::{Class, Decoder, Directory, fault};
use crate::repository::ids::{Digest, SegmentId, SessionKey, name, random};
use crate::repository::map::Location;
use crate::repository::segments::SegmentReader;

/// Directories kept decoded. Workers are at most a few segments apart; 16 × 4096 entries stay below 4 MiB.
const KEPT_DIRECTORIES: usize = 16;

/// Segments of a session of which bodies are decoded before they are relied on, about; three requests each.
const PROBED: usize = 64;
/// The newest segments of a session are always among them.
const SURELY_PROBED: usize = 8;

/// Adopted chunks of one session.
#[derive(Debug, Default)]
pub struct AdoptedChunks {
    /// Ascending by first chunk.
    spans: Vec<Span>,
    reader: Option<SegmentReader>,
    recent: Mutex<VecDeque<(SegmentId, Arc<Chunks>)>>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    /// Highest `last` of this span and all before it: a search going down may stop below it.
    reach: u64,
    segment: SegmentId,
}

type Chunks = BTreeMap<u64, (Digest, u16)>;

impl AdoptedChunks {
    /// Reads the directories of everything the adopted sessions stored. Damaged segments are left alone: their chunks are
    /// stored again.
    ///
    /// # Errors
    /// What the store answers.
    pub fn load(repository: &Arc<Repository>, sessions: &[SessionKey]) -> Result<Self> {
        if sessions.is_empty() {
            return Ok(Self::default());
        }
        let reader = SegmentReader::new(repository);
        let mut random = Random::new(u64::from_le_bytes(random()));
        let mut spans = Vec::new();
        for session in sessions {
            let prefix = name::segments_of(session.session);
            repository.store.rely_on(prefix.trim_end_matches('/'));
            let mut segments = Vec::new();
            repository.store.list(&prefix, &mut |page| {
                segments.extend(page.iter().filter_map(|info| {
                    Some((segment_id(session, &prefix, &info.name)?, info.size))
                }));
                Ok(())
            })?;
            // What was on its way when the session died is the likeliest to be broken; of the rest chance takes some.
            let last = segments.len().saturating_sub(SURELY_PROBED);
            let share = segments.len().div_ceil(PROBED) as u64;
            for (at, (segment, len)) in segments.into_iter().enumerate() {
                let probed = at >= last || random.below(share) == 0;
                spans.extend(span(
                    &reader,
                    (segment, len),
                    probed.then_some(&mut random),
                )?);
            }
        }
        spans.sort_by_key(|span| span.first);
        let mut reach = 0;
        for span in &mut spans {
            reach = span.last.max(reach);
            span.reach = reach;
        }
        Ok(Self {
            spans,
            reader: Some(reader),
            recent: Mutex::default(),
        })
    }

    /// Where chunk `number` with this digest is stored, if an adopted session had stored it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn find(&self, number: u64, digest: &Digest) -> Result<Option<Location>> {
        let end = self.spans.partition_point(|span| span.first <= number);
        for span in self.spans[..end].iter().rev() {
            if span.reach < number {
                break;
            }
            if span.last < number {
                continue;
            }
            let chunks = self.chunks(span.segment)?;
            if let Some((stored, ordinal)) = chunks.get(&number)
                && stored == digest
            {
                return Ok(Some(Location {
                    segment: span.segment,
                    ordinal: *ordinal,
                }));
            }
        }
        Ok(None)
    }

    fn chunks(&self, segment: SegmentId) -> Result<Arc<Chunks>> {
        let mut recent = self.recent.lock().expect("no holder panics");
        if let Some((_, chunks)) = recent.iter().find(|(id, _)| *id == segment) {
            return Ok(Arc::clone(chunks));
        }
        let Some(reader) = &self.reader else {
            return Ok(Arc::default());
        };
        let directory = reader.directory(Class::Data, segment)?;
        let chunks: Chunks = directory
            .entries()
            .iter()
            .map(|entry| (entry.key, (entry.digest, entry.ordinal)))
            .collect();
        let chunks = Arc::new(chunks);
        if recent.len() == KEPT_DIRECTORIES {
            recent.pop_front();
        }
        recent.push_back((segment, Arc::clone(&chunks)));
        Ok(chunks)
    }
}

/// Parses `<number>.g<generation>` below the session's prefix.
fn segment_id(session: &SessionKey, prefix: &str, name: &str) -> Option<SegmentId> {
    let (number, _generation) = name.strip_prefix(prefix)?.split_once(".g")?;
    Some(SegmentId {
        session: session.session,
        number: number.parse().ok()?,
    })
}

/// The span of an intact segment of `len` bytes; with `random`, some of its bodies are decoded first.
fn span(
    reader: &SegmentReader,
    (segment, len): (SegmentId, u64),
    random: Option<&mut Random>,
) -> Result<Option<Span>> {
    let opened = reader
        .directory(Class::Data, segment)
        .and_then(|directory| {
            if directory.object_len() != len {
                let want = directory.object_len();
                return Err(fault::truncated(directory.object(), len, want));
            }
            random.map_or(Ok(()), |random| probe(reader, &directory, random))?;
            Ok(directory)
        });
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            tracing::warn!(%error, "store the chunks of a damaged segment again");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let numbers = || directory.entries().iter().map(|entry| entry.key);
    Ok(match (numbers().min(), numbers().max()) {
        (Some(first), Some(last)) => Some(Span {
            first,
            last,
            reach: last,
            segment,
        }),
        _ => None,
    })
}

/// Decodes the first body, the last and one between: an intact directory says nothing about what lies behind it.
fn probe(reader: &SegmentReader, directory: &Directory, random: &mut Random) -> Result<()> {
    let entries = directory.entries();
    let between = usize::try_from(random.below(entries.len().max(1) as u64)).unwrap_or(0);
    let mut decoder = Decoder::new();
    let mut raw = Vec::new();
    for at in [0, between, entries.len().saturating_sub(1)] {
        let Some(entry) = entries.get(at) else {
            continue;
        };
        let end = entry.offset + u64::from(entry.stored_len);
        let stored = reader.read(directory, entry.offset..end)?;
        raw.resize(entry.raw_len as usize, 0);
        let keys = &reader.repository().keys;
        decoder.decode(keys, directory, entry, &stored, &mut raw)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::{Bed, CHUNK, Layout, flip, image};
    use crate::repository::format::Compression;

    #[test]
    fn a_damaged_body_at_an_end_of_a_segment_is_noticed_and_the_segment_left_alone() {
        let bed = Bed::new();
        let layout = Layout {
            compression: Compression::None,
            ..Layout::default()
        };
        let data = image(40, 0, 9);
        let key = bed.point("disk", &data, layout);
        let digest = |chunk: usize| {
            let bytes = &data[chunk * CHUNK..(chunk + 1) * CHUNK];
            bed.repository.keys.digest(bytes)
        };
        let found = |adopted: &AdoptedChunks| {
            let chunks = 0..40u64;
            let found = chunks.filter_map(|chunk| {
                adopted
                    .find(chunk, &digest(usize::try_from(chunk).unwrap()))
                    .unwrap()
            });
            let mut segments: Vec<u32> = found.map(|at| at.segment.number).collect();
            segments.dedup();
            segments
        };
        let before = found(&AdoptedChunks::load(&bed.repository, &[key]).unwrap());
        assert!(before.contains(&0) && before.contains(&1), "{before:?}");
        let segment = SegmentId {
            session: key.session,
            number: 1,
        };
        let reader = SegmentReader::new(&bed.repository);
        let directory = reader.directory(Class::Data, segment).unwrap();
        let last = directory.entries().last().unwrap();
        flip(&bed.object(&name::segment(segment, 0)), last.offset + 9);
        let after = found(&AdoptedChunks::load(&bed.repository, &[key]).unwrap());
        assert!(after.contains(&0) && !after.contains(&1), "{after:?}");
    }
}

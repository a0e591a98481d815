//! Chunks that killed sessions of the same volume had stored already.
//!
//! Owns: finding them again by chunk number and digest, in bounded memory: per segment the span of its chunk numbers, and
//! the directories of the few segments around the reader. Must not: take a chunk whose digest differs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::error::{ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{Digest, SegmentId, SessionKey, name};
use crate::repository::map::Location;
use crate::repository::segments::SegmentReader;

/// Directories kept decoded. Workers are at most a few segments apart; 16 × 4096 entries stay below 4 MiB.
const KEPT_DIRECTORIES: usize = 16;

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
        let mut spans = Vec::new();
        for session in sessions {
            let prefix = name::segments_of(session.session);
            let mut segments = Vec::new();
            repository.store.list(&prefix, &mut |page| {
                segments.extend(page.iter().filter_map(|info| {
                    Some((segment_id(session, &prefix, &info.name)?, info.size))
                }));
                Ok(())
            })?;
            for (segment, len) in segments {
                spans.extend(span(&reader, segment, len)?);
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

/// The span of an intact segment of `len` bytes.
fn span(reader: &SegmentReader, segment: SegmentId, len: u64) -> Result<Option<Span>> {
    let directory = match reader.directory(Class::Data, segment) {
        Ok(directory) if directory.object_len() == len => directory,
        Ok(_) => {
            tracing::warn!(
                ?segment,
                len,
                "store the chunks of a truncated segment again"
            );
            return Ok(None);
        }
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

//! Loads map pages from segments: many at once, grouped, in parallel, checked.
//!
//! ```text
//!   pointers ─► by segment ─► directories ─► joined ranges ─► GET (16 in flight) ─► decode ─► hash ─► parse
//!                                              └ ranges read ahead are kept for the next call
//! ```
//!
//! Owns: the way from pointers to pages. Must not: know the tree's shape. A page is compared with its pointer's hash before
//! it is parsed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::damage::DamagedPage;
use super::entry::PagePointer;
use super::page::{self, MAX_PAGE_LEN, Page};
use super::plan::{self, Fetch, MAX_GET, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::{Class, Decoder, Directory};
use crate::repository::ids::SegmentId;
use crate::repository::segments::SegmentReader;

/// Requests at the same time.
const IN_FLIGHT: usize = 16;
/// Bytes that requests in flight may ask for; with [`RANGE_CACHE_BYTES`] and decoded nodes this is the map's budget of
/// 32 MiB.
pub(super) const IN_FLIGHT_BYTES: u64 = 16 << 20;
/// Stored bytes kept for the pages that come next.
const RANGE_CACHE_BYTES: usize = 6 << 20;
/// A scan reads at least so much at once: pages of the next nodes lie right behind.
const SCAN_GET: u64 = 512 << 10;
/// Ranges up to this are kept.
const MAX_KEPT: usize = 1 << 20;
/// Most segments that are read ahead in by one call.
const SCAN_SEGMENTS: usize = 2;

/// One page that is asked for, and what it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRequest {
    pub(super) pointer: PagePointer,
    pub(super) level: u8,
    pub(super) index: u64,
}

type Loaded = Result<Page, DamagedPage>;

/// Loads pages; shared by threads.
#[derive(Debug)]
pub(super) struct PageReader {
    segments: Arc<SegmentReader>,
    kept: Mutex<VecDeque<KeptRange>>,
}

/// Stored bytes that were read and may hold pages asked for next.
#[derive(Clone, Debug)]
struct KeptRange {
    segment: SegmentId,
    start: u64,
    bytes: Bytes,
}

/// What a call has to do, and what is done.
struct Batch<'a> {
    requests: &'a [PageRequest],
    /// More pages behind these will be asked for soon.
    scan: bool,
    /// Requests to the store.
    jobs: Vec<(Arc<Directory>, Fetch)>,
    /// Pages whose stored bytes are already here.
    ready: Vec<(Arc<Directory>, Wanted, Bytes)>,
    results: Vec<Option<Loaded>>,
}

impl PageReader {
    pub(super) fn new(segments: Arc<SegmentReader>) -> Self {
        Self {
            segments,
            kept: Mutex::default(),
        }
    }

    /// Loads all pages asked for, in the same order. `scan`: more pages behind them will be asked for soon.
    pub(super) fn load(&self, requests: &[PageRequest], scan: bool) -> Vec<Loaded> {
        let mut by_segment = BTreeMap::<SegmentId, Vec<usize>>::new();
        for (at, request) in requests.iter().enumerate() {
            by_segment
                .entry(request.pointer.location.segment)
                .or_default()
                .push(at);
        }
        // Reading ahead in many segments would read far more than it saves.
        let scan = scan && by_segment.len() <= SCAN_SEGMENTS;
        let results = vec![None; requests.len()];
        let mut batch = Batch {
            requests,
            scan,
            jobs: Vec::new(),
            ready: Vec::new(),
            results,
        };
        let segments = by_segment.keys().copied().collect::<Vec<_>>();
        for (directory, members) in self
            .directories(&segments)
            .into_iter()
            .zip(by_segment.values())
        {
            match directory {
                Ok(directory) => self.plan(&mut batch, &directory, members),
                Err(error) => members.iter().for_each(|at| batch.fail(*at, &error)),
            }
        }
        self.fetch(&mut batch);
        let results = batch.results.into_iter();
        results
            .map(|page| page.expect("every request was planned or has an error"))
            .collect()
    }

    /// Loads one page.
    pub(super) fn load_one(&self, request: PageRequest) -> Loaded {
        self.load(&[request], false)
            .pop()
            .expect("one request gives one page")
    }

    fn directories(&self, segments: &[SegmentId]) -> Vec<Result<Arc<Directory>>> {
        let cached = segments
            .iter()
            .map(|segment| self.segments.cached(Class::Map, *segment));
        let cached = cached.collect::<Vec<_>>();
        let absent = segments
            .iter()
            .zip(&cached)
            .filter(|(_, cached)| cached.is_none());
        let absent = absent.map(|(segment, _)| *segment).collect::<Vec<_>>();
        let mut read = in_parallel(&absent, IN_FLIGHT, |segment| {
            let (directory, head) = self.segments.directory_and_head(Class::Map, *segment)?;
            if let Some(bytes) = head {
                self.keep(KeptRange {
                    segment: *segment,
                    start: 0,
                    bytes,
                });
            }
            Ok(directory)
        })
        .into_iter();
        let directory = |cached: Option<_>| match cached {
            Some(directory) => Ok(directory),
            None => read.next().expect("one result for each that is absent"),
        };
        cached.into_iter().map(directory).collect()
    }

    fn plan(&self, batch: &mut Batch<'_>, directory: &Arc<Directory>, members: &[usize]) {
        let mut wanted = Vec::new();
        for at in members {
            let ordinal = batch.requests[*at].pointer.location.ordinal;
            match directory.entry(ordinal) {
                Some(entry) if entry.raw_len <= MAX_PAGE_LEN => {
                    let bytes = entry.offset..entry.offset + u64::from(entry.stored_len);
                    let body = Wanted {
                        bytes,
                        request: *at,
                    };
                    match self.kept(directory.id(), &body.bytes) {
                        Some(bytes) => batch.ready.push((Arc::clone(directory), body, bytes)),
                        None => wanted.push(body),
                    }
                }
                found => {
                    let what = if found.is_some() {
                        "is too long for a page"
                    } else {
                        "is not there"
                    };
                    let message = format!("find body {ordinal}: it {what}");
                    let error = Error::new(ErrorKind::Corrupt, message).object(directory.object());
                    batch.fail(*at, &error);
                }
            }
        }
        let mut fetches = plan::join(wanted, directory.object_len());
        if batch.scan {
            plan::read_ahead(&mut fetches, SCAN_GET, directory.object_len());
        }
        batch.jobs.extend(
            fetches
                .into_iter()
                .map(|fetch| (Arc::clone(directory), fetch)),
        );
    }

    fn fetch(&self, batch: &mut Batch<'_>) {
        let (requests, scan) = (batch.requests, batch.scan);
        let repository = self.segments.repository();
        let longest = batch
            .jobs
            .iter()
            .map(|(_, fetch)| fetch.bytes.end - fetch.bytes.start)
            .max();
        let threads = usize::try_from(IN_FLIGHT_BYTES / longest.unwrap_or(1).max(1)).unwrap_or(1);
        let fetched = in_parallel(
            &batch.jobs,
            threads.clamp(1, IN_FLIGHT),
            |(directory, fetch)| {
                // A segment that is gone since its directory was read is reported as missing.
                let bytes = self
                    .segments
                    .retrying(Class::Map, directory.id(), |directory| {
                        self.segments.read(directory, fetch.bytes.clone())
                    })?;
                let start = fetch.bytes.start;
                if scan && bytes.len() <= MAX_KEPT {
                    self.keep(KeptRange {
                        segment: directory.id(),
                        start,
                        bytes: bytes.clone(),
                    });
                }
                let mut decoder = PageDecoder::new(repository);
                let page = |body: &Wanted| {
                    let stored = slice(&bytes, start, &body.bytes).unwrap_or_default();
                    (
                        body.request,
                        decoder.decode(directory, &requests[body.request], &stored),
                    )
                };
                Ok(fetch.wanted.iter().map(page).collect::<Vec<_>>())
            },
        );
        let jobs = std::mem::take(&mut batch.jobs);
        for ((_, fetch), pages) in jobs.iter().zip(fetched) {
            match pages {
                Ok(pages) => pages
                    .into_iter()
                    .for_each(|(at, page)| batch.results[at] = Some(page)),
                Err(error) => fetch
                    .wanted
                    .iter()
                    .for_each(|body| batch.fail(body.request, &error)),
            }
        }
        let mut decoder = PageDecoder::new(repository);
        for (directory, body, stored) in std::mem::take(&mut batch.ready) {
            let page = decoder.decode(&directory, &requests[body.request], &stored);
            batch.results[body.request] = Some(page);
        }
    }

    fn keep(&self, range: KeptRange) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = range.bytes.len();
        kept.push_front(range);
        kept.retain({
            let mut first = true;
            move |range| {
                if !std::mem::take(&mut first) {
                    bytes += range.bytes.len();
                }
                bytes <= RANGE_CACHE_BYTES
            }
        });
    }

    fn kept(&self, segment: SegmentId, wanted: &Range<u64>) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut same = kept.iter().filter(|range| range.segment == segment);
        same.find_map(|range| slice(&range.bytes, range.start, wanted))
    }
}

impl Batch<'_> {
    fn fail(&mut self, at: usize, error: &Error) {
        self.results[at] = Some(Err(self.requests[at].damaged(error)));
    }
}

impl PageRequest {
    fn damaged(&self, error: &Error) -> DamagedPage {
        DamagedPage::new(self.level, self.index, &self.pointer, error)
    }
}

/// The bytes `wanted` of an object, of which `bytes` begin at `start`.
fn slice(bytes: &Bytes, start: u64, wanted: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(wanted.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(wanted.end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

/// From stored bytes to a page, with scratch memory of its own.
struct PageDecoder<'a> {
    repository: &'a Repository,
    decoder: Decoder,
    raw: Vec<u8>,
}

impl<'a> PageDecoder<'a> {
    fn new(repository: &'a Repository) -> Self {
        Self {
            repository,
            decoder: Decoder::new(),
            raw: Vec::new(),
        }
    }

    fn decode(&mut self, directory: &Directory, request: &PageRequest, stored: &[u8]) -> Loaded {
        self.try_decode(directory, request, stored)
            .map_err(|error| request.damaged(&error))
    }

    fn try_decode(
        &mut self,
        directory: &Directory,
        request: &PageRequest,
        stored: &[u8],
    ) -> Result<Page> {
        let ordinal = request.pointer.location.ordinal;
        let entry = directory.entry(ordinal).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("find body {ordinal} again"))
                .object(directory.object())
        })?;
        let keys = &self.repository.keys;
        self.raw.clear();
        self.raw
            .resize(usize::try_from(entry.raw_len).unwrap_or(usize::MAX), 0);
        self.decoder
            .decode(keys, directory, entry, stored, &mut self.raw)?;
        let page = page::decode(&self.raw, request.level).map_err(|cause| {
            let message = format!("decode body {ordinal} as a map page");
            Error::new(ErrorKind::Corrupt, message)
                .object(directory.object())
                .source(cause)
        })?;
        if keys.page_hash(&page.content(request.level), &self.raw) != request.pointer.hash {
            let message = format!("match body {ordinal} with its pointer: it is another page");
            return Err(Error::new(ErrorKind::Corrupt, message).object(directory.object()));
        }
        Ok(page)
    }
}

/// Runs `work` on every item on up to `threads` threads and returns the results in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if items.len() < 2 || threads < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some((at, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
        {
            done.push((at, work(item)));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let threads = (1..threads.min(items.len()))
            .map(|_| scope.spawn(take))
            .collect::<Vec<_>>();
        let mut done = take();
        for thread in threads {
            match thread.join() {
                Ok(part) => done.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

const _: () = assert!(
    MAX_GET * 4 <= IN_FLIGHT_BYTES,
    "at least four of the longest requests fit"
);

#[cfg(test)]
mod tests;

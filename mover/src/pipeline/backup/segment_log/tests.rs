//! Many writers, small segments: every chunk finds a place, and every place holds the chunk.

use super::*;
use crate::pipeline::backup::upload;
use crate::pipeline::budget::Failure;
use crate::pipeline::progress::Progress;
use crate::pipeline::testing::{Bed, CHUNK};
use crate::repository::segments::SegmentReader;

const WRITERS: u64 = 4;
const CHUNKS_EACH: u64 = 100;

#[test]
fn writers_that_fill_segments_at_the_same_time_all_find_room() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let session = SessionId([7; 16]);
    let (failure, progress) = (Failure::default(), Progress::default());
    let (uploader, uploads) = Uploader::new(8);
    let locations = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let store = repository.store.as_ref();
        scope.spawn(|| upload::run(store, &uploads, &failure, &progress));
        let log = SegmentLog::new(
            Arc::clone(repository),
            session,
            (uploader, 2),
            Arc::default(),
        );
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (log, locations) = (&log, &locations);
                scope.spawn(move || {
                    for n in 0..CHUNKS_EACH {
                        let number = writer * CHUNKS_EACH + n;
                        let raw = vec![u8::try_from(number % 251).unwrap(); CHUNK];
                        let digest = repository.keys.digest(&raw);
                        let raw_len = u32::try_from(raw.len()).unwrap();
                        let codec = Codec::Raw;
                        let chunk = EncodedChunk {
                            number,
                            digest,
                            raw_len,
                            codec,
                            bytes: &raw,
                        };
                        let location = log.append(&chunk).unwrap();
                        locations.lock().unwrap().push((number, digest, location));
                    }
                });
            }
        });
        log.finish().unwrap();
        drop(log);
    });
    assert!(failure.take().is_none());
    let reader = SegmentReader::new(repository);
    let locations = locations.into_inner().unwrap();
    assert_eq!(locations.len() as u64, WRITERS * CHUNKS_EACH);
    for (number, digest, location) in locations {
        let directory = reader.directory(Class::Data, location.segment).unwrap();
        let entry = directory.entry(location.ordinal).unwrap();
        assert_eq!((entry.key, entry.digest), (number, digest));
    }
}

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use super::*;
use crate::device::{Source, SourceOptions};

const SIZE: u64 = 1 << 20;

fn source(path: &Path, faults: Vec<(u64, Fault)>) -> FaultySource {
    let inner = Source::open(path, &SourceOptions::default()).unwrap();
    FaultySource::new(Box::new(inner), faults)
}

fn file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
    file
}

fn read(queue: &mut dyn IoQueue, offset: u64) -> Completion {
    queue.read(1, offset, 4096, AlignedBuffer::new(4096));
    queue.wait().unwrap()
}

#[test]
fn only_requests_over_the_bad_byte_fail_and_name_their_place() {
    let file = file();
    for fault in [Fault::Error, Fault::ShortRead] {
        let source = source(file.path(), vec![(8192 + 100, fault)]);
        let mut queue = source.queue(&QueueOptions::default()).unwrap();
        assert!(read(&mut *queue, 4096).result.is_ok());
        assert!(read(&mut *queue, 12288).result.is_ok());
        let error = read(&mut *queue, 8192).result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("offset 8192"), "{error}");
        assert_eq!(error.object_name(), Some(source.name().as_str()));
    }
}

#[test]
fn a_flip_changes_one_bit_and_says_nothing() {
    let file = file();
    let source = source(file.path(), vec![(10, Fault::Flip)]);
    let mut queue = source.queue(&QueueOptions::default()).unwrap();
    let completion = read(&mut *queue, 0);
    assert!(completion.result.is_ok());
    let wrong: Vec<usize> = (0..completion.len)
        .filter(|position| completion.buffer[*position] != 7)
        .collect();
    assert_eq!(wrong, [10]);
}

#[test]
fn a_stalled_read_waits_for_its_release() {
    let file = file();
    let stall = Arc::new(Stall::default());
    let source = source(file.path(), vec![(0, Fault::Stall(Arc::clone(&stall)))]);
    let mut queue = source.queue(&QueueOptions::default()).unwrap();
    let reader = thread::spawn(move || read(&mut *queue, 0).result.is_ok());
    stall.wait_until_stalled();
    assert!(!reader.is_finished());
    stall.release();
    assert!(reader.join().unwrap());
}

#[test]
fn a_source_can_be_told_to_have_changed() {
    let file = file();
    let source = source(file.path(), Vec::new());
    assert_eq!(
        (source.size(), source.identity().kind.as_str()),
        (SIZE, "file")
    );
    assert!(source.check_unchanged().unwrap());
    source.change();
    assert!(!source.check_unchanged().unwrap());
}

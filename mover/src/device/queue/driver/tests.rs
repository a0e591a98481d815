//! The driver over an engine whose every step is scripted.

use std::os::unix::fs::FileExt;

use nix::libc;

use super::super::EngineChoice;
use super::*;
use crate::ErrorKind;

/// Answers steps from a script; after its end it moves what is asked for.
#[derive(Debug, Default)]
struct Scripted {
    script: VecDeque<Outcome>,
    held: VecDeque<(Transfer, usize)>,
    steps: Vec<(u64, usize)>,
}

#[derive(Debug)]
enum Outcome {
    Moves(usize),
    Fails(i32),
    Breaks,
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn register(&mut self, _buffers: &mut [AlignedBuffer]) {}

    fn start(&mut self, transfer: Transfer, len: usize) {
        self.steps.push((transfer.position(), len));
        self.held.push_back((transfer, len));
    }

    fn finish_one(&mut self) -> io::Result<(Transfer, io::Result<usize>)> {
        let outcome = self.script.pop_front();
        if let Some(Outcome::Breaks) = outcome {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let (mut transfer, len) = self.held.pop_front().unwrap();
        let moved = match outcome {
            Some(Outcome::Fails(errno)) => {
                return Ok((transfer, Err(io::Error::from_raw_os_error(errno))));
            }
            Some(Outcome::Moves(moved)) => moved,
            _ => len,
        };
        let range = transfer.done..transfer.done + moved;
        transfer.buffer[range].fill(b'd');
        Ok((transfer, Ok(moved)))
    }

    fn abandon(&mut self) -> Vec<Transfer> {
        self.held.drain(..).map(|(transfer, _)| transfer).collect()
    }
}

const SIZE: u64 = 64 * 1024 + 100;

fn driver(
    script: impl IntoIterator<Item = Outcome>,
) -> (tempfile::NamedTempFile, Driver<Scripted>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let tail = vec![b't'; usize::try_from(SIZE).unwrap()];
    file.as_file().write_all_at(&tail, 0).unwrap();
    let device = DeviceFile::open(file.reopen().unwrap(), file.path(), Direction::Write).unwrap();
    let engine = Scripted {
        script: script.into_iter().collect(),
        ..Scripted::default()
    };
    let options = QueueOptions {
        depth: 4,
        buffer_len: 65536,
        engine: EngineChoice::Auto,
    };
    (file, Driver::new(engine, Arc::new(device), &options))
}

#[test]
fn short_transfers_go_on_where_they_stopped() {
    let (_file, mut queue) = driver([Outcome::Moves(4096), Outcome::Moves(8192)]);
    queue.read(1, 4096, 32768, AlignedBuffer::new(32768));
    let completion = queue.wait().unwrap();
    assert!(completion.result.is_ok());
    assert!(completion.buffer.iter().all(|byte| *byte == b'd'));
    assert_eq!(
        queue.engine.steps,
        [(4096, 32768), (8192, 28672), (16384, 20480)]
    );
}

#[test]
fn a_transfer_cut_inside_a_unit_ends_through_the_buffered_descriptor() {
    let (_file, mut queue) = driver([Outcome::Moves(100)]);
    queue.read(1, 0, 8192, AlignedBuffer::new(8192));
    let completion = queue.wait().unwrap();
    assert!(completion.result.is_ok());
    assert_eq!(completion.buffer[..100], [b'd'; 100]);
    assert!(
        completion.buffer[100..8192]
            .iter()
            .all(|byte| *byte == b't')
    );
}

#[test]
fn interrupted_transfers_are_repeated() {
    let (_file, mut queue) = driver([Outcome::Fails(libc::EINTR), Outcome::Fails(libc::EAGAIN)]);
    queue.write(1, 0, 4096, AlignedBuffer::new(4096));
    assert!(queue.wait().unwrap().result.is_ok());
    assert_eq!(queue.engine.steps, [(0, 4096); 3]);
}

#[test]
fn a_transfer_that_moves_nothing_has_reached_the_end() {
    let (file, mut queue) = driver([Outcome::Moves(4096), Outcome::Moves(0)]);
    queue.read(1, 0, 8192, AlignedBuffer::new(8192));
    let error = queue.wait().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .contains(&file.path().display().to_string()),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("smaller"));
}

#[test]
fn kernel_errors_keep_their_meaning() {
    for (errno, kind) in [
        (libc::EIO, ErrorKind::Io),
        (libc::ENOSPC, ErrorKind::NoSpace),
    ] {
        let (_file, mut queue) = driver([Outcome::Fails(errno)]);
        queue.write(1, 8192, 4096, AlignedBuffer::new(4096));
        let error = queue.wait().unwrap().result.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("offset 8192"), "{error}");
    }
}

#[test]
fn the_tail_waits_until_no_direct_transfer_is_left() {
    let (file, mut queue) = driver([]);
    let (tail, body) = (65536, SIZE - 100 - 8192);
    queue.write(1, tail, 100, AlignedBuffer::new(100));
    queue.write(2, body, 8192, AlignedBuffer::new(8192));
    queue.write(3, 0, 4096, AlignedBuffer::new(4096));
    let order: Vec<u64> = std::iter::from_fn(|| queue.wait())
        .map(|completion| completion.token)
        .collect();
    assert_eq!(order, [2, 3, 1]);
    let mut written = [1; 100];
    file.as_file().read_exact_at(&mut written, tail).unwrap();
    assert_eq!(written, [0; 100]);
}

#[test]
fn an_engine_never_holds_more_than_the_depth() {
    let (_file, mut queue) = driver([]);
    for token in 0..10 {
        queue.read(token, 0, 4096, AlignedBuffer::new(4096));
        assert!(queue.engine.held.len() <= 4);
    }
    assert_eq!(queue.in_flight(), 10);
    while queue.wait().is_some() {
        assert!(queue.engine.held.len() <= 4);
    }
}

#[test]
fn a_broken_engine_fails_everything_now_and_later() {
    let (_file, mut queue) = driver([Outcome::Moves(4096), Outcome::Breaks]);
    for token in 0..6 {
        queue.read(token, 0, 4096, AlignedBuffer::new(4096));
    }
    assert!(queue.wait().unwrap().result.is_ok());
    let failed: Vec<_> = std::iter::from_fn(|| queue.wait()).collect();
    assert_eq!(failed.len(), 5);
    assert!(failed.iter().all(|completion| completion.result.is_err()));
    queue.write(9, 0, 4096, AlignedBuffer::new(4096));
    let completion = queue.wait().unwrap();
    assert_eq!((completion.token, completion.result.is_err()), (9, true));
    assert!(queue.wait().is_none());
}

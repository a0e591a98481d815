//! What every engine must do on every kind of device; one run for each pair.
//!
//! Owns: the cases, over [`IoQueue`] alone. Must not: know an engine. A failed case panics, as tests do.

use std::collections::VecDeque;
use std::fmt;
use std::thread;

use super::buffer::AlignedBuffer;
use super::queue::{Completion, EngineChoice, IoQueue, QueueOptions};
use crate::ErrorKind;

/// Capacity of the buffers the cases use.
const BUFFER_LEN: usize = 64 * 1024;

/// Pieces start at multiples of this, which suits sectors of 512 and 4096 bytes.
const PIECE_UNIT: u64 = 4096;

/// A device of `size` bytes that queues can be opened on, again and again; its content is overwritten.
pub struct Subject<'a> {
    /// Opens a queue that can read and write.
    pub open: &'a dyn Fn(&QueueOptions) -> Box<dyn IoQueue>,
    /// Bytes of the device.
    pub size: u64,
    /// The engine under test.
    pub engine: EngineChoice,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {} bytes", self.engine, self.size)
    }
}

/// Runs every case. `seed` is printed and decides contents and order.
pub fn run(subject: &Subject<'_>, seed: u64) {
    println!("contract: {subject:?}, seed {seed}");
    let mut random = Random(seed | 1);
    let image = random_writes_come_back(subject, &mut random);
    more_requests_than_the_queue_is_deep(subject, &image);
    foreign_buffers_work(subject, &image);
    a_dropped_registered_buffer_swallows_no_read(subject, &image);
    another_thread_may_go_on(subject, &image);
    a_queue_may_be_dropped_full(subject, &image);
    a_read_past_the_end_fails(subject);
    a_request_that_cannot_be_fails(subject);
    the_tail_comes_after_direct_writes(subject, &mut random);
}

/// xorshift64*: the same sequence for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let value = self.next().to_le_bytes();
            piece.copy_from_slice(&value[..piece.len()]);
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, index(self.below(last as u64 + 1)));
        }
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a test device fits memory")
}

impl Subject<'_> {
    fn queue(&self, depth: usize) -> Box<dyn IoQueue> {
        let options = QueueOptions {
            depth,
            buffer_len: BUFFER_LEN,
            engine: self.engine,
        };
        let queue = (self.open)(&options);
        let expected = match self.engine {
            EngineChoice::Threads => "threads",
            EngineChoice::IoUring => "io_uring",
            EngineChoice::Auto => queue.engine(),
        };
        assert_eq!(queue.engine(), expected);
        queue
    }

    /// Cuts the device into pieces of random length, in random order.
    fn pieces(&self, random: &mut Random) -> Vec<(u64, usize)> {
        let mut pieces = Vec::new();
        let mut offset = 0;
        while offset < self.size {
            let len = (1 + random.below(BUFFER_LEN as u64 / PIECE_UNIT)) * PIECE_UNIT;
            let len = len.min(self.size - offset);
            pieces.push((offset, index(len)));
            offset += len;
        }
        random.shuffle(&mut pieces);
        pieces
    }
}

fn good(completion: Option<Completion>) -> Completion {
    let completion = completion.expect("something is in flight");
    if let Err(error) = &completion.result {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        unreachable!("{error}: {cause:?}");
    }
    completion
}

fn data<'a>(image: &'a [u8], completion: &Completion) -> &'a [u8] {
    &image[index(completion.offset)..index(completion.offset) + completion.len]
}

/// Reads or writes every piece once with as many in flight as there are buffers, and hands each completion to `finished`.
fn run_pieces(
    queue: &mut dyn IoQueue,
    pieces: &[(u64, usize)],
    mut start: impl FnMut(&mut dyn IoQueue, u64, (u64, usize), AlignedBuffer),
    mut finished: impl FnMut(&Completion),
) {
    let mut buffers = queue.take_buffers();
    println!("{queue:?}");
    let mut seen = vec![false; pieces.len()];
    let mut todo: VecDeque<_> = (0u64..).zip(pieces.iter().copied()).collect();
    loop {
        while let Some(buffer) = buffers.pop() {
            let Some((token, piece)) = todo.pop_front() else {
                break;
            };
            start(queue, token, piece, buffer);
        }
        if queue.in_flight() == 0 {
            break;
        }
        let completion = good(queue.wait());
        let token = index(completion.token);
        assert_eq!((completion.offset, completion.len), pieces[token]);
        assert!(
            !std::mem::replace(&mut seen[token], true),
            "two completions of one request"
        );
        finished(&completion);
        buffers.push(completion.buffer);
    }
    assert!(queue.wait().is_none());
    assert!(
        seen.into_iter().all(|seen| seen),
        "a request without completion"
    );
}

fn random_writes_come_back(subject: &Subject<'_>, random: &mut Random) -> Vec<u8> {
    let mut image = vec![0; index(subject.size)];
    random.fill(&mut image);
    let mut queue = subject.queue(32);
    let write =
        |queue: &mut dyn IoQueue, token, (offset, len): (u64, usize), mut buffer: AlignedBuffer| {
            buffer[..len].copy_from_slice(&image[index(offset)..index(offset) + len]);
            queue.write(token, offset, len, buffer);
        };
    run_pieces(&mut *queue, &subject.pieces(random), write, |_| {});
    let pieces = subject.pieces(random);
    check_image(&mut *queue, &image, &pieces);
    drop(queue);
    check_image(&mut *subject.queue(1), &image, &pieces);
    image
}

fn check_image(queue: &mut dyn IoQueue, image: &[u8], pieces: &[(u64, usize)]) {
    let read = |queue: &mut dyn IoQueue, token, (offset, len), mut buffer: AlignedBuffer| {
        buffer.fill(0xEE);
        queue.read(token, offset, len, buffer);
    };
    run_pieces(queue, pieces, read, |completion| {
        let offset = completion.offset;
        assert!(
            completion.buffer[..completion.len] == *data(image, completion),
            "at {offset}"
        );
    });
}

fn more_requests_than_the_queue_is_deep(subject: &Subject<'_>, image: &[u8]) {
    let mut queue = subject.queue(2);
    for token in 0..20 {
        queue.read(token, 0, index(PIECE_UNIT), AlignedBuffer::new(BUFFER_LEN));
    }
    assert_eq!(queue.in_flight(), 20);
    for left in (0..20).rev() {
        let completion = good(queue.wait());
        assert!(completion.buffer[..completion.len] == *data(image, &completion));
        assert_eq!(queue.in_flight(), left);
    }
    assert!(queue.wait().is_none());
}

/// Buffers of nobody, of another queue, and of a second call all work.
fn foreign_buffers_work(subject: &Subject<'_>, image: &[u8]) {
    let mut other = subject.queue(4);
    let mut queue = subject.queue(4);
    let mut buffers = other.take_buffers();
    buffers.extend(queue.take_buffers());
    buffers.extend(queue.take_buffers());
    drop(other);
    buffers.push(AlignedBuffer::new(BUFFER_LEN));
    for (token, buffer) in (0..).zip(buffers) {
        queue.read(token, PIECE_UNIT, BUFFER_LEN - 4096, buffer);
    }
    while queue.in_flight() > 0 {
        let completion = good(queue.wait());
        assert!(completion.buffer[..completion.len] == *data(image, &completion));
    }
}

/// The memory of a dropped buffer may come back at the same address, while the kernel still has the old pages pinned.
fn a_dropped_registered_buffer_swallows_no_read(subject: &Subject<'_>, image: &[u8]) {
    let mut queue = subject.queue(4);
    drop(queue.take_buffers());
    for token in 0..8 {
        queue.read(token, 0, BUFFER_LEN, AlignedBuffer::new(BUFFER_LEN));
        let completion = good(queue.wait());
        assert!(completion.buffer[..completion.len] == *data(image, &completion));
    }
}

fn another_thread_may_go_on(subject: &Subject<'_>, image: &[u8]) {
    let mut queue = subject.queue(8);
    for (token, buffer) in (0..).zip(queue.take_buffers()) {
        queue.read(token, 0, BUFFER_LEN, buffer);
    }
    let completion = good(queue.wait());
    assert!(completion.buffer[..completion.len] == *data(image, &completion));
    let (mut queue, mut last) = thread::scope(|scope| {
        let driver = scope.spawn(move || {
            let mut completion = good(queue.wait());
            completion.buffer.fill(0);
            queue.read(100, 0, BUFFER_LEN, completion.buffer);
            // Any of those in flight may be next, the one of this thread too.
            let next = good(queue.wait());
            (queue, next.token)
        });
        driver.join().expect("the second thread drives the queue")
    });
    // The thread that submitted the last request is gone.
    while queue.in_flight() > 0 {
        let completion = good(queue.wait());
        assert!(completion.buffer[..completion.len] == *data(image, &completion));
        last = last.max(completion.token);
    }
    assert_eq!(last, 100);
}

fn a_queue_may_be_dropped_full(subject: &Subject<'_>, image: &[u8]) {
    for submitted in [false, true] {
        let mut queue = subject.queue(16);
        let mut buffers = queue.take_buffers();
        buffers.extend((0..8).map(|_| AlignedBuffer::new(BUFFER_LEN)));
        for (token, buffer) in (0..).zip(buffers) {
            queue.read(token, 0, BUFFER_LEN, buffer);
        }
        if submitted {
            let completion = good(queue.wait());
            assert!(completion.buffer[..completion.len] == *data(image, &completion));
        }
        // Dropped by a thread that never used it.
        thread::scope(|scope| {
            scope.spawn(move || drop(queue));
        });
    }
}

fn a_read_past_the_end_fails(subject: &Subject<'_>) {
    let mut queue = subject.queue(4);
    let beyond = subject.size.next_multiple_of(PIECE_UNIT);
    let last = subject.size.saturating_sub(PIECE_UNIT) / PIECE_UNIT * PIECE_UNIT;
    for (offset, len) in [
        (beyond, 4096),
        (beyond + (1 << 30), 4096),
        (last, 2 * BUFFER_LEN),
    ] {
        queue.read(offset, offset, len, AlignedBuffer::new(2 * BUFFER_LEN));
        let completion = queue.wait().expect("in flight");
        let error = completion.result.expect_err("there is nothing to read");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(
            error.to_string().contains(&format!("offset {offset}")),
            "{error}"
        );
        assert!(error.object_name().is_some());
    }
    // The queue goes on after an error.
    queue.read(7, 0, index(PIECE_UNIT), AlignedBuffer::new(1));
    assert_eq!(good(queue.wait()).token, 7);
}

fn a_request_that_cannot_be_fails(subject: &Subject<'_>) {
    let mut queue = subject.queue(4);
    let small = || AlignedBuffer::new(4096);
    queue.read(1, 0, 4097, small());
    queue.read(2, u64::MAX - 4095, 4096, small());
    queue.write(3, 1 << 63, 4096, small());
    queue.read(4, 0, 0, small());
    let mut results: Vec<_> = std::iter::from_fn(|| queue.wait())
        .map(|completion| (completion.token, completion.result.is_ok()))
        .collect();
    results.sort_unstable();
    assert_eq!(results, [(1, false), (2, false), (3, false), (4, true)]);
}

/// The end of the device is handed in first, the bytes around it last; all must be there in the end.
fn the_tail_comes_after_direct_writes(subject: &Subject<'_>, random: &mut Random) {
    let start = subject.size.saturating_sub(40_000) / PIECE_UNIT * PIECE_UNIT;
    let mut image = vec![0; index(subject.size - start)];
    random.fill(&mut image);
    let mut queue = subject.queue(16);
    let mut offsets: Vec<u64> = (start..subject.size).step_by(4096).collect();
    offsets.reverse();
    for offset in offsets {
        let len = index((subject.size - offset).min(4096));
        let mut buffer = AlignedBuffer::new(len);
        buffer[..len].copy_from_slice(&image[index(offset - start)..][..len]);
        queue.write(offset, offset, len, buffer);
    }
    while queue.in_flight() > 0 {
        good(queue.wait());
    }
    queue.read(0, start, image.len(), AlignedBuffer::new(image.len()));
    let completion = good(queue.wait());
    assert!(
        completion.buffer[..image.len()] == image[..],
        "the end of the device"
    );
}

#[cfg(test)]
mod tests;

//! Any sequence of events, made of bytes, for the fuzzer and for property tests.
//!
//! Owns: what must hold whatever a server sends. A broken promise panics, as tests do.

use std::time::Duration;

use csi_proto::Code;

use super::{Answer, Doubt, Next, Patience};
use crate::csi::service::{BlockType, CallError, MetadataMessage};
use crate::extent::Extent;

/// Plays the events that `bytes` stand for.
pub(in crate::csi) fn play(bytes: &[u8]) {
    let mut events = Events(bytes);
    let device = u64::from(events.byte()) << events.byte().min(40);
    let mut answer = Answer::new(
        device,
        Patience {
            attempts: 3,
            back_off: Duration::from_secs(1),
        },
    );
    let mut seen = Seen::new(device);
    if answer.begin().is_err() {
        return;
    }
    while !events.0.is_empty() {
        match event(&mut events, &mut answer, &mut seen) {
            Ok(None) => {}
            Ok(Some(Next::Call { .. })) => match answer.begin() {
                Ok(offset) => assert!(seen.start(offset), "a call from {offset} on"),
                Err(_) => return,
            },
            Ok(Some(Next::Complete)) => {
                assert!(seen.may_be_complete(), "complete after {seen:?}");
                let mut told = Vec::new();
                answer.finish(&mut told);
                seen.take(&told);
                return;
            }
            Err(Doubt(reason)) => {
                assert!(!reason.is_empty());
                return;
            }
        }
    }
}

fn event(
    events: &mut Events<'_>,
    answer: &mut Answer,
    seen: &mut Seen,
) -> Result<Option<Next>, Doubt> {
    match events.byte() % 4 {
        0 => {
            seen.clean_ends += 1;
            Ok(Some(answer.ended()))
        }
        1 => {
            let code = Code::from_i32(i32::from(events.byte() % 17));
            seen.has_error_at_end = code == Code::OutOfRange;
            answer.failed(&CallError::new(code, "scripted")).map(Some)
        }
        _ => {
            let message = events.message();
            let mut told = Vec::new();
            let is_new = answer.message(&message, &mut told)?;
            if is_new {
                seen.clean_ends = 0;
            }
            seen.has_capacity |= message.capacity > 0;
            seen.take(&told);
            Ok(None)
        }
    }
}

/// What a consumer has seen.
#[derive(Debug)]
struct Seen {
    device: u64,
    end: u64,
    clean_ends: u32,
    offset: i64,
    has_error_at_end: bool,
    has_capacity: bool,
}

impl Seen {
    fn new(device: u64) -> Self {
        Self {
            device,
            end: 0,
            clean_ends: 0,
            offset: 0,
            has_error_at_end: false,
            has_capacity: false,
        }
    }

    fn take(&mut self, told: &[Extent]) {
        for extent in told {
            let end = extent.end().expect("an end that a number holds");
            assert!(extent.len.0 > 0 && end <= self.device, "{extent:?}");
            assert!(
                extent.offset.0 > self.end || self.end == 0,
                "{extent:?} touches or precedes {}",
                self.end
            );
            self.end = end;
        }
    }

    /// Calls never go back.
    fn start(&mut self, offset: i64) -> bool {
        let before = std::mem::replace(&mut self.offset, offset);
        offset >= before
    }

    /// Not before a stream ended, or an error said that it is behind the end.
    fn may_be_complete(&self) -> bool {
        self.clean_ends > 0 || self.has_error_at_end
    }
}

/// Numbers from bytes: small ones often, any now and then.
struct Events<'a>(&'a [u8]);

impl Events<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> i64 {
        let kind = self.byte();
        if kind % 8 == 7 {
            let mut bytes = [0; 8];
            bytes.fill_with(|| self.byte());
            return i64::from_le_bytes(bytes);
        }
        i64::from(self.byte()) << (kind % 8 * 2)
    }

    fn message(&mut self) -> MetadataMessage {
        let block_type = BlockType::from(i32::from(self.byte() % 4));
        let capacity = self.number();
        let ranges = 0..self.byte() % 8;
        MetadataMessage {
            block_type,
            capacity,
            ranges: ranges.map(|_| (self.number(), self.number())).collect(),
        }
    }
}

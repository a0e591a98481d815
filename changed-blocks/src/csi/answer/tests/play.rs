//! A client and a server that play with each other, and servers that spoil their answers.

use proptest::prelude::*;

use super::*;
use crate::extent_set::ExtentSet;

/// A volume, and how its server answers.
#[derive(Clone, Debug)]
struct Server {
    /// Of each block, whether it changed.
    blocks: Vec<bool>,
    /// Bytes that the volume lacks of its last block.
    missing: u64,
    /// Bytes that the device has more than the volume.
    excess: u64,
    /// One for each call; the last for all others.
    calls: Vec<Behaviour>,
}

#[derive(Clone, Copy, Debug)]
struct Behaviour {
    block_type: BlockType,
    /// Blocks of a range of variable length.
    longest: usize,
    per_message: usize,
    /// Messages after which the stream ends too early, at least one; `None` for never.
    cut_after: Option<usize>,
    /// How it ends too early: without an error, or with this one.
    code: Option<Code>,
}

impl Server {
    fn capacity(&self) -> u64 {
        let blocks = u64::try_from(self.blocks.len()).unwrap();
        blocks * BLOCK - self.missing
    }

    /// Ranges of the blocks that end behind `offset`. The last may pass the end of the volume.
    fn ranges(&self, offset: u64, behaviour: &Behaviour) -> Vec<(i64, i64)> {
        let longest = match behaviour.block_type {
            BlockType::Variable => behaviour.longest,
            _ => 1,
        };
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        let block = i64::try_from(BLOCK).unwrap();
        let limit = block * i64::try_from(longest).unwrap();
        for (number, _) in self.blocks.iter().enumerate().filter(|(_, is)| **is) {
            let start = block * i64::try_from(number).unwrap();
            if start + block <= i64::try_from(offset).unwrap() {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == start && last.1 < limit => last.1 += block,
                _ => ranges.push((start, block)),
            }
        }
        ranges
    }

    fn changed(&self, device: u64) -> ExtentSet {
        let blocks = (0_u64..).zip(&self.blocks).filter(|(_, is)| **is);
        let mut extents: Vec<_> = blocks
            .map(|(number, _)| Extent::data(number * BLOCK, BLOCK))
            .collect();
        // A server that sends no message does not tell how far it knows the device.
        if !extents.is_empty() {
            extents.push(Extent::data(self.capacity(), self.excess));
        }
        let all: ExtentSet = extents.into_iter().filter(|e| e.len.0 > 0).collect();
        all.clip(Extent::data(0, device))
    }

    /// Plays the client against the server.
    fn play(&self) -> Result<Vec<Extent>, Doubt> {
        let device = self.capacity() + self.excess;
        let capacity = i64::try_from(self.capacity()).unwrap();
        let mut answer = Answer::new(device, PATIENCE);
        let mut told = Vec::new();
        for call in 0.. {
            let behaviour = self.calls[call.min(self.calls.len() - 1)];
            let offset = u64::try_from(answer.begin()?).unwrap();
            let ranges = self.ranges(offset, &behaviour);
            let mut cut = false;
            for (number, ranges) in ranges.chunks(behaviour.per_message).enumerate() {
                cut = behaviour.cut_after.is_some_and(|after| number >= after);
                if cut {
                    break;
                }
                let message = MetadataMessage {
                    block_type: behaviour.block_type,
                    capacity,
                    ranges: ranges.to_vec(),
                };
                answer.message(&message, &mut told)?;
            }
            let next = match behaviour.code {
                Some(code) if cut => answer.failed(&error(code))?,
                _ => answer.ended(),
            };
            if next == Next::Complete {
                break;
            }
        }
        answer.finish(&mut told);
        Ok(told)
    }
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let types = prop_oneof![Just(BlockType::Fixed), Just(BlockType::Variable)];
    let codes = prop::sample::select(vec![
        None,
        Some(Code::Cancelled),
        Some(Code::DeadlineExceeded),
        Some(Code::Unavailable),
        Some(Code::Unauthenticated),
    ]);
    (
        types,
        1..9_usize,
        1..9_usize,
        prop::option::of(1..4_usize),
        codes,
    )
        .prop_map(
            |(block_type, longest, per_message, cut_after, code)| Behaviour {
                block_type,
                longest,
                per_message,
                cut_after,
                code,
            },
        )
}

fn server() -> impl Strategy<Value = Server> {
    (
        prop::collection::vec(any::<bool>(), 1..200),
        0..BLOCK,
        prop_oneof![Just(0), 1..3 * BLOCK],
        prop::collection::vec(behaviour(), 1..12),
    )
        .prop_map(|(blocks, missing, excess, calls)| Server {
            blocks,
            missing,
            excess,
            calls,
        })
}

/// A way to spoil an answer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Swap,
    Repeat,
    Empty,
    NegativeOffset,
    NegativeLength,
    OtherCapacity,
    NoCapacity,
    OtherType,
}

const FAULTS: [Fault; 8] = [
    Fault::Swap,
    Fault::Repeat,
    Fault::Empty,
    Fault::NegativeOffset,
    Fault::NegativeLength,
    Fault::OtherCapacity,
    Fault::NoCapacity,
    Fault::OtherType,
];

fn spoil(messages: &mut [MetadataMessage], at: usize, fault: Fault) {
    let capacity = messages[at].capacity;
    let message = &mut messages[at];
    match fault {
        Fault::Swap => message.ranges.swap(0, 1),
        Fault::Repeat => message.ranges[1] = message.ranges[0],
        Fault::Empty => message.ranges[0].1 = 0,
        Fault::NegativeOffset => message.ranges[0].0 -= 1 << 40,
        Fault::NegativeLength => message.ranges[1].1 *= -1,
        Fault::OtherCapacity => message.capacity = capacity + 1,
        Fault::NoCapacity => message.capacity = 0,
        Fault::OtherType => {
            message.block_type = match message.block_type {
                BlockType::Fixed => BlockType::Variable,
                _ => BlockType::Fixed,
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_breaks_off_the_answer_is_the_one_of_a_single_call(server in server()) {
        let told = server.play().unwrap();
        let device = server.capacity() + server.excess;
        let set: ExtentSet = told.iter().copied().collect();
        prop_assert_eq!(&set, &server.changed(device));
        // Joined: the same extents however they were cut.
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), told);
    }

    #[test]
    fn no_fault_in_the_middle_goes_unseen(
        server in server(),
        at in any::<prop::sample::Index>(),
        fault in prop::sample::select(FAULTS.to_vec()),
    ) {
        let mut server = server;
        // At least two messages.
        server.blocks.extend([false, true, false, true, false, true, false, true]);
        let behaviour = server.calls[0];
        let ranges = server.ranges(0, &behaviour);
        let mut messages: Vec<_> = ranges
            .chunks(2)
            .filter(|pair| pair.len() == 2)
            .map(|pair| MetadataMessage {
                block_type: behaviour.block_type,
                capacity: i64::try_from(server.capacity()).unwrap(),
                ranges: pair.to_vec(),
            })
            .collect();
        // What the first message says is not contradicted by anything.
        let at = 1 + at.index(messages.len() - 1);
        let device = server.capacity();
        prop_assert!(judge(device, &messages).is_ok());
        spoil(&mut messages, at, fault);
        prop_assert!(judge(device, &messages).is_err());
    }

    #[test]
    fn nothing_a_server_sends_breaks_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        hostile::play(&bytes);
    }
}

use proptest::prelude::*;

use super::*;
use crate::extent_set::ExtentSet;

const BLOCK: u64 = 4096;
const PATIENCE: Patience = Patience {
    attempts: 3,
    back_off: Duration::from_secs(1),
};

fn answer(device: u64) -> Answer {
    let mut answer = Answer::new(device, PATIENCE);
    assert_eq!(answer.begin(), Ok(0));
    answer
}

fn variable(capacity: i64, ranges: &[(i64, i64)]) -> MetadataMessage {
    MetadataMessage {
        block_type: BlockType::Variable,
        capacity,
        ranges: ranges.to_vec(),
    }
}

fn fixed(capacity: i64, ranges: &[(i64, i64)]) -> MetadataMessage {
    MetadataMessage {
        block_type: BlockType::Fixed,
        ..variable(capacity, ranges)
    }
}

/// What a first call says to `messages`, up to the first doubt.
fn judge(device: u64, messages: &[MetadataMessage]) -> Result<Vec<Extent>, Doubt> {
    let mut answer = answer(device);
    let mut told = Vec::new();
    for message in messages {
        answer.message(message, &mut told)?;
    }
    answer.finish(&mut told);
    Ok(told)
}

fn refusal(messages: &[MetadataMessage]) -> String {
    judge(1 << 20, messages).unwrap_err().0
}

fn error(code: Code) -> CallError {
    CallError::new(code, "scripted")
}

const AT_ONCE: Next = Next::Call {
    wait: Duration::ZERO,
    renew: false,
};

#[test]
fn ranges_that_touch_are_told_as_one_across_messages_and_calls() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let size = 1 << 20;
    answer
        .message(&fixed(size, &[(0, 4096), (4096, 4096)]), &mut told)
        .unwrap();
    answer
        .message(&fixed(size, &[(8192, 4096)]), &mut told)
        .unwrap();
    assert_eq!(answer.ended(), AT_ONCE);
    assert_eq!(answer.begin(), Ok(12288));
    // The other type: it is constant for one stream only.
    answer
        .message(&variable(size, &[(12288, 1), (65536, 512)]), &mut told)
        .unwrap();
    assert_eq!(answer.ended(), AT_ONCE);
    assert_eq!(answer.begin(), Ok(66048));
    assert_eq!(answer.ended(), Next::Complete);
    assert_eq!(answer.finish(&mut told), None);
    assert_eq!(told, [Extent::data(0, 12289), Extent::data(65536, 512)]);
}

#[test]
fn the_first_range_of_a_call_may_begin_before_it() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let size = 1 << 20;
    answer
        .message(&variable(size, &[(0, 5000)]), &mut told)
        .unwrap();
    answer.failed(&error(Code::Unavailable)).unwrap();
    assert_eq!(answer.begin(), Ok(5000));
    answer
        .message(&variable(size, &[(4096, 4096), (16384, 1)]), &mut told)
        .unwrap();
    answer.finish(&mut told);
    assert_eq!(told, [Extent::data(0, 8192), Extent::data(16384, 1)]);
}

#[test]
fn a_range_that_was_not_asked_for_is_a_doubt() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let message = variable(1 << 20, &[(0, 4096)]);
    answer.message(&message, &mut told).unwrap();
    answer.failed(&error(Code::Unavailable)).unwrap();
    answer.begin().unwrap();
    let Doubt(reason) = answer.message(&message, &mut told).unwrap_err();
    assert_eq!(
        reason,
        "a range up to 4096 in answer to a call from 4096 on"
    );
}

#[test]
fn every_unsound_message_is_a_doubt_with_its_reason() {
    let size = 1 << 20;
    let cases: [(&[MetadataMessage], &str); 13] = [
        (
            &[variable(size, &[(4096, 4096), (0, 4096)])],
            "a range at 0 after one that ends at 8192",
        ),
        (
            &[variable(size, &[(0, 4096), (4095, 4096)])],
            "a range at 4095 after one that ends at 4096",
        ),
        (
            &[variable(size, &[(0, 4096)]), variable(size, &[(0, 8192)])],
            "a range at 0 after one that ends at 4096",
        ),
        (&[variable(size, &[(0, 0)])], "an empty range at 0"),
        (
            &[variable(size, &[(-4096, 8192)])],
            "a range at -4096 of 8192 bytes",
        ),
        (&[variable(size, &[(0, -1)])], "a range at 0 of -1 bytes"),
        (&[variable(-1, &[])], "a volume of -1 bytes"),
        (&[variable(0, &[(0, 1)])], "a volume of 0 bytes"),
        (
            &[variable(size, &[(0, 1)]), variable(size + 1, &[])],
            "a volume of 1048576 bytes at first, of 1048577 now",
        ),
        (
            &[variable(size, &[(0, 1)]), fixed(size, &[(1, 1)])],
            "ranges of type Variable at first, Fixed now",
        ),
        (
            &[variable(size, &[(0, 1), (size, 1)])],
            "a range at 1048576 of a volume of 1048576 bytes",
        ),
        (
            &[fixed(size, &[(0, 4096), (4096, 8192)])],
            "a block of 8192 bytes up to 12288 among blocks of 4096",
        ),
        (
            &[MetadataMessage {
                block_type: BlockType::Other(7),
                ..variable(size, &[(0, 1)])
            }],
            "ranges of the unknown type 7",
        ),
    ];
    for (messages, reason) in cases {
        assert_eq!(refusal(messages), reason);
    }
}

#[test]
fn an_empty_message_says_nothing() {
    let empty = MetadataMessage {
        block_type: BlockType::Other(0),
        capacity: 0,
        ranges: Vec::new(),
    };
    let told = judge(100, &[empty.clone(), variable(100, &[(0, 1)])]).unwrap();
    assert_eq!(told, [Extent::data(0, 1)]);
    assert_eq!(judge(100, &[empty]).unwrap(), []);
}

#[test]
fn the_last_block_may_pass_the_end_or_be_cut_by_it() {
    let over = judge(5000, &[fixed(5000, &[(0, 4096), (4096, 4096)])]).unwrap();
    assert_eq!(over, [Extent::data(0, 5000)]);
    let cut = judge(5000, &[fixed(5000, &[(0, 4096), (4096, 904)])]).unwrap();
    assert_eq!(cut, over);
    let on = judge(
        5000,
        &[fixed(9000, &[(0, 4096), (4096, 904), (5000, 4000)])],
    );
    assert!(on.is_err(), "a block was cut elsewhere");
    let behind = judge(5000, &[variable(9000, &[(0, 1), (5000, 10), (6000, 10)])]).unwrap();
    assert_eq!(behind, [Extent::data(0, 1)]);
    let huge = judge(5000, &[variable(5000, &[(1, i64::MAX)])]).unwrap();
    assert_eq!(huge, [Extent::data(1, 4999)]);
}

#[test]
fn what_the_service_does_not_know_of_the_device_is_told() {
    let mut answer = answer(1000);
    let mut told = Vec::new();
    answer
        .message(&variable(600, &[(10, 5), (590, 20)]), &mut told)
        .unwrap();
    assert_eq!(answer.finish(&mut told), Some(600));
    assert_eq!(told, [Extent::data(10, 5), Extent::data(590, 410)]);
}

#[test]
fn an_answer_is_complete_after_two_ends_without_news() {
    let mut answer = answer(100);
    assert_eq!(answer.ended(), AT_ONCE, "one end of an empty answer");
    answer.begin().unwrap();
    assert_eq!(answer.ended(), Next::Complete);
}

#[test]
fn an_answer_is_complete_where_the_volume_or_the_device_ends() {
    for (capacity, range) in [
        (100, (40, 60)),
        (1000, (40, 60)),
        (90, (40, 50)),
        (90, (40, 51)),
    ] {
        let mut answer = answer(100);
        let message = variable(capacity, &[range]);
        answer.message(&message, &mut Vec::new()).unwrap();
        assert_eq!(answer.ended(), Next::Complete, "{capacity} {range:?}");
    }
}

#[test]
fn the_error_behind_the_end_is_an_end_only_where_one_can_be() {
    let out = error(Code::OutOfRange);
    let part = variable(100, &[(0, 50)]);
    let whole = variable(100, &[(0, 104)]);
    // At once.
    assert!(answer(200).failed(&out).is_err());
    // After a clean end: it confirms.
    let mut ended = answer(200);
    ended.message(&part, &mut Vec::new()).unwrap();
    ended.ended();
    ended.begin().unwrap();
    assert_eq!(ended.failed(&out), Ok(Next::Complete));
    // In the stream itself.
    let mut amid = answer(200);
    amid.message(&whole, &mut Vec::new()).unwrap();
    assert!(amid.failed(&out).is_err());
    // In place of the rest.
    for (message, is_end) in [(&part, false), (&whole, true)] {
        let mut broken = answer(200);
        broken.message(message, &mut Vec::new()).unwrap();
        broken.failed(&error(Code::Cancelled)).unwrap();
        broken.begin().unwrap();
        assert_eq!(broken.failed(&out).is_ok(), is_end);
    }
}

#[test]
fn what_passes_is_tried_again_and_longer_each_time() {
    let passing = [
        Code::Unavailable,
        Code::Internal,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::Cancelled,
    ];
    for code in passing {
        let renew = matches!(code, Code::DeadlineExceeded | Code::Cancelled);
        let mut answer = answer(100);
        let waits = |seconds| {
            let wait = Duration::from_secs(seconds);
            Ok(Next::Call { wait, renew })
        };
        assert_eq!(answer.failed(&error(code)), waits(1));
        assert_eq!(answer.failed(&error(code)), waits(2));
        // Something new: from the start.
        let message = variable(100, &[(0, 1)]);
        answer.begin().unwrap();
        answer.message(&message, &mut Vec::new()).unwrap();
        assert_eq!(answer.failed(&error(code)), waits(1));
        assert_eq!(answer.failed(&error(code)), waits(2));
        let Doubt(reason) = answer.failed(&error(code)).unwrap_err();
        let expected = format!("{code:?}: scripted: 5 calls failed, 3 of them in a row");
        assert_eq!(reason, expected);
    }
}

#[test]
fn the_wait_has_a_limit() {
    let patience = Patience {
        attempts: 100,
        back_off: Duration::from_secs(1),
    };
    let mut answer = Answer::new(100, patience);
    let waits: Vec<_> = (0..70)
        .map(|_| match answer.failed(&error(Code::Aborted)).unwrap() {
            Next::Call { wait, .. } => wait.as_secs(),
            Next::Complete => unreachable!("an end of nothing"),
        })
        .collect();
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 30]);
    assert!(waits[6..].iter().all(|wait| *wait == 30));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let renew = Ok(Next::Call {
        wait: Duration::ZERO,
        renew: true,
    });
    let mut answer = answer(100);
    assert_eq!(answer.failed(&error(Code::Unauthenticated)), renew);
    answer.begin().unwrap();
    let message = variable(100, &[(0, 1)]);
    answer.message(&message, &mut Vec::new()).unwrap();
    // It was good for a while.
    assert_eq!(answer.failed(&error(Code::Unauthenticated)), renew);
    answer.begin().unwrap();
    let Doubt(reason) = answer.failed(&error(Code::Unauthenticated)).unwrap_err();
    assert!(
        reason.ends_with("refused again with new credentials"),
        "{reason}"
    );
}

#[test]
fn what_does_not_pass_stops_at_once() {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::AlreadyExists,
        Code::DataLoss,
    ] {
        let Doubt(reason) = answer(100).failed(&error(code)).unwrap_err();
        let start = format!("{code:?}: scripted: ");
        assert!(
            reason.len() > start.len() && reason.starts_with(&start),
            "{reason}"
        );
    }
}

#[test]
fn calls_without_end_end() {
    let mut clean = answer(1 << 40);
    let mut failing = answer(1 << 40);
    let mut at = 0;
    let step = |answer: &mut Answer, at: i64| {
        let message = variable(1 << 40, &[(at, 1)]);
        answer.message(&message, &mut Vec::new()).unwrap();
    };
    let Doubt(reason) = loop {
        step(&mut clean, at);
        assert_eq!(clean.ended(), AT_ONCE);
        at += 2;
        if let Err(doubt) = clean.begin() {
            break doubt;
        }
    };
    assert_eq!(reason, "no end after 100000 calls");
    at = 0;
    let Doubt(reason) = loop {
        step(&mut failing, at);
        at += 2;
        if let Err(doubt) = failing.failed(&error(Code::Cancelled)) {
            break doubt;
        }
        failing.begin().unwrap();
    };
    assert!(
        reason.ends_with("1000 calls failed, 1 of them in a row"),
        "{reason}"
    );
}

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

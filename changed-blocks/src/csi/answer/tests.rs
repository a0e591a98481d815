//! What the parts of these tests share: messages, and who judges them.

mod ends;
mod messages;
mod play;

use csi_proto::Code;

use super::super::service::CallError;
use super::*;

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

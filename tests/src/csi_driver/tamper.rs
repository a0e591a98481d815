//! Spoils streams of metadata as ordered.
//!
//! Owns: what each fault makes of a message. Must not: know where ranges come from.

use csi_proto::csi::{BlockMetadata, BlockMetadataType, GetMetadataAllocatedResponse as Message};

use super::faults::Wrong;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// It is sent as it is.
    Sent(Message),
    /// It is sent, and the stream ends with OK.
    Last(Message),
    /// It is not sent, and the stream ends with OK.
    Cut,
    /// It is not sent, and the stream ends with UNAVAILABLE.
    Broken,
    /// It is sent when the order is withdrawn.
    Held(Message),
}

/// Spoils one message; one without ranges stays as it is where the fault is one of ranges.
pub(super) fn spoil(wrong: Wrong, mut message: Message) -> Fate {
    let capacity = message.volume_capacity_bytes;
    match wrong {
        Wrong::Truncated => return Fate::Cut,
        Wrong::Broken => return Fate::Broken,
        Wrong::Silent => return Fate::Held(message),
        Wrong::OtherCapacity => message.volume_capacity_bytes += 4096,
        Wrong::NegativeCapacity => message.volume_capacity_bytes = -1,
        Wrong::OtherType => {
            let fixed = message.block_metadata_type == i32::from(BlockMetadataType::FixedLength);
            let other = if fixed {
                BlockMetadataType::VariableLength
            } else {
                BlockMetadataType::FixedLength
            };
            message.block_metadata_type = other.into();
        }
        Wrong::PastEnd => {
            message.block_metadata.push(BlockMetadata {
                byte_offset: capacity + 8192,
                size_bytes: 4096,
            });
            return Fate::Last(message);
        }
        Wrong::AcrossEnd => {
            if let Some(last) = message.block_metadata.last_mut() {
                last.size_bytes = capacity - last.byte_offset + 4096;
            }
            return Fate::Last(message);
        }
        Wrong::Disorder => message.block_metadata.reverse(),
        Wrong::Overlap => {
            if let Some(first) = message.block_metadata.first().cloned() {
                message.block_metadata.insert(0, first);
            }
        }
        Wrong::Missing if !message.block_metadata.is_empty() => {
            message.block_metadata.remove(0);
        }
        Wrong::Missing
        | Wrong::NegativeOffset
        | Wrong::NegativeSize
        | Wrong::ZeroSize
        | Wrong::OtherSize => {
            if let Some(first) = message.block_metadata.first_mut() {
                spoil_range(wrong, first);
            }
        }
    }
    Fate::Sent(message)
}

fn spoil_range(wrong: Wrong, range: &mut BlockMetadata) {
    match wrong {
        Wrong::NegativeOffset => range.byte_offset = -4096,
        Wrong::NegativeSize => range.size_bytes = -range.size_bytes,
        Wrong::ZeroSize => range.size_bytes = 0,
        Wrong::OtherSize => range.size_bytes /= 2,
        _ => {}
    }
}

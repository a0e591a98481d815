//! Block devices and image files: direct, deep-queued reads and writes.
//!
//! ```text
//!   Source ──┐                      ┌─ io_uring
//!            ├──► DeviceFile ──► IoQueue            buffers: caller ⇄ queue ⇄ kernel
//!   Target ──┘                      └─ threads
//! ```
//!
//! Owns: file descriptors of sources and targets, aligned buffers, io_uring, and all unsafe code of the crate. Must not:
//! know repositories. Engines own a buffer from submission until its completion.

pub mod buffer;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod file;
mod first_chunk;
#[cfg(any(test, feature = "testing"))]
pub mod loop_device;
mod occupancy;
pub mod queue;
pub mod rbd;
pub mod received;
pub mod source;
mod system;
pub mod target;

pub use buffer::{ALIGNMENT, AlignedBuffer, is_zero};
pub use queue::{Completion, EngineChoice, IoQueue, QueueOptions};
pub use received::ReceivedDevice;
pub use source::{Source, SourceDevice, SourceIdentity, SourceOptions};
pub use target::{Target, TargetOptions};

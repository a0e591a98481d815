//! Block devices and image files: direct, deep-queued reads and writes.
//!
//! Owns: file descriptors of sources and targets, aligned buffers, io_uring, and all unsafe code of the crate. Must not:
//! know repositories. Engines own a buffer from submission until its completion.

pub mod buffer;

pub use buffer::{ALIGNMENT, AlignedBuffer, is_zero};

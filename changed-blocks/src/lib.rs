//! Which byte ranges of a volume hold data, and which changed since a base.
//!
//! ```text
//!   source (hole map, scan, …) ──► stream of Extent{offset, length, data|zero} ──► Complete
//!                                     └─ no Complete: the whole answer is thrown away
//! ```
//!
//! Owns: the extent algebra, the [`ChangedBlocks`] trait, every source, and the checks that a source's answer is sound.
//! Must not: know repositories or Kubernetes objects, or decide what is stored.

pub mod extent;
pub mod source;

pub use extent::{ByteLen, ByteOffset, Extent, ExtentKind};
pub use source::{ChangedBlocks, ExtentSink, SourceError, SourceErrorKind, Summary};

//! Which byte ranges of a volume hold data, and which changed since a base.
//!
//! ```text
//!   source (hole map, scan, …) ──► stream of Extent{offset, length, data|zero} ──► Complete
//!                                     └─ no Complete: the whole answer is thrown away
//! ```
//!
//! Owns: the extent algebra, the [`ChangedBlocks`] trait, every source, and the checks that a source's answer is sound.
//! Must not: know repositories or Kubernetes objects, or decide what is stored.

pub mod checked;
pub mod chunk_set;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(feature = "csi")]
pub mod csi;
pub mod extent;
pub mod extent_set;
pub mod extent_stream;
pub mod extents_file;
pub mod fiemap;
pub mod heat_map;
pub mod hole_map;
pub mod identity;
pub mod rbd;
pub mod samples;
pub mod scan;
pub mod source;
pub mod split_mix;
pub mod thin;

pub use checked::Checked;
pub use chunk_set::ChunkSet;
pub use extent::{ByteLen, ByteOffset, Extent, ExtentKind};
pub use extent_set::ExtentSet;
pub use extent_stream::ExtentStream;
pub use extents_file::ExtentsFile;
pub use fiemap::Fiemap;
pub use heat_map::HeatMap;
pub use hole_map::HoleMap;
pub use identity::Identity;
pub use scan::Scan;
pub use source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, SourceError, SourceErrorKind, Summary,
};
pub use thin::Thin;

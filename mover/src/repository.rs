//! The repository: what is stored, where, and how a point comes to be.
//!
//! ```text
//!   session  (open → data → slot = commit; adoption, reader leases, points)
//!      │
//!     map  (fixed-radix tree, liveness)      format  (containers, keys, config, manifest)
//!      └──────────────┬──────────────────────────┘
//!                   store  (directory, S3)
//! ```
//!
//! Owns: the on-store format (public specification: `mover/FORMAT.md`) and the protocol on it. Must not: read or write
//! block devices other than through `device` buffers, or know the command line.

pub mod access;
pub mod format;
pub mod gc;
pub mod ids;
pub mod map;
pub(crate) mod parallel;
pub mod quarantine;
pub mod recover;
pub mod retention;
pub mod segments;
pub mod session;
pub mod store;

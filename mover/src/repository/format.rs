//! The on-store format, version 1: one container for everything that has a body. Specification: `mover/FORMAT.md`.
//!
//! ```text
//!   clear header (64) │ sealed directory │ seal (32) │ zeros │ body 0 │ body 1 │ …
//!   magic, class, salt  columns: key,      BLAKE3      to a    encrypted one by one, bound to
//!                       length, digest,    of the two  page    repository, segment, ordinal, codec
//!                       tag of each body
//! ```
//!
//! Owns: bytes of objects, keys, codecs. Must not: do I/O, or know which objects exist and when they are written.
//! Every parser takes hostile bytes: it checks before it allocates and fails with `Corrupt` or `NewerFormat`.

mod binding;
pub mod builder;
pub mod class;
mod clear;
pub mod codec;
pub mod config;
pub mod crypto;
pub mod decoder;
pub mod directory;
pub mod fault;
pub mod head;
pub mod header;
#[cfg(any(test, feature = "testing"))]
pub mod hostile;
pub mod key_slot;
pub mod manifest;
pub mod pool;
pub mod record;
pub mod recovery;

pub use builder::ContainerBuilder;
pub use class::Class;
pub use codec::{Codec, Compression, Encoder};
pub use config::Config;
pub use crypto::{Cipher, Keys, MasterKey};
pub use decoder::Decoder;
pub use directory::{BodyEntry, Directory};
pub use head::{HEAD_LEN, Head, parse_head, parse_object};
pub use key_slot::{KeySlot, Secret};
pub use manifest::{Manifest, PointState, PointStats};
pub use pool::BufferPool;
pub use record::{open_record, seal_record};
pub use recovery::RecoveryKey;

/// Version of the format that this code writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Random salt of every object, in bytes.
pub const SALT_LEN: usize = 32;
/// Tag of a sealed region: AES-GCM's full length, and as much of a keyed BLAKE3 hash without encryption.
pub const TAG_LEN: usize = 16;
/// The largest raw body of any class: the largest chunk size, and the piece size of records.
pub const MAX_CHUNK_LEN: u32 = 1 << 20;
/// The smallest chunk size.
pub const MIN_CHUNK_LEN: u32 = 1 << 16;
/// Most bodies in one object: keeps a directory below 200 KiB and ordinals far inside their 16 bits.
pub const MAX_BODIES: usize = 4096;
/// Most raw bytes of one record, all pieces together.
pub const MAX_RECORD_LEN: usize = 64 << 20;

#[cfg(test)]
mod tests;

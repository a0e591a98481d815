//! Snapshots of CSI drivers: what the driver, or the Kubernetes service in front of it, says of a snapshot.
//!
//! ```text
//!   DriverMetadata  (csi.v1, socket)        ┐
//!                                           ├─► stream of messages ─► Answer ─► extents
//!   ClusterMetadata (TLS, token per call)   ┘       ▲                   │
//!                                                   └── call again at ◄─┘  broke off; or ended, and may not have been the end
//! ```
//!
//! Owns: what names a snapshot, the calls, and when an answer is believed to be complete. Must not: make, attach or delete
//! anything, or know Kubernetes objects. The parts: `snapshot` names a state, `service` is one call, `driver` and `cluster` make
//! it, `answer` judges what comes (pure), `reaction` what an error means (pure), `source` puts them together.
//!
//! Facts: the CSI specification (SnapshotMetadata service, alpha), KEP-3314 and the external-snapshot-metadata sidecar.

mod answer;
mod cluster;
mod driver;
mod notices;
mod reaction;
mod redact;
mod service;
mod snapshot;
mod source;
mod stream;
mod waiting;

pub use cluster::{ClusterMetadata, ClusterSnapshot, Token, TokenError, TokenFuture, TokenSource};
pub use driver::{DriverAnswer, DriverMetadata};
pub use notices::Notices;
pub use redact::redact;
pub use service::{
    BlockType, CallError, MetadataCall, MetadataMessage, MetadataQuestion, MetadataService,
    MetadataStream, for_people,
};
pub use snapshot::{CsiSnapshot, parse_created};
pub use source::{CsiOptions, CsiSource};
pub use stream::{Answers, Responses};
pub use waiting::StopCheck;

/// Name of the source, and of its facts in records.
pub const NAME: &str = "csi";

/// Reads `bytes` as the answers of a server to one question, for the fuzzer: a doubt is as good as an answer; a panic, an unsound
/// extent or an end that nobody told is not.
#[cfg(any(test, feature = "testing"))]
pub fn hostile(bytes: &[u8]) {
    answer::hostile::play(bytes);
}

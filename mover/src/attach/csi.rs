//! Snapshots and volumes of a CSI driver, by its own socket.
//!
//! ```text
//!   journal ◄── written before each step ───────────────┐
//!   CreateSnapshot ─► CreateVolume ─► ControllerPublish ─► NodeStage ─► NodePublish ─► device ─► pipeline
//!        │                                                                               │
//!        └─ kept as the base of the next delta, or deleted ◄── undone in reverse ◄───────┘
//! ```
//!
//! Owns: the order of the calls, what each answer means, and the promise that whatever a run made is either undone, or known to
//! the journal that the next run undoes. Must not: delete anything that no journal of ours says we made, keep a secret outside of
//! requests, or use an id of the driver in a path.
//!
//! The parts: `answer` decides what follows an answer (pure), `call` repeats calls, `driver` is one driver and what it can do,
//! `journal` and `state` are what is known of a run, `undo` takes it back and `search` finds what it never heard of, `working_copy` makes the device, `base` keeps the one
//! snapshot that the next delta needs, `adoption` finds it again, `device` is what the pipelines read.
//!
//! Facts: the Container Storage Interface 1.12, <https://github.com/container-storage-interface/spec>.

mod adoption;
pub mod answer;
pub mod base;
pub mod call;
pub mod device;
pub mod driver;
mod fitness;
pub mod info;
pub mod journal;
pub mod new_volume;
pub mod options;
pub mod profile;
pub mod release;
mod runtime;
mod search;
pub mod secrets;
pub mod session;
pub mod socket;
pub mod state;
pub mod sweep;
pub mod timing;
mod undo;
pub mod view;
mod working_copy;

pub use adoption::Recorded;
pub use device::CsiDevice;
pub use driver::Driver;
pub use new_volume::NewVolume;
pub use options::{CsiOptions, Deadlines};
pub use session::{Backup, KeepBase};
pub use view::{HeldVolumes, SnapshotView};

/// What a SOURCE begins with that is a volume of a driver, and a TARGET that is to be one.
pub const PREFIX: &str = "csi:";
/// The TARGET that is a volume yet to be made.
pub const NEW: &str = "csi:new";

//! Garbage collection: what may be deleted, decided from listings alone.
//!
//! ```text
//!   listings in Stage::ORDER ─► View ─► Census ─ open bodies, second looks ─► Marking ─ liveness of roots ─► Plan
//!        signs, data, tombs,            │                                      │                             │
//!        opens, slots, opens, copies     └► which bodies to GET                 └► which liveness to GET      └► deletions
//! ```
//!
//! Owns: the planner: a pure function in four steps, from what one run saw to what it may delete and rewrite. Must not:
//! do I/O, read a clock, or keep anything between runs. Any number of runs may go on at once, stall, and come back.
//!
//! Why it is safe: an object that is dead for one view is dead for ever, so a deletion decided on any old view is right
//! whenever it is carried out. The order in which the listings are made carries that proof, and [`Stage::ORDER`] is the
//! only right one. The model in `gc/model` explores it with this very planner.

pub mod census;
pub mod compaction;
mod controls;
pub mod fencing;
mod live_union;
pub mod marking;
mod objects;
pub mod plan;
pub mod view;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

pub use census::{Census, DecidedBy, Lookup, OpenKey, StartOver};
pub use compaction::{Compaction, CompactionPolicy};
pub use fencing::{Fence, FencePolicy, Owner, Signs};
pub use live_union::Live;
pub use marking::{Marking, Root};
pub use plan::{Brake, Cause, Chain, ControlStep, DeadObject, Plan};
pub use view::{Stage, View};

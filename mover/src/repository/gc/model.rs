//! The protocol of sessions and collectors, explored state by state.
//!
//! ```text
//!   bounds ─► search (breadth first) ─► successors = session | environment | collector step ─► properties in every state
//!                                                                        └► the real planner
//! ```
//!
//! One store request is one step. A process may stop for ever at any step (nothing makes it move: that is a crash) or go on
//! much later (that is a stall); a LIST takes as many steps as it has pages. Nothing is random: within its bounds the search
//! is complete, and a trace it finds is one of the shortest. What a collector concludes is asked of the planner that ships.
//!
//! `cargo test -p mover gc::model` runs the short bounds and every mutation; with `SNAPHAUL_TEST_LONG=1` in the
//! environment, and `--release`, the long ones too; `SNAPHAUL_TEST_PROGRESS=1` shows how far each one is.
//!
//! Its traces are repeated by the code that ships, request by request: `pipeline::gc::tests::replay`.
//!
//! Not modelled: several volumes (no rule looks at one), several pins or several dead sessions for one
//! session (the same steps for each), map segments
//! (segments without generations), second copies that a collector adds, listings that are not consistent per key, refusals of the store.

mod bounds;
mod collector;
mod environment;
mod mutation;
mod planning;
mod properties;
mod search;
mod session;
mod state;
mod takeover;
pub(crate) mod traces;

mod caught;
mod complete;

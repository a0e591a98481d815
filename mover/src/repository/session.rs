//! Sessions: how a point comes to be, is found, is read, and how a killed run is taken over.
//!
//! ```text
//!   writer:  open ──► check pins ──► (adopt dead sessions) ──► data … ──► slot = commit ──► own open still there? ──► acknowledged
//!   reader:  open/<vol>/r-<sid> ──► check pins ──► read … ──► delete it
//! ```
//!
//! Owns: the session records and every step of the protocol a writer and a reader take, in the one order that is safe.
//! Must not: move data, or delete anything but its own reader record and heartbeat: that is the collector's work.

pub mod adopt;
pub mod forget;
pub mod origin;
pub mod points;
pub mod protect;
pub mod reader;
pub mod records;
pub mod resolve;
pub(crate) mod silence;
pub mod writer;

#[cfg(test)]
mod tests;

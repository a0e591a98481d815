//! Reference data, peers and measured results.
//!
//! ```text
//!   bench/run (Python, bench/lab) ──► snaphaul, peers, fio, ceiling-probe, put-probe ──► runs/<date>-<n>/
//!   bench/benches (criterion)     ──► chunk_path and the pure parts of `mover`
//! ```
//!
//! Owns: the ceiling probe's loop, and a repository too large to be made (`synthetic`). Must not: assert on time, or hold anything a user needs.

pub mod ceiling;
pub mod synthetic;

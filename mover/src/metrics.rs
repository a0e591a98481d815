//! Counters of one process, in Prometheus form.
//!
//! Owns: metric names and the registry. Must not: decide anything.

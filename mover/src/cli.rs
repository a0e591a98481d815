//! The command line of `snaphaul`.
//!
//! Owns: flags, output, progress and exit codes. Must not: move data itself.

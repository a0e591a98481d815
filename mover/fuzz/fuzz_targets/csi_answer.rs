//! Messages and errors of a SnapshotMetadata service.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| changed_blocks::csi::hostile(bytes));

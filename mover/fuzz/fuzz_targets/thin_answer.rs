//! Answers of the thin-provisioning tools.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| changed_blocks::thin::hostile(bytes));

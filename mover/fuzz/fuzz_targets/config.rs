//! The configuration, whole and behind a right seal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::format::hostile;

fuzz_target!(|bytes: &[u8]| hostile::config(bytes));

//! Directory columns behind a right seal and tag, and the bodies they describe.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::format::hostile;

fuzz_target!(|bytes: &[u8]| hostile::directory(bytes));

//! Headers, seals and directories of whole objects.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::format::hostile;

fuzz_target!(|bytes: &[u8]| hostile::object(bytes));

//! Recovery sheets as somebody typed them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::format::hostile;

fuzz_target!(|bytes: &[u8]| hostile::recovery_sheet(bytes));

//! Map pages: what is accepted has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::map::hostile;

fuzz_target!(|bytes: &[u8]| hostile::page(bytes));

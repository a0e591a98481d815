//! Ways into the parsers of pages and liveness for the fuzzer.
//!
//! Owns: what must hold for whatever they accept: it has one spelling. Compiled for tests only.

use super::liveness::Liveness;
use super::page::{self, Page};

/// A map page: one byte of level, the page.
///
/// # Panics
/// If a page is accepted that is not spelled as this version would.
pub fn page(bytes: &[u8]) {
    let Some((level, bytes)) = bytes.split_first() else {
        return;
    };
    let level = level % 8;
    match page::decode(bytes, level) {
        Ok(Page::Leaf(leaf)) => assert_eq!(page::encode_leaf(&leaf), bytes),
        Ok(Page::Node(node)) => assert_eq!(page::encode_node(level, &node), bytes),
        Err(_) => {}
    }
}

/// A liveness record.
///
/// # Panics
/// If a record is accepted that is not spelled as this version would.
pub fn liveness(bytes: &[u8]) {
    if let Ok(liveness) = Liveness::decode(bytes) {
        assert_eq!(liveness.encode(), bytes);
    }
}

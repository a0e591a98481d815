//! Objects of others that Snaphaul reads, each with the fields that it needs and no more.
//!
//! Owns: their form. Must not: replace one of them as a whole, which would drop the fields that are not here.

pub mod metadata_service;

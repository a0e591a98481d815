//! Objects of other projects, as far as Snaphaul reads or writes them: each with the fields that it needs and no more.
//!
//! Owns: narrow types of them. Must not: replace such an object as a whole: fields that are not here would be lost. Create, merge
//! patch or server-side apply.

pub mod metadata_service;
pub mod snapshot;

//! The diff pipeline.

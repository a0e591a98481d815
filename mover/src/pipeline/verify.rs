//! The verify pipeline.

//! The restore pipeline.

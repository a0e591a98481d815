//! An opened repository: store, configuration and keys together.

/// A repository whose key was given.
#[derive(Debug)]
pub struct Repository {}

//! The data mover: device, repository, pipelines and command line of Snaphaul.
//!
//! ```text
//!   device, repository ◄── pipeline ◄── attach ◄── cli ◄── main
//! ```
//!
//! Owns: the crate's module list. Must not: hold logic.

pub mod attach;
pub mod cli;
pub mod device;
pub mod error;
#[cfg(feature = "kubernetes")]
pub mod kube;
pub mod metrics;
pub mod pipeline;
pub mod repository;

pub use error::{Error, ErrorKind, Result};

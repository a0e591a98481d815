//! The controller.

pub mod restore;

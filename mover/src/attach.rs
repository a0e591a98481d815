//! How the snapshot of a volume becomes a device on this node, and how nothing of that stays behind.
//!
//! Owns: one module for each strategy. Must not: move data (`pipeline` does) or know Kubernetes objects.

#[cfg(feature = "csi")]
pub mod csi;

//! gRPC types and clients of `csi.v1` and of the Kubernetes `SnapshotMetadata` service.
//!
//! Owns: the wire types, generated at build time, and nothing else. Must not: contain logic, or appear in the public
//! signature of another crate — `changed-blocks` and `mover` convert at their border.
//!
//! The crate holds no code yet: its place in the dependency order is fixed here, the messages come with the CSI client.

//! The holder: a small process beside a volume that opens its device and passes it on to the agent of the node.
//!
//! ```text
//!   kubelet attaches ─► holder pod: /dev/snaphaul ─► <directory>/<uid>.sock ══ one line, two descriptors ══► agent
//! ```
//!
//! Owns: the protocol, the side that listens ([`server`]) and the side that asks ([`client`]). Must not: read or write the device.
//!
//! The agent needs no right to the device this way, and the holder none but to open it. The connection stays open while the agent
//! works: when either side is gone, the other one knows.
//!
//! A token goes with every request. It follows from what everybody on the node can know, so it keeps nobody out who is root there,
//! and need not: who is root on the node has the device anyway. It keeps orders apart: an agent that was given another attempt, or
//! meets a socket that a dead pod left, gets nothing. Whoever is not root is refused by the kernel's word (`SO_PEERCRED`).

pub mod client;
pub mod protocol;
pub mod server;

#[cfg(test)]
mod tests;

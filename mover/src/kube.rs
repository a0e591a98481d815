//! Snaphaul in a cluster: custom resources, the controller that coordinates, the agent that moves data, and the holder that opens devices.
//!
//! Owns: everything that speaks to an API server. Must not: read or write volumes itself (`pipeline` does), or know formats.
//!
//! Decisions are pure functions of what was observed; the parts that carry them out hold no state that a restart would lose.

pub mod access;
pub mod agent;
pub mod answer;
pub mod api;
pub mod changed_blocks;
pub mod connection;
pub mod controller;
pub mod crds;
pub mod foreign;
pub mod hold;
pub mod http;
pub mod point_tags;
pub mod refusal;
pub mod seccomp;
pub mod secrets;

#[cfg(test)]
mod manifests;

//! End-to-end tests against real parts, and the harness that starts them.
//!
//! ```text
//!   tests/*.rs ──► snaphaul (the binary, as a process) ──► directory · proxy ──► s3s-fs · SeaweedFS · Ceph RGW · MinIO
//!        │                                                      ▲
//!        ├─ image, loop_device, mount: what is backed up        └─ tamper: flips, cuts, swaps stored objects
//!        ├─ csi: drivers as processes ──► test_driver (csi_driver, ours, with faults on demand) · hostpath
//!        └─ cluster: control plane, sidecars, node (kubelet, or a light one) ──► snaphaul controller · agent · hold
//! ```
//!
//! Owns: everything that a test starts, and its end. A part that is missing fails the test and says what to install
//! (`tests/run` installs all of it). Must not: be needed by users, or look inside the product where a file or a flag tells.

pub mod bucket;
pub mod cases;
pub mod ceph;
pub mod ceph_csi;
pub mod ceph_root;
pub mod cluster;
pub mod csi;
pub mod csi_driver;
pub mod hostpath;
pub mod http_get;
pub mod image;
pub mod in_process;
pub mod loop_device;
pub mod metadata_sidecar;
pub mod minio;
pub mod mount;
pub mod part;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod random;
pub mod rbd_pool;
pub mod repo;
pub mod scratch;
pub mod seaweed;
pub mod server;
pub mod snaphaul;
pub mod tamper;
pub mod test_driver;
pub mod uml;

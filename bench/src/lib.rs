//! Reference data, peers and measured results.

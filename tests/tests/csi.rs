//! Backups of volumes of CSI drivers.

#[test]
fn placeholder() {}

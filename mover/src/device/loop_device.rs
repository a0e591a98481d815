//! Loop devices for tests: a real block device over a file, detached when the guard goes. Needs root and `losetup`.
//!
//! Owns: one loop device. Must not: be part of a release.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device that is detached on drop.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` as a block device with logical blocks of `sector` bytes.
    ///
    /// # Errors
    /// What `losetup` says: no permission, no device left.
    pub fn attach(file: &Path, sector: u32) -> io::Result<Self> {
        Self::run(file, &["--sector-size", &sector.to_string()])
    }

    /// Attaches `file` as a block device that refuses writes.
    ///
    /// # Errors
    /// As for [`LoopDevice::attach`].
    pub fn attach_read_only(file: &Path) -> io::Result<Self> {
        Self::run(file, &["--read-only"])
    }

    fn run(file: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut command = Command::new("losetup");
        let output = command
            .args(["--find", "--show"])
            .args(arguments)
            .arg(file)
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { path: path.into() })
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A device still open elsewhere is detached by the kernel at its last close.
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

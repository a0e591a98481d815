//! Block devices over files: real ones, through the kernel's loop driver.
//!
//! Owns: attaching and detaching. Must not: touch devices it did not attach.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::part;

/// A loop device over a file; dropping it detaches it.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` as a device of `sector_size` (512 or 4096) bytes.
    ///
    /// # Errors
    /// Without root, or where no device is free.
    pub fn attach(file: &Path, sector_size: u32) -> Result<Self> {
        Self::attach_with(file, sector_size, &[])
    }

    /// As [`LoopDevice::attach`], for reading only.
    ///
    /// # Errors
    /// Without root, or where no device is free.
    pub fn attach_read_only(file: &Path) -> Result<Self> {
        Self::attach_with(file, 512, &["--read-only"])
    }

    fn attach_with(file: &Path, sector_size: u32, more: &[&str]) -> Result<Self> {
        part::root()?;
        let losetup = part::program("losetup", "mount")?;
        // Two tests may be given the same free device; the loser asks again.
        let mut last = Err(anyhow::anyhow!("no attempt was made"));
        for _ in 0..10 {
            let mut command = Command::new(&losetup);
            command
                .args([
                    "--find",
                    "--show",
                    "--sector-size",
                    &sector_size.to_string(),
                ])
                .args(more)
                .arg(file);
            last = part::run(&mut command).map(|name| Self {
                path: PathBuf::from(name.trim()),
            });
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        last
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A failed detach shows up as a busy file when its folder is removed.
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

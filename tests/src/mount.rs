//! File systems in files, mounted on temporary folders: ext4, XFS, btrfs, tmpfs.
//!
//! Owns: making, mounting and unmounting them. Must not: mount outside its own folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::image::Image;
use crate::part;
use crate::scratch::Scratch;

/// Kinds of file systems that tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS with reflinks; at least 300 MiB.
    Xfs,
    /// btrfs; at least 128 MiB.
    Btrfs,
    /// Memory: refuses nothing but has no disk.
    Tmpfs,
}

impl FileSystem {
    fn maker(self) -> Option<(&'static str, &'static str, &'static [&'static str])> {
        match self {
            Self::Ext4 => Some(("mkfs.ext4", "e2fsprogs", &["-q", "-F"])),
            Self::Xfs => Some(("mkfs.xfs", "xfsprogs", &["-q", "-f"])),
            Self::Btrfs => Some(("mkfs.btrfs", "btrfs-progs", &["-q", "-f"])),
            Self::Tmpfs => None,
        }
    }
}

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    _scratch: Scratch,
}

impl Mounted {
    /// Makes a file system of `size` bytes and mounts it.
    ///
    /// # Errors
    /// Without root, or where its tools are missing.
    pub fn new(kind: FileSystem, size: u64) -> Result<Self> {
        part::root()?;
        let scratch = Scratch::new("mount")?;
        let folder = scratch.join("root");
        std::fs::create_dir(&folder)?;
        let mut mount = Command::new("mount");
        if let Some((program, package, args)) = kind.maker() {
            let image = Image::sparse(&scratch.join("image"), size)?;
            part::run(
                Command::new(part::program(program, package)?)
                    .args(args)
                    .arg(&image.path),
            )?;
            mount.args(["-o", "loop"]).arg(&image.path).arg(&folder);
        } else {
            mount
                .args([
                    "-t",
                    "tmpfs",
                    "-o",
                    &format!("size={size}"),
                    "snaphaul-test",
                ])
                .arg(&folder);
        }
        part::run(&mut mount)?;
        Ok(Self {
            folder,
            _scratch: scratch,
        })
    }

    /// Mounts a device that holds a file system already.
    ///
    /// # Errors
    /// Where it holds none.
    pub fn device(device: &Path) -> Result<Self> {
        let scratch = Scratch::new("mount")?;
        let folder = scratch.join("root");
        std::fs::create_dir(&folder)?;
        part::run(Command::new("mount").arg(device).arg(&folder))?;
        Ok(Self {
            folder,
            _scratch: scratch,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A name at its top.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes everything under it read-only.
    ///
    /// # Errors
    /// Where a file is open for writing.
    pub fn remount_read_only(&self) -> Result<()> {
        part::run(
            Command::new("mount")
                .args(["-o", "remount,ro"])
                .arg(&self.folder),
        )
        .map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazy: a test that failed may still hold a file open.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.folder)
            .status();
    }
}

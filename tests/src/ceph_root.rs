//! A newer Ceph beside the machine's own: Debian trixie's programs and libraries, laid over `/usr` for one process.
//!
//! Owns: finding the folder that `tests/run install` unpacked and moving programs onto it. Must not: install it, or start
//! daemons: [`crate::ceph`] does, and what runs on this root finds this root's daemons.
//!
//! ```text
//!   test ─► tools/ceph-root/run ─► mount namespace of its own, ROOT/usr over /usr ─► the test again, or a program
//!                                  (/etc, /dev, /tmp, target folder, processes and network stay the machine's)
//! ```
//!
//! Needed where the machine's librbd is older than `rbd_diff_iterate3`, which came with Ceph 18.2.5 (Debian 12 has 16.2.15).

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::part;

/// The unpacked release.
#[derive(Clone, Debug)]
pub struct CephRoot {
    folder: PathBuf,
}

impl CephRoot {
    /// The folder in the tests' cache.
    ///
    /// # Errors
    /// Where it was not unpacked, or this user may not mount.
    pub fn find() -> Result<Self> {
        part::root()?;
        let folder = part::cache().join("ceph-root");
        if !folder.join("usr/bin/ceph-osd").is_file() {
            bail!(
                "{} is missing: run `tests/run install`, which makes it",
                folder.display()
            );
        }
        Ok(Self { folder })
    }

    /// Moves the whole test program onto the root: it starts again there, with the same process id and arguments, and then
    /// this returns. From then on every program and library it loads is that release's. Call it first in `main` (so only in
    /// tests with `harness = false`): what the process did before is lost.
    ///
    /// # Errors
    /// Where the root is missing or the mounts fail.
    pub fn enter() -> Result<Self> {
        let root = Self::find()?;
        if root.is_entered()? {
            return Ok(root);
        }
        let test = std::env::current_exe().context("find the test program")?;
        let error = root.command(&test).args(std::env::args_os().skip(1)).exec();
        Err(error).context("start again on the newer Ceph's root")
    }

    /// Whether this process runs on the root: its `/usr` is the machine's.
    ///
    /// # Errors
    /// Where either folder cannot be looked at.
    pub fn is_entered(&self) -> Result<bool> {
        let look = |path: &Path| {
            let seen =
                std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
            anyhow::Ok((seen.dev(), seen.ino()))
        };
        Ok(look(Path::new("/usr"))? == look(&self.folder.join("usr"))?)
    }

    /// Where a file that is at `path` for programs on the root lies for all others.
    ///
    /// # Errors
    /// Where there is no such file, or `path` is relative.
    pub fn file(&self, path: &Path) -> Result<PathBuf> {
        let inner = path.strip_prefix("/").context("a path from the top")?;
        let file = self.folder.join(inner);
        file.canonicalize()
            .with_context(|| format!("find {}", file.display()))
    }

    /// A command that runs `program` on the root, with the process id of the child it is started as.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/ceph-root/run"));
        command.env("SNAPHAUL_CACHE", part::cache()).arg(program);
        command
    }
}

//! File systems in files, mounted on a folder of the test's own.
//!
//! Owns: making, mounting and unmounting them. Must not: leave one behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system; dropping it unmounts it.
pub(crate) struct Mounted {
    folder: PathBuf,
    _scratch: TempDir,
}

impl Mounted {
    /// Makes a file system of `size` bytes (`xfs`, `btrfs`, `ext4`, `tmpfs`) and mounts it with `options`.
    pub(crate) fn new(kind: &str, size: u64, options: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "loop devices and mounts need root: run the tests as root"
        );
        // `/tmp` may be memory; SNAPHAUL_TEST_DIR moves the images to another disk.
        let parent = std::env::var_os("SNAPHAUL_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let scratch = tempfile::Builder::new()
            .prefix("snaphaul-fiemap-")
            .tempdir_in(parent)
            .unwrap();
        let folder = scratch.path().join("root");
        std::fs::create_dir(&folder).unwrap();
        let folder_name = folder.to_str().unwrap();
        if kind == "tmpfs" {
            let size = format!("size={size}");
            run(
                "mount",
                &["-t", "tmpfs", "-o", &size, "snaphaul-test", folder_name],
            );
        } else {
            let image = scratch.path().join("image");
            File::create(&image).unwrap().set_len(size).unwrap();
            let image = image.to_str().unwrap();
            let force = if kind == "ext4" { "-F" } else { "-f" };
            run(&format!("mkfs.{kind}"), &["-q", force, image]);
            let options = format!("loop,{options}");
            run(
                "mount",
                &["-o", options.trim_end_matches(','), image, folder_name],
            );
        }
        Self {
            folder,
            _scratch: scratch,
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// A name at its top.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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

/// Runs a program to its end; an error of it fails the test.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    assert!(
        succeeds(program, arguments),
        "{program} {arguments:?} failed"
    );
}

/// Runs a program to its end and says whether it succeeded.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("start {program} (`tests/run` installs it): {error}"));
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    output.status.success()
}

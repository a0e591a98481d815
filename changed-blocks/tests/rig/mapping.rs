//! A file that another process has mapped and writes through the mapping.
//!
//! Owns: that process. Must not: write the file in any other way.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first page of a file, mapped for writing; dropping it ends the process.
pub(crate) struct Mapping {
    path: PathBuf,
    process: Child,
}

impl Mapping {
    /// Maps the first `len` bytes of the file at `path`.
    pub(crate) fn new(path: &Path, len: u64) -> Self {
        let mut process = Command::new("/usr/sbin/xfs_io")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let commands = process.stdin.as_mut().unwrap();
        writeln!(commands, "mmap -rw 0 {len}").unwrap();
        Self {
            path: path.to_owned(),
            process,
        }
    }

    /// Fills the first page with `byte`, and waits until readers see it.
    pub(crate) fn write(&mut self, byte: u8) {
        let commands = self.process.stdin.as_mut().unwrap();
        writeln!(commands, "mwrite -S {byte} 0 4096").unwrap();
        commands.flush().unwrap();
        let file = File::open(&self.path).unwrap();
        let begin = Instant::now();
        let mut seen = [0];
        while seen != [byte] {
            assert!(begin.elapsed() < Duration::from_secs(60), "no write seen");
            std::thread::sleep(Duration::from_millis(2));
            file.read_exact_at(&mut seen, 4095).unwrap();
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

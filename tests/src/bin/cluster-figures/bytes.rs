//! What the kernel says of a process.
//!
//! Owns: reading `/proc`. Must not: find processes.

use anyhow::{Context, Result};

/// Resident bytes of a process: now, and at most so far (`VmRSS` and `VmHWM` of proc_pid_status(5)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let words = line.with_context(|| format!("{name} of {pid}"))?;
            let kib = words.trim().trim_end_matches(" kB").parse::<u64>()?;
            Ok(kib << 10)
        };
        Ok(Self {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }
}

/// Bytes that a process had fetched from block devices (`read_bytes` of proc_pid_io(5)); reads past the page cache count at once.
pub(crate) fn fetched(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.context("read_bytes")?.trim().parse()?)
}

//! A client that changes images through Ceph's Python binding, as a process of its own.
//!
//! Owns: its orders and answers. Must not: use the code under test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::site::{POOL, Site};

/// Bits of `rbd/features.h`.
pub(crate) const LAYERING: u64 = 1;
/// Exclusive lock, object map and fast diff with layering.
pub(crate) const FAST_DIFF: u64 = LAYERING | 1 << 2 | 1 << 3 | 1 << 4;
/// Flatten reaches the snapshots.
pub(crate) const DEEP_FLATTEN: u64 = 1 << 5;

/// Debian's own: `python3-rbd` is for no other.
const PYTHON: &str = "/usr/bin/python3";

/// The process; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Writer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Writer {
    /// Starts a client whose discards have this granularity in bytes, 4096 or 65536.
    pub(crate) fn start(site: &Site, granularity: u64) -> Result<Self> {
        ensure!(
            Path::new(PYTHON).is_file(),
            "{PYTHON} is missing: `apt-get install python3-rbd`"
        );
        let mut child = Command::new(PYTHON)
            .args(["-c", include_str!("writer.py")])
            .arg(site.ceph.conf())
            .args([POOL, &granularity.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().context("its output is a pipe")?;
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Gives one order: its name and its arguments.
    pub(crate) fn order(&mut self, words: &[&str]) -> Result<()> {
        let orders = self.orders.as_mut().context("its input is a pipe")?;
        writeln!(orders, "{}", words.join("\t"))?;
        orders.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim_end() != "ok" {
            bail!("{words:?}: {}", answer.trim_end());
        }
        Ok(())
    }

    /// An order whose arguments behind the name are numbers.
    pub(crate) fn change(&mut self, order: &str, image: &str, numbers: &[u64]) -> Result<()> {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let mut words = vec![order, image];
        words.extend(numbers.iter().map(String::as_str));
        self.order(&words)
    }

    /// Makes an image with objects of `1 << order` bytes.
    pub(crate) fn create(&mut self, image: &str, size: u64, features: u64) -> Result<()> {
        self.change("create", image, &[size, 20, features, 0, 0])
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The end of its input ends it; a test that failed does not care how.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

//! Images of one RBD pool, through the commands `rbd` and `ceph`: made, changed at chosen places, read and looked at.
//!
//! Owns: the words of those commands and the diff stream that writes and discards ranges. Must not: use librbd itself, so
//! that it can judge the code that does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::part;

/// One change of an image's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes to write.
    Write {
        /// First byte.
        offset: u64,
        /// What is there afterwards.
        data: Vec<u8>,
    },
    /// A range to discard, which reads as zeros afterwards.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

/// A pool of a running cluster.
#[derive(Clone, Debug)]
pub struct RbdPool {
    configuration: PathBuf,
    name: String,
}

impl RbdPool {
    /// A pool that exists. `configuration` is the cluster's `ceph.conf`, which names monitors and keyring.
    #[must_use]
    pub fn new(configuration: &Path, name: &str) -> Self {
        Self {
            configuration: configuration.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Makes a pool for images.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn create(configuration: &Path, name: &str) -> Result<Self> {
        let pool = Self::new(configuration, name);
        pool.ceph(&["osd", "pool", "create", name, "8"])?;
        pool.rbd(&["pool", "init", name])?;
        Ok(pool)
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool's number, of which CSI handles are made.
    ///
    /// # Errors
    /// Where the cluster does not know it.
    pub fn id(&self) -> Result<i64> {
        let text = self.ceph(&["osd", "pool", "ls", "detail", "--format", "json"])?;
        let pools: Value = serde_json::from_str(&text).context("read the list of pools")?;
        pools
            .as_array()
            .into_iter()
            .flatten()
            .find(|pool| pool["pool_name"] == self.name.as_str())
            .and_then(|pool| pool["pool_id"].as_i64())
            .with_context(|| format!("no pool {} in {text}", self.name))
    }

    /// `POOL/IMAGE`; `image` may go on with `@SNAPSHOT`.
    #[must_use]
    pub fn spec(&self, image: &str) -> String {
        format!("{}/{image}", self.name)
    }

    /// Runs `rbd` with these words.
    ///
    /// # Errors
    /// With its words where it fails.
    pub fn rbd(&self, words: &[&str]) -> Result<String> {
        part::run(&mut self.command(words)?)
    }

    /// Runs `rbd … --format json`.
    ///
    /// # Errors
    /// Where it fails or prints something else.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.rbd(&[words, &["--format", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("read what rbd {words:?} printed: {text:?}"))
    }

    /// `rbd info` of an image, by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn info(&self, image: &str) -> Result<Value> {
        self.json(&["info", &self.spec(image)])
    }

    /// All snapshots of an image in every namespace, by its id, which holds in the trash too.
    ///
    /// # Errors
    /// Where there is none.
    pub fn snapshots(&self, image_id: &str) -> Result<Vec<Value>> {
        let found = self.json(&[
            "snap",
            "ls",
            "--all",
            "--pool",
            &self.name,
            "--image-id",
            image_id,
        ])?;
        found.as_array().cloned().context("a list of snapshots")
    }

    /// Applies changes in their order. The image keeps its size.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn apply(&self, image: &str, changes: &[Change]) -> Result<()> {
        let mut command =
            self.command(&["import-diff", "--no-progress", "-", &self.spec(image)])?;
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start rbd import-diff")?;
        let sent = child
            .stdin
            .take()
            .context("the pipe to rbd import-diff")?
            .write_all(&diff_stream(changes));
        // Its own words say more than the broken pipe that its end makes.
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "rbd import-diff ended with {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(sent?)
    }

    /// Every byte of an image or `IMAGE@SNAPSHOT`.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn content(&self, image: &str) -> Result<Vec<u8>> {
        let output = self
            .command(&["export", "--no-progress", &self.spec(image), "-"])?
            .output()?;
        ensure!(
            output.status.success(),
            "rbd export ended with {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(part::program("rbd", "ceph-common")?);
        command.arg("--conf").arg(&self.configuration).args(words);
        Ok(command)
    }

    fn ceph(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(part::program("ceph", "ceph-common")?);
        command.arg("--conf").arg(&self.configuration).args(words);
        part::run(&mut command)
    }
}

/// A stream as `rbd export-diff` makes (format 1, `doc/dev/rbd-diff.rst` of Ceph) without metadata records: no snapshot is
/// asked for or made.
fn diff_stream(changes: &[Change]) -> Vec<u8> {
    let mut stream = b"rbd diff v1\n".to_vec();
    let mut record = |tag: u8, offset: u64, length: u64, data: &[u8]| {
        stream.push(tag);
        stream.extend(offset.to_le_bytes());
        stream.extend(length.to_le_bytes());
        stream.extend(data);
    };
    for change in changes {
        match change {
            Change::Write { offset, data } => {
                let length = u64::try_from(data.len()).expect("memory is smaller than 2^64");
                record(b'w', *offset, length, data);
            }
            Change::Discard { offset, length } => record(b'z', *offset, *length, &[]),
        }
    }
    stream.push(b'e');
    stream
}

//! Durable output: one file per segment, direct, flushed before the buffer is used again.
//!
//! Owns: the output files. Must not: touch their contents.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender};

use super::chunk_path::{OpenSegment, StageSeconds};
use super::restore::StoredSegment;

/// Writes segments until no more come.
pub(super) fn write_all(
    directory: &Path,
    full: &Receiver<OpenSegment>,
    free: &Sender<OpenSegment>,
    index: &Mutex<Vec<StoredSegment>>,
) -> Result<StageSeconds> {
    let mut stages = StageSeconds::default();
    for mut segment in full {
        let start = Instant::now();
        let path = directory.join(segment.id.file_name());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        file.write_all(segment.pages())
            .with_context(|| format!("write {}", path.display()))?;
        let written = Instant::now();
        stages.write += (written - start).as_secs_f64();
        file.sync_data()
            .with_context(|| format!("flush {}", path.display()))?;
        stages.flush += written.elapsed().as_secs_f64();
        stages.stored_bytes += segment.pages().len() as u64;
        let stored = segment.reset();
        index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stored);
        // Workers that are done need no more segments.
        let _ = free.send(segment);
    }
    Ok(stages)
}

//! The checked end: reads samples of the finished target back from the medium.
//!
//! Owns: the comparison. Must not: choose samples. Runs after the first chunk was written and before a new file gets
//! its name.

use super::decode::to_usize;
use super::job::Job;
use super::output::Output;
use super::sample::Expected;
use crate::device::buffer::{ALIGNMENT, is_zero};
use crate::error::{Error, ErrorKind, Result};

/// Compares every sample that lies whole in the target and was not lost with what is on the medium.
///
/// # Errors
/// `Io` where the target gives back other bytes than were written.
pub(crate) fn check(
    job: &Job<'_>,
    output: &dyn Output,
    target: &str,
    samples: &[(u64, Expected)],
) -> Result<()> {
    for (chunk, expected) in samples {
        let (offset, len) = job.geometry.place(*chunk, 1);
        let is_cut = len != job.geometry.chunk_len(*chunk);
        if is_cut || job.losses.contains(*chunk) {
            continue;
        }
        job.context.stop.check()?;
        let bytes = read(output, offset, len, job.geometry.len())?;
        let is_right = match expected {
            Expected::Zero => is_zero(&bytes),
            Expected::Data(digest) => job.context.repository.keys.digest(&bytes) == *digest,
        };
        if !is_right {
            return Err(Error::new(
                ErrorKind::Io,
                format!("read back {len} bytes at offset {offset}: the target does not hold what was written"),
            )
            .object(target)
            .hint("the device, or a layer below it, loses or changes writes: check it before you use the target"));
        }
    }
    Ok(())
}

/// Reads any range by reading the whole blocks around it.
fn read(output: &dyn Output, offset: u64, len: u64, size: u64) -> Result<Vec<u8>> {
    let align = ALIGNMENT as u64;
    let start = offset / align * align;
    let end = (offset + len).next_multiple_of(align).min(size);
    let mut bytes = output.read_back(start, to_usize(end - start))?;
    bytes.drain(..to_usize(offset - start));
    bytes.truncate(to_usize(len));
    Ok(bytes)
}

//! Which ranges of an image hold data, and in which two images differ.
//!
//! Owns: reading the images. Must not: know messages or streams. What nobody wrote is a hole of the file; what was discarded
//! became one again, so that a delta compares content and finds discarded ranges too.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// How much of an image is compared at a time.
const WINDOW: u64 = 1 << 20;

/// What a range is handed to; it ends the scan early.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Range<u64>) -> ControlFlow<()>;

/// An image that stands still.
#[derive(Debug)]
pub(super) struct Still {
    file: File,
    size: u64,
}

impl Still {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// The first range of data from `from` on, within the image.
    fn data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.size {
            return Ok(None);
        }
        let seek =
            |at: u64, whence| lseek(&self.file, i64::try_from(at).unwrap_or(i64::MAX), whence);
        let begin = match seek(from, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(None),
            other => u64::try_from(other?).unwrap_or_default(),
        };
        let end = u64::try_from(seek(begin, Whence::SeekHole)?).unwrap_or_default();
        Ok(Some(begin..end.min(self.size)))
    }

    /// Reads at `at`; what lies beyond the image is zero.
    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        buffer.fill(0);
        let there = usize::try_from(self.size.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.file.read_exact_at(&mut buffer[..there], at)
    }
}

/// Ranges with data from `from` on, widened to multiples of `unit`, neighbours merged, not clipped at the end.
pub(super) fn allocated(image: &Still, from: u64, unit: u64, sink: Sink<'_>) -> io::Result<()> {
    let mut joined = Joined::default();
    let mut at = from / unit * unit;
    while let Some(data) = image.data(at)? {
        at = data.end;
        if joined
            .add(
                data.start / unit * unit..data.end.next_multiple_of(unit),
                sink,
            )
            .is_break()
        {
            return Ok(());
        }
    }
    joined.finish(sink);
    Ok(())
}

/// Ranges of `image` that differ from `base`, in the same form.
pub(super) fn delta(
    base: &Still,
    image: &Still,
    from: u64,
    unit: u64,
    sink: Sink<'_>,
) -> io::Result<()> {
    let mut joined = Joined::default();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let mut at = from / unit * unit;
    while at < image.size {
        // Where both are holes, both are zero.
        let begins = [base.data(at)?, image.data(at)?];
        let Some(data) = begins
            .iter()
            .flatten()
            .map(|range| range.start.max(at))
            .min()
            .filter(|data| *data < image.size)
        else {
            break;
        };
        let begin = data / unit * unit;
        let end = (begin + WINDOW.max(unit)).min(image.size);
        let length = usize::try_from(end - begin).unwrap_or_default();
        old.resize(length, 0);
        new.resize(length, 0);
        base.read(&mut old, begin)?;
        image.read(&mut new, begin)?;
        let step = usize::try_from(unit).unwrap_or(usize::MAX);
        let mut position = begin;
        for (one, two) in old.chunks(step).zip(new.chunks(step)) {
            if one != two && joined.add(position..position + unit, sink).is_break() {
                return Ok(());
            }
            position += unit;
        }
        at = end;
    }
    joined.finish(sink);
    Ok(())
}

/// The last range, which may still grow.
#[derive(Debug, Default)]
struct Joined(Option<Range<u64>>);

impl Joined {
    fn add(&mut self, range: Range<u64>, sink: Sink<'_>) -> ControlFlow<()> {
        match &mut self.0 {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            last => {
                if let Some(done) = last.replace(range) {
                    return sink(done);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn finish(self, sink: Sink<'_>) {
        if let Some(last) = self.0 {
            // Nothing follows that could be stopped.
            let _ = sink(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(folder: &Path, name: &str, size: u64, writes: &[(u64, &[u8])]) -> Still {
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in writes {
            file.write_all_at(bytes, *at).unwrap();
        }
        Still::open(&path).unwrap()
    }

    fn collect(scan: impl FnOnce(Sink<'_>) -> io::Result<()>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        scan(&mut |range| {
            found.push(range);
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    #[test]
    fn finds_what_was_written_and_what_differs() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let size = (4 << 20) + 512;
        let base = still(
            folder.path(),
            "base",
            4 << 20,
            &[(0, &[1; 8192]), (3 << 20, &[2; 4096])],
        );
        let writes: &[(u64, &[u8])] = &[
            (0, &[1; 8192]),
            (4096, &[9]),
            (3 << 20, &[0; 4096]),
            (size - 1, &[3]),
        ];
        let image = still(folder.path(), "image", size, writes);
        let all = collect(|sink| allocated(&image, 0, 4096, sink));
        assert_eq!(
            all,
            [
                0..8192,
                3 << 20..(3 << 20) + 4096,
                4 << 20..(4 << 20) + 4096
            ]
        );
        let changed = collect(|sink| delta(&base, &image, 0, 4096, sink));
        assert_eq!(
            changed,
            [
                4096..8192,
                3 << 20..(3 << 20) + 4096,
                4 << 20..(4 << 20) + 4096
            ]
        );
        assert_eq!(
            collect(|sink| delta(&base, &image, 5000, 4096, sink))[0],
            4096..8192
        );
        assert_eq!(
            collect(|sink| delta(&base, &image, 8192, 4096, sink)).len(),
            2
        );
        assert!(collect(|sink| delta(&image, &image, 0, 512, sink)).is_empty());
    }
}

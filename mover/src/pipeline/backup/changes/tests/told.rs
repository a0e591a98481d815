//! A volume whose storage says what changed, truly or not.
//!
//! Owns: its states, and every way to lie. Must not: back up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use changed_blocks::source::Precision;
use changed_blocks::{
    Base, ByteLen, Capabilities, ChangedBlocks, Extent, ExtentSink, Identity, SourceError,
    SourceErrorKind, Summary,
};

use super::*;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::{DeltaSources, Source, SourceIdentity, SourceOptions, Unusable};

pub(super) const BLOCK: usize = 4096;

/// What the storage answers instead of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Honest,
    /// The stream ends, and nobody says so.
    Truncated,
    /// The end counts more extents than came.
    Miscounted,
    Reordered,
    Overlapping,
    PastTheEnd,
    Empty,
    OtherSize,
    Stalled,
    GivesUp,
    /// Nothing changed, it says, although everything did.
    Nothing,
    /// Leaves the changes of the first MiB out.
    NotTheStart,
    /// Says that changed data became zero.
    Zeros,
    /// Cannot compare, and says that the second half holds nothing.
    HalfAllocated,
    /// Cannot compare, and says that the first MiB holds nothing.
    StartUnallocated,
    /// Cannot compare, and says truly what holds anything.
    OnlyAllocated,
    /// Cannot compare, nor say what is allocated.
    NeitherOfBoth,
    /// Says truly what changed, and that the second half holds nothing.
    Contradicts,
}

/// States of a volume, the last of which is on disk.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) path: PathBuf,
    pub(super) states: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(super) answer: Answer,
    /// Name of who tells.
    pub(super) name: &'static str,
    /// It has no file system that could tell holes.
    pub(super) is_device: bool,
    /// Discarded ranges read as anything, it declares.
    pub(super) discard_unstable: bool,
    /// Its target is an older state than the base.
    pub(super) goes_back: bool,
    /// Somebody writes to it.
    pub(super) is_live: bool,
    /// Why it cannot be asked at all, and whether it should.
    pub(super) unusable: Option<(&'static str, bool)>,
}

impl Storage {
    pub(super) fn new(bed: &Bed, image: Vec<u8>) -> Self {
        let path = bed.path("volume");
        std::fs::write(&path, &image).unwrap();
        let states = Arc::new(Mutex::new(vec![image]));
        Self {
            path,
            states,
            answer: Answer::Honest,
            name: "told",
            is_device: false,
            discard_unstable: false,
            goes_back: false,
            is_live: false,
            unusable: None,
        }
    }

    /// The same as a block device, whose holes only it can tell.
    pub(super) fn device(bed: &Bed, image: Vec<u8>) -> Self {
        Self {
            is_device: true,
            ..Self::new(bed, image)
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut states = self.states.lock().unwrap();
        let mut image = states.last().unwrap().clone();
        change(&mut image);
        std::fs::write(&self.path, &image).unwrap();
        states.push(image);
    }

    pub(super) fn source(&self) -> Told {
        Told {
            inner: Source::open(&self.path, &SourceOptions::default()).unwrap(),
            blocks: Blocks {
                storage: self.clone(),
                base: None,
            },
        }
    }
}

#[derive(Debug)]
pub(super) struct Told {
    inner: Source,
    blocks: Blocks,
}

#[derive(Clone, Debug)]
pub(super) struct Blocks {
    storage: Storage,
    base: Option<usize>,
}

impl Blocks {
    fn truth(&self, base: usize) -> Vec<Extent> {
        let states = self.storage.states.lock().unwrap();
        let (before, now) = (&states[base], states.last().unwrap());
        let blocks = now.len().min(before.len()).div_ceil(BLOCK);
        let part = |image: &[u8], at: usize| {
            image[at * BLOCK..((at + 1) * BLOCK).min(image.len())].to_vec()
        };
        (0..blocks)
            .filter(|at| part(before, *at) != part(now, *at))
            .map(|at| {
                let part = part(now, at);
                let is_zero = part.iter().all(|byte| *byte == 0);
                let kind = if is_zero { Extent::zero } else { Extent::data };
                kind((at * BLOCK) as u64, part.len() as u64)
            })
            .collect()
    }

    fn allocated_truth(&self) -> Vec<Extent> {
        let states = self.storage.states.lock().unwrap();
        let blocks = states.last().unwrap().chunks(BLOCK).zip(0_u64..);
        let data = blocks.filter(|(block, _)| block.iter().any(|byte| *byte != 0));
        data.map(|(block, at)| Extent::data(at * BLOCK as u64, block.len() as u64))
            .collect()
    }

    fn told(&self, base: usize) -> Vec<Extent> {
        let mut extents = self.truth(base);
        let size = self.storage.states.lock().unwrap().last().unwrap().len() as u64;
        match self.storage.answer {
            Answer::Reordered => extents.reverse(),
            Answer::Overlapping => extents.insert(1, extents[0]),
            Answer::PastTheEnd => extents.push(Extent::data(size - 1, 2)),
            Answer::Empty => extents.insert(0, Extent::data(0, 0)),
            Answer::Nothing => extents.clear(),
            Answer::NotTheStart => extents.retain(|extent| extent.offset.0 >= 1 << 20),
            Answer::Zeros => {
                for extent in &mut extents {
                    *extent = Extent::zero(extent.offset.0, extent.len.0);
                }
            }
            _ => {}
        }
        extents
    }
}

impl ChangedBlocks for Blocks {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            precision: Precision::Exact,
            needs_base: true,
            discard_unstable: self.storage.discard_unstable,
            ..Capabilities::without_base(self.storage.name, ByteLen(BLOCK as u64))
        }
    }

    fn identity(&self) -> Option<Identity> {
        let state = self.storage.states.lock().unwrap().len() - 1;
        Some(Identity::new(self.storage.name).with("state", state))
    }

    fn bind(&mut self, base: &Base<'_>) -> std::result::Result<(), SourceError> {
        let state = base.record.fact("state").and_then(|text| text.parse().ok());
        let states = self.storage.states.lock().unwrap().len();
        let can = !matches!(
            self.storage.answer,
            Answer::HalfAllocated
                | Answer::StartUnallocated
                | Answer::OnlyAllocated
                | Answer::NeitherOfBoth
        );
        self.base = state.filter(|state| can && *state < states);
        self.base
            .map(|_| ())
            .ok_or_else(|| SourceError::full("the base is gone"))
    }

    fn allocated(
        &mut self,
        sink: &mut ExtentSink<'_>,
    ) -> std::result::Result<Summary, SourceError> {
        let size = self.storage.states.lock().unwrap().last().unwrap().len() as u64;
        let extents = match self.storage.answer {
            Answer::HalfAllocated | Answer::Contradicts => Vec::from([Extent::data(0, size / 2)]),
            Answer::StartUnallocated => Vec::from([Extent::data(1 << 20, size - (1 << 20))]),
            Answer::NeitherOfBoth => return Err(SourceError::full("the pool is busy")),
            _ => self.allocated_truth(),
        };
        for extent in &extents {
            if !sink(*extent) {
                return Err(SourceError::full("stopped"));
            }
        }
        Ok(Summary {
            size: ByteLen(size),
            extents: extents.len() as u64,
        })
    }

    fn goes_back(&self, _base: &Identity) -> Option<String> {
        let goes_back = self.storage.goes_back;
        goes_back.then(|| "the snapshot is older than the one before".to_owned())
    }

    fn tells_both(&self) -> bool {
        true
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> std::result::Result<Summary, SourceError> {
        let base = self.base.ok_or_else(|| SourceError::full("no base"))?;
        let extents = self.told(base);
        let size = self.storage.states.lock().unwrap().last().unwrap().len() as u64;
        let cut = match self.storage.answer {
            Answer::Truncated | Answer::Stalled | Answer::GivesUp => extents.len() / 2,
            _ => extents.len(),
        };
        for extent in &extents[..cut] {
            if !sink(*extent) {
                return Err(SourceError::full("stopped"));
            }
        }
        let told = extents.len() as u64;
        match self.storage.answer {
            Answer::Truncated => Err(SourceError::full("the stream ended")),
            Answer::Stalled => Err(SourceError::new(
                SourceErrorKind::Retry,
                "no answer in time",
            )),
            Answer::GivesUp => Err(SourceError::new(
                SourceErrorKind::GiveUp,
                "the device is gone",
            )),
            Answer::Miscounted => Ok(Summary {
                size: ByteLen(size),
                extents: told + 1,
            }),
            Answer::OtherSize => Ok(Summary {
                size: ByteLen(size + 1),
                extents: told,
            }),
            _ => Ok(Summary {
                size: ByteLen(size),
                extents: told,
            }),
        }
    }
}

impl SourceDevice for Told {
    fn name(&self) -> String {
        SourceDevice::name(&self.inner)
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    fn has_hole_map(&self) -> bool {
        !self.blocks.storage.is_device
    }

    fn hole_map(&self) -> Result<super::Blocks> {
        if self.has_hole_map() {
            return self.inner.hole_map();
        }
        Ok(Box::new(changed_blocks::Scan::new(self.inner.size())))
    }

    fn delta_sources(&self) -> DeltaSources {
        let Some((reason, is_fault)) = self.blocks.storage.unusable else {
            return DeltaSources::one(Box::new(self.blocks.clone()));
        };
        let error = SourceError::full(reason);
        DeltaSources::none(Unusable::new(self.blocks.storage.name, &error, is_fault))
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.inner.queue(options)
    }

    fn check_unchanged(&self) -> Result<bool> {
        Ok(self.inner.check_unchanged()? && !self.blocks.storage.is_live)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> SourceIdentity {
        SourceDevice::identity(&self.inner)
    }
}

//! The source of a CSI snapshot.
//!
//! ```text
//!   delta ──fails──► (the consumer asks) allocated ──fails──► the whole device
//!       └ notice                                      └ notice
//! ```
//!
//! Owns: what is asked when, and what is told where no answer can be had. Must not: call a service (`asking` does).

mod asking;

use std::time::Duration;

use tokio::runtime::Handle;

use super::notices::Notices;
use super::service::{MetadataQuestion, MetadataService};
use super::snapshot::CsiSnapshot;
use super::waiting::StopCheck;
use crate::chunk_set::ChunkSet;
use crate::extent::{ByteLen, Extent};
use crate::identity::Identity;
use crate::scan::stopped;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, Summary, Trust,
};

/// Bits of the set that holds an answer until it is complete: 8 MiB. Larger volumes get coarser bits.
const MAX_BITS: u64 = 1 << 26;
/// The finest bit: what most drivers tell apart.
const MIN_UNIT: u64 = 4096;

/// How patiently a service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsiOptions {
    /// Ranges asked for in one message.
    pub max_results: i32,
    /// How long nothing new may come, over all calls.
    pub no_progress: Duration,
    /// Calls that may fail one after another without a new range.
    pub attempts: u32,
    /// Wait after the first of them; doubled with each, up to 30 seconds.
    pub back_off: Duration,
}

impl Default for CsiOptions {
    fn default() -> Self {
        Self {
            // 70 KiB a message.
            max_results: 4096,
            // A driver that compares may find nothing for long: half a terabyte at 600 MB/s.
            no_progress: Duration::from_mins(15),
            attempts: 5,
            back_off: Duration::from_secs(1),
        }
    }
}

/// What a CSI snapshot holds, and what changed since another one of its volume.
#[derive(Debug)]
pub struct CsiSource<S> {
    service: S,
    snapshot: CsiSnapshot,
    size: u64,
    runtime: Handle,
    options: CsiOptions,
    notices: Notices,
    stop: StopCheck,
    base: Option<String>,
    needs_base: Option<bool>,
    refused: Option<(String, String)>,
}

impl<S: MetadataService> CsiSource<S> {
    /// Asks `service` about `snapshot`, whose device has `size` bytes.
    ///
    /// `runtime` must be one of several threads, and the source be asked outside of it: asking blocks.
    #[must_use]
    pub fn new(service: S, snapshot: CsiSnapshot, size: u64, runtime: Handle) -> Self {
        Self {
            service,
            snapshot,
            size,
            runtime,
            options: CsiOptions::default(),
            notices: Notices::default(),
            stop: StopCheck::new(|| false),
            base: None,
            needs_base: None,
            refused: None,
        }
    }

    /// The same, where somebody knows whether this snapshot must still be there for the next delta. Otherwise a driver with change
    /// ids is taken to keep the history himself.
    #[must_use]
    pub fn needing_base(mut self, needs: bool) -> Self {
        self.needs_base = Some(needs);
        self
    }

    /// The same, which takes this snapshot for no base, and why: its id may be that of another one by now.
    #[must_use]
    pub fn refusing(mut self, snapshot: &str, why: &str) -> Self {
        self.refused = Some((snapshot.to_owned(), why.to_owned()));
        self
    }

    /// The same with other patience.
    #[must_use]
    pub fn with_options(mut self, options: CsiOptions) -> Self {
        self.options = options;
        self
    }

    /// The same, leaving notices where somebody reads them.
    #[must_use]
    pub fn with_notices(mut self, notices: Notices) -> Self {
        self.notices = notices;
        self
    }

    /// The same, which ends a wait for a silent service when it is asked to.
    #[must_use]
    pub fn with_stop(mut self, stop: StopCheck) -> Self {
        self.stop = stop;
        self
    }

    /// What the service says is allocated, once all of it is known: an answer that breaks off is not told in parts.
    fn allocated_units(&mut self, unit: u64) -> ChunkSet {
        let chunks = self.size.div_ceil(unit);
        let mut units = ChunkSet::new(chunks);
        let answer = self.ask(&MetadataQuestion::Allocated, &mut |extent| {
            units.insert_extent(extent, ByteLen(unit));
            true
        });
        let reason = match answer {
            Ok(true) => return units,
            // An empty volume, or a server that does not know what it is asked about.
            Ok(false) => "the driver says nothing, not even how large the volume is".to_owned(),
            Err(error) => error.to_string(),
        };
        self.notices
            .add(format!("the whole device is read: {reason}"));
        ChunkSet::full(chunks)
    }
}

/// Bytes of a bit for a volume of `size` bytes.
fn unit_for(size: u64) -> u64 {
    let units = size.div_ceil(MAX_BITS);
    units.max(MIN_UNIT).next_power_of_two()
}

impl<S: MetadataService> ChangedBlocks for CsiSource<S> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: super::NAME,
            granularity: ByteLen(1),
            precision: Precision::Superset,
            needs_base: self.needs_base.unwrap_or(self.snapshot.change_id.is_none()),
            zero_extents: false,
            discard_unstable: false,
            trust: Trust::Verified,
        }
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.snapshot.identity())
    }

    fn goes_back(&self, base: &Identity) -> Option<String> {
        self.snapshot.goes_back(base)
    }

    /// Whether the driver still has the base shows when it is asked.
    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.base = None;
        let recorded = CsiSnapshot::from_identity(base.record)?;
        if let Some((snapshot, why)) = &self.refused
            && *snapshot == recorded.snapshot
        {
            return Err(SourceError::full(why.clone()));
        }
        self.base = Some(self.snapshot.pair_with(base)?);
        Ok(())
    }

    /// Rounded out to 4 KiB, or more on volumes above 256 GiB. Everything, with a notice, where no answer can be had.
    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let (size, unit) = (self.size, unit_for(self.size));
        let mut extents = 0;
        if size > 0 {
            for units in self.allocated_units(unit).ranges() {
                let start = units.start * unit;
                let end = units.end.saturating_mul(unit).min(size);
                extents += 1;
                if !sink(Extent::data(start, end - start)) {
                    return Err(stopped());
                }
            }
        }
        Ok(Summary {
            size: ByteLen(size),
            extents,
        })
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let Some(base) = self.base.clone() else {
            return Err(SourceError::full(
                "csi compares with nothing: no base is bound",
            ));
        };
        let size = ByteLen(self.size);
        let mut extents = 0;
        if size.0 == 0 {
            return Ok(Summary { size, extents });
        }
        let mut was_stopped = false;
        let answer = self.ask(&MetadataQuestion::Delta { base }, &mut |extent| {
            extents += 1;
            was_stopped = !sink(extent);
            !was_stopped
        });
        match answer {
            Ok(_) => Ok(Summary { size, extents }),
            Err(error) => {
                if !was_stopped {
                    self.notices.add(format!("no delta: {error}"));
                }
                Err(error)
            }
        }
    }
}

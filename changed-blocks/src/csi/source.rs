//! The source of a CSI snapshot.
//!
//! Owns: what is asked when, and what is told where no answer can be had. Must not: judge an answer (`answer` does).

use std::time::Duration;

use tokio::runtime::Handle;

use super::notices::Notices;
use super::service::MetadataService;
use super::snapshot::CsiSnapshot;
use crate::extent::{ByteLen, Extent};
use crate::identity::Identity;
use crate::scan::stopped;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, Summary, Trust,
};

/// How patiently a service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsiOptions {
    /// Ranges asked for in one message.
    pub max_results: i32,
    /// How long a call may bring nothing new.
    pub no_progress: Duration,
    /// Calls that may fail one after another without a new range.
    pub attempts: u32,
    /// Wait after the first of them; doubled with each.
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
    base: Option<String>,
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
            base: None,
        }
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
}

impl<S: MetadataService> ChangedBlocks for CsiSource<S> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: super::NAME,
            granularity: ByteLen(1),
            precision: Precision::Superset,
            // Whoever has change ids keeps the history himself.
            needs_base: self.snapshot.change_id.is_none(),
            zero_extents: false,
            discard_unstable: false,
            trust: Trust::Verified,
        }
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.snapshot.identity())
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.base = None;
        self.base = Some(self.snapshot.pair_with(base)?);
        Ok(())
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let extents = u64::from(self.size > 0);
        if extents == 1 && !sink(Extent::data(0, self.size)) {
            return Err(stopped());
        }
        Ok(Summary {
            size: ByteLen(self.size),
            extents,
        })
    }

    fn delta(&mut self, _sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        Err(SourceError::full("csi compares with nothing: no base is bound"))
    }
}

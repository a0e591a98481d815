//! The source of a CSI snapshot.
//!
//! ```text
//!   delta ──fails──► (the consumer asks) allocated ──fails──► the whole device
//!       └ notice                                      └ notice
//! ```
//!
//! Owns: what is asked when, and what is told where no answer can be had. Must not: judge an answer (`answer` does).

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::answer::{Answer, Doubt, Next, Patience};
use super::notices::Notices;
use super::service::{MetadataCall, MetadataQuestion, MetadataService, MetadataStream};
use super::snapshot::CsiSnapshot;
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

/// How often a wait looks whether it is to end: a handler of signals sets a flag and wakes nobody.
const TICK: Duration = Duration::from_millis(100);

/// Asks whether everything is to stop.
#[derive(Clone)]
pub struct StopCheck(Arc<dyn Fn() -> bool + Send + Sync>);

impl StopCheck {
    /// By this question, which is asked several times a second.
    pub fn new(is_stopped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_stopped))
    }

    fn is_stopped(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for StopCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopCheck")
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
            refused: None,
        }
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

    /// Asks until the answer is complete. Whether the service told the size of the volume.
    fn ask(
        &mut self,
        question: &MetadataQuestion,
        sink: &mut ExtentSink<'_>,
    ) -> Result<bool, SourceError> {
        self.check_runtime()?;
        let mut answer = Answer::new(
            self.size,
            Patience {
                attempts: self.options.attempts,
                back_off: self.options.back_off,
            },
        );
        let mut deadline = Instant::now() + self.options.no_progress;
        let thrown_away = |Doubt(reason)| SourceError::full(format!("{question}: {reason}"));
        loop {
            let offset = answer.begin().map_err(thrown_away)?;
            let call = MetadataCall {
                question: question.clone(),
                starting_offset: offset,
                max_results: self.options.max_results,
            };
            let next = self.call(&call, &mut answer, &mut deadline, sink);
            match next.map_err(|failure| match failure {
                Failure::Doubt(doubt) => thrown_away(doubt),
                Failure::Stopped => stopped(),
            })? {
                Next::Complete => break,
                Next::Call { wait, renew } => {
                    if renew {
                        self.service.renew();
                    }
                    self.rest(wait)?;
                }
            }
        }
        self.finish(question, answer, sink)
    }

    fn finish(
        &self,
        question: &MetadataQuestion,
        answer: Answer,
        sink: &mut ExtentSink<'_>,
    ) -> Result<bool, SourceError> {
        let knows_capacity = answer.capacity().is_some();
        let mut told = Vec::new();
        if let Some(capacity) = answer.finish(&mut told) {
            let size = self.size;
            self.notices.add(format!(
                "{question}: the driver knows {capacity} bytes of {size}; the rest is read"
            ));
        }
        pass(&mut told, sink)?;
        Ok(knows_capacity)
    }

    /// One call to its end.
    fn call(
        &mut self,
        call: &MetadataCall,
        answer: &mut Answer,
        deadline: &mut Instant,
        sink: &mut ExtentSink<'_>,
    ) -> Result<Next, Failure> {
        let runtime = self.runtime.clone();
        let patience = self.options.no_progress;
        let wait = |ended| match ended {
            Waited::Late => Failure::Doubt(Doubt(format!("nothing new for {patience:?}"))),
            Waited::Stopped => Failure::Stopped,
        };
        let stop = self.stop.clone();
        let started = within(&runtime, *deadline, &stop, self.service.call(call));
        let mut stream = match started.map_err(wait)? {
            Ok(stream) => stream,
            Err(error) => return Ok(answer.failed(&error)?),
        };
        let mut told = Vec::new();
        loop {
            match within(&runtime, *deadline, &stop, stream.next()).map_err(wait)? {
                Ok(Some(message)) => {
                    if answer.message(&message, &mut told)? {
                        *deadline = Instant::now() + patience;
                    }
                    pass(&mut told, sink).map_err(|_| Failure::Stopped)?;
                }
                Ok(None) => {
                    // Whoever confirms looks at all the rest again.
                    *deadline = Instant::now() + patience;
                    return Ok(answer.ended());
                }
                Err(error) => return Ok(answer.failed(&error)?),
            }
        }
    }

    /// Waits before the next call.
    fn rest(&self, wait: Duration) -> Result<(), SourceError> {
        let until = Instant::now() + wait;
        match within(
            &self.runtime,
            until,
            &self.stop,
            std::future::pending::<()>(),
        ) {
            Err(Waited::Stopped) => Err(stopped()),
            Err(Waited::Late) | Ok(()) => Ok(()),
        }
    }

    /// Blocking on a runtime from within, or on one that nobody drives, would panic or never end.
    fn check_runtime(&self) -> Result<(), SourceError> {
        if Handle::try_current().is_ok()
            || self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
        {
            return Err(SourceError::full(
                "a driver is asked from outside of a runtime with several threads",
            ));
        }
        Ok(())
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

/// Why a call is not followed by another.
enum Failure {
    Doubt(Doubt),
    Stopped,
}

impl From<Doubt> for Failure {
    fn from(doubt: Doubt) -> Self {
        Self::Doubt(doubt)
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Late,
    Stopped,
}

/// Waits for `future` until `deadline`, or until it is asked to stop.
fn within<F: Future>(
    runtime: &Handle,
    deadline: Instant,
    stop: &StopCheck,
    future: F,
) -> Result<F::Output, Waited> {
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            let tick = deadline.min(Instant::now() + TICK);
            match tokio::time::timeout_at(tick.into(), future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) if stop.is_stopped() => return Err(Waited::Stopped),
                Err(_) if Instant::now() >= deadline => return Err(Waited::Late),
                Err(_) => {}
            }
        }
    })
}

/// Passes on what is final.
fn pass(told: &mut Vec<Extent>, sink: &mut ExtentSink<'_>) -> Result<(), SourceError> {
    for extent in told.drain(..) {
        if !sink(extent) {
            return Err(stopped());
        }
    }
    Ok(())
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

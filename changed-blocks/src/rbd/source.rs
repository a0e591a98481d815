//! The source of RBD snapshots: what a snapshot holds, and what changed since an older one.
//!
//! ```text
//!   image@s1 ──────────► image@s2             same image: diff from s1 to s2
//!
//!   origin@s1 (trash) ─► origin@s2 (trash)    ceph-csi: diff of the origin, and what the clones have of their own
//!       └ clone 1 = base     └ clone 2 = target
//! ```
//!
//! Owns: the binding of a target to its base and the answers. Must not: read data, or ask object maps unless told to.
//!
//! What librbd does not tell is found here: a clone shrunk and grown again, an object of no length that hides the parent, an
//! error of a parent. Whatever is in doubt is a full backup with the reason.

mod answer;
mod pair;
mod record;
mod windows;

use std::sync::Arc;

use super::library::{Access, Cluster, Image, RbdError};
use super::name::RbdName;
use crate::extent::ByteLen;
use crate::identity::Identity;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, SourceErrorKind,
    Summary, Trust,
};
use answer::{Allocation, Delta};
use pair::Pair;
use record::Record;

/// Name of the source, and of its facts in records.
pub const NAME: &str = "rbd";

/// How a source asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RbdOptions {
    /// Ask the object maps instead of the objects: faster, in whole objects, and [`Trust::Unverified`], because maps lost
    /// changes in releases of both librbd and the kernel client, and after every rollback still do in Ceph 16.2.15. Maps
    /// that are marked invalid are not asked.
    pub whole_object: bool,
}

/// A snapshot of an image, or the head of one.
#[derive(Debug)]
pub struct RbdSource {
    cluster: Cluster,
    image: Arc<Image>,
    size: u64,
    object_size: u64,
    record: Option<Record>,
    options: RbdOptions,
    bound: Option<Bound>,
}

/// What a delta is taken against: the record, from which the pair is found anew for each delta but the first.
#[derive(Debug)]
struct Bound {
    base: Record,
    pair: Option<Pair>,
}

impl RbdSource {
    /// Opens the target. A head can be asked what it holds, but has no identity and no delta: it is not frozen.
    ///
    /// # Errors
    /// `GiveUp` where it cannot be opened, `Retry` where the cluster did not answer in time.
    pub fn open(
        cluster: &Cluster,
        name: &RbdName,
        options: RbdOptions,
    ) -> Result<Self, SourceError> {
        let image = name
            .open(cluster, Access::Read)
            .map_err(|error| failed(SourceErrorKind::GiveUp, error))?;
        Self::of_image(image, options)
    }

    /// The source of an image that is open already: what is read through it and what the source tells are of the same
    /// snapshot, whatever its name means meanwhile.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_image(image: Arc<Image>, options: RbdOptions) -> Result<Self, SourceError> {
        Self::of(image, options).map_err(|error| failed(SourceErrorKind::GiveUp, error))
    }

    fn of(image: Arc<Image>, options: RbdOptions) -> Result<Self, RbdError> {
        let record = match image.snapshot() {
            Some(snapshot) => Some(Record::of(&image, snapshot)?),
            None => None,
        };
        Ok(Self {
            cluster: image.pool().cluster().clone(),
            size: image.size()?,
            object_size: image.object_size()?,
            record,
            image,
            options,
            bound: None,
        })
    }

    /// Size of the target in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open target, for reading it.
    #[must_use]
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Whoever names a base by hand must name the recorded one.
    fn check_named(&self, named: &str, base: &Record) -> Result<(), SourceError> {
        let name: RbdName = named
            .parse()
            .map_err(|error| SourceError::full(format!("take {named} as the base: {error}")))?;
        let image = name
            .open(&self.cluster, Access::Read)
            .map_err(|error| failed(SourceErrorKind::FullBackup, error))?;
        let snapshot = image.snapshot().ok_or_else(|| {
            SourceError::full(format!("take {named} as the base: it is no snapshot"))
        })?;
        let record = Record::of(&image, snapshot)
            .map_err(|error| failed(SourceErrorKind::FullBackup, error))?;
        match base.identity().difference(&record.identity()) {
            None => Ok(()),
            Some(difference) => Err(SourceError::full(format!(
                "take {named} as the base: of the recorded one {difference}"
            ))),
        }
    }

    fn pair(&self, base: &Record, opened: Option<&Arc<Image>>) -> Result<Pair, SourceError> {
        let target = self.record.as_ref().ok_or_else(|| {
            SourceError::full("the head of an image is not frozen: name a snapshot")
        })?;
        Pair::find(&self.cluster, base, target, opened)
    }
}

impl ChangedBlocks for RbdSource {
    fn capabilities(&self) -> Capabilities {
        let (granularity, trust) = if self.options.whole_object {
            (self.object_size, Trust::Unverified)
        } else {
            (1, Trust::Verified)
        };
        Capabilities {
            name: NAME,
            granularity: ByteLen(granularity),
            precision: Precision::Superset,
            needs_base: true,
            zero_extents: true,
            discard_unstable: false,
            trust,
        }
    }

    fn identity(&self) -> Option<Identity> {
        self.record.as_ref().map(Record::identity)
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.bound = None;
        let record = Record::from_identity(base.record)
            .map_err(|fault| SourceError::full(format!("the record of {}: {fault}", base.point)))?;
        if let Some(named) = base.named {
            self.check_named(named, &record)?;
        }
        // Found here so that a run says at its start why it is a full one.
        let pair = Some(self.pair(&record, Some(&self.image))?);
        self.bound = Some(Bound { base: record, pair });
        Ok(())
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let allocation = Allocation::of(&self.cluster, &self.image, self.options.whole_object)?;
        windows::stream(self.size, &|window| allocation.window(window), sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let found = self.bound.as_mut().and_then(|bound| bound.pair.take());
        let bound = self
            .bound
            .as_ref()
            .ok_or_else(|| SourceError::full("rbd compares with nothing: no base is bound"))?;
        let pair = match found {
            Some(pair) => pair,
            None => self.pair(&bound.base, Some(&self.image))?,
        };
        let delta = Delta::of(&pair, self.options.whole_object)?;
        let summary = windows::stream(self.size, &|window| delta.window(window), sink)?;
        // A snapshot that went away meanwhile took the difference with it, and the answer is silently too short.
        let after = self.pair(&bound.base, None)?;
        match pair.difference(&after) {
            None => Ok(summary),
            Some(what) => Err(SourceError::full(format!("{what} while it was compared"))),
        }
    }
}

/// An error of the library as what the caller must do; `kind` unless waiting helps.
fn failed(kind: SourceErrorKind, error: RbdError) -> SourceError {
    let kind = if error.is_passing() {
        SourceErrorKind::Retry
    } else {
        kind
    };
    let message = error.to_string();
    let failure = SourceError::new(kind, message);
    match error {
        RbdError::Failed { source, .. } => failure.because(source),
        RbdError::Missing { source, .. } => failure.because(std::io::Error::other(source)),
        RbdError::TooOld { .. } | RbdError::Name { .. } => failure,
    }
}

/// The same for questions whose answer a full backup does without.
fn doubt(error: RbdError) -> SourceError {
    failed(SourceErrorKind::FullBackup, error)
}

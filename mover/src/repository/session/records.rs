//! Bodies of the session records: `open`, abort marker and heartbeat.
//!
//! Owns: their fields (`FORMAT.md`, "Session records") and how they are sealed. Must not: decide anything.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::origin::Origin;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::format::record::{open_record, seal_record};
use crate::repository::ids::{SegmentId, SessionId, SessionKey, name};

/// A slot of at most this size holds an abort marker, a larger one a manifest: a listing tells them apart.
pub const MAX_ABORT_LEN: u64 = 256;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// Writes a point.
    #[n(0)]
    Backup,
    /// Reads points into a target.
    #[n(1)]
    Restore,
    /// Reads points to check them.
    #[n(2)]
    Verify,
}

/// Start record of a session; written once, never again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Open {
    /// What the session does.
    #[n(0)]
    pub kind: Kind,
    /// Points whose data it may use.
    #[n(1)]
    pub pins: Vec<SessionKey>,
    /// Sessions whose data it takes over, theirs included.
    #[n(2)]
    pub adopts: Vec<SessionKey>,
    /// Name of the volume, for people.
    #[n(3)]
    pub volume: String,
    /// Which process it is.
    #[n(4)]
    pub origin: Origin,
}

/// Content of a slot that will never hold a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Abort {
    /// The session or collector run that decided it.
    #[n(0)]
    pub by: SessionId,
}

/// A sign of life; carries no safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Beat {
    /// Always 1: what tells is the time of the object.
    #[n(0)]
    pub version: u64,
}

/// The identity under which records of a session are sealed.
#[must_use]
pub fn record_id(session: SessionId) -> SegmentId {
    SegmentId { session, number: 0 }
}

/// Seals a record for `name`.
pub(crate) fn seal<T: Encode<()>>(
    repository: &Repository,
    class: Class,
    session: SessionId,
    name: &str,
    record: &T,
) -> Result<Bytes> {
    let body = minicbor::to_vec(record).map_err(|cause| {
        Error::new(ErrorKind::Internal, "encode a record")
            .object(name)
            .source(cause)
    })?;
    seal_record(&repository.keys, class, record_id(session), name, &body, 0)
}

/// Reads and checks a record.
pub(crate) fn get<T>(
    repository: &Repository,
    class: Class,
    session: SessionId,
    name: &str,
) -> Result<T>
where
    T: for<'b> Decode<'b, ()>,
{
    let object = repository.store.get(name)?;
    let body = open_record(&repository.keys, class, record_id(session), name, &object)?;
    minicbor::decode(&body).map_err(|cause| {
        Error::new(ErrorKind::Corrupt, "decode a record")
            .object(name)
            .source(cause)
    })
}

/// Reads the start record of a session; `None` where it is gone.
pub(crate) fn get_open(repository: &Repository, key: &SessionKey) -> Result<Option<Open>> {
    absent_is_none(get(repository, Class::Open, key.session, &name::open(key)))
}

/// Reads the abort marker in a slot; `None` where the slot is empty. A manifest there is an error of kind `Corrupt`.
pub(crate) fn get_abort(repository: &Repository, key: &SessionKey) -> Result<Option<Abort>> {
    absent_is_none(get(repository, Class::Abort, key.session, &name::slot(key)))
}

/// Turns `NotFound` into `None`.
pub(crate) fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

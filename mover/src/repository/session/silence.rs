//! How long a session has been silent, by the store's own clock.
//!
//! Owns: which objects are signs of life. Must not: judge (`adopt`, `gc::fencing`). Silence carries no safety.

use std::time::SystemTime;

use crate::error::Result;
use crate::repository::ids::{SessionId, name, random};
use crate::repository::store::{Store, discard};

/// The newest change of a session's start record, heartbeat or any of its segments. Looking ends at the first one after
/// `recent`: then the session is not silent, whatever else there is.
pub(crate) fn last_change(
    store: &dyn Store,
    open: &str,
    session: SessionId,
    recent: Option<SystemTime>,
) -> Result<Option<SystemTime>> {
    let mut newest: Option<SystemTime> = None;
    for object in [open, &name::beat(session)] {
        newest = newest.max(store.head(object)?.and_then(|info| info.modified));
    }
    for prefix in [
        name::segments_of(session),
        format!("{}{session}/", name::MAP),
    ] {
        if newest.is_some() && newest > recent {
            return Ok(newest);
        }
        store.list(&prefix, &mut |page| {
            newest = page.iter().fold(newest, |at, info| at.max(info.modified));
            Ok(())
        })?;
    }
    Ok(newest)
}

/// The store's clock, read off a heartbeat made and removed on the spot, or left to a collector by a user who may not delete.
pub(crate) fn store_now(store: &dyn Store) -> Result<Option<SystemTime>> {
    let probe = name::beat(SessionId(random()));
    store.put(&probe, bytes::Bytes::from_static(b"clock"))?;
    let now = store.head(&probe)?.and_then(|info| info.modified);
    discard(store, &probe)?;
    Ok(now)
}

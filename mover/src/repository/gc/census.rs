//! Who is at work: the second step of a run, from the listings to what must be kept.
//!
//! ```text
//!   in flight = start record without a slot        ─ GET its body ─► keep it, what it adopts, and what it pins
//!   suspect   = copy without start record or slot  ─ look again   ─► damaged point, or purged meanwhile
//! ```
//!
//! Owns: those two rules. Must not: guess: whatever cannot be explained by this view alone ends the run.

use std::collections::HashSet;
use std::fmt;

use super::controls::{Row, Seen};
use super::marking::Marking;
use super::view::View;
use crate::repository::ids::{ReaderKey, SessionId, SessionKey, name};

/// What a start record is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpenKey {
    /// That of a writing session.
    Writer(SessionKey),
    /// That of a reading session.
    Reader(ReaderKey),
}

impl OpenKey {
    /// The name of the start record.
    #[must_use]
    pub fn open_name(&self) -> String {
        match self {
            Self::Writer(key) => name::open(key),
            Self::Reader(key) => name::reader(key.volume, key.session),
        }
    }

    /// The name of the slot, where an abort marker fences the session.
    #[must_use]
    pub fn slot_name(&self) -> String {
        match self {
            Self::Writer(key) => name::slot(key),
            Self::Reader(key) => name::reader_slot(key),
        }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        match self {
            Self::Writer(key) => key.session,
            Self::Reader(key) => key.session,
        }
    }
}

/// What decides between commit and abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The slot, by a create-only PUT. Also right without create-only PUT as long as nobody fences or adopts: then each
    /// key has one writer, and every session without a manifest counts as alive.
    Slot,
    /// A register beside the store that can compare and swap, such as a record of the cluster. An aborted session has
    /// a forget order instead of a marker in its slot.
    Register,
}

/// Another run is ahead of this one, or the store changed under it: nothing may be concluded, so begin again with new
/// listings. If that repeats without anybody else at work, the named object is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOver {
    /// The object that is not as this run's view says.
    pub object: String,
}

impl fmt::Display for StartOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` changed while the repository was listed",
            self.object
        )
    }
}

/// A second look at the objects of one suspect, one request each, in the order of these fields. The order tells a loss
/// from a purge: that deletes the copy first, so a copy that is there at the end was there all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Its forget order is there.
    pub tomb: bool,
    /// Its start record is there.
    pub open: bool,
    /// Its slot holds a manifest.
    pub manifest: bool,
    /// The copy is there, asked last.
    pub copy: bool,
}

/// The listings of a run, and what was read because of them.
#[derive(Debug)]
pub struct Census {
    pub(super) view: View,
    pub(super) decided_by: DecidedBy,
    pub(super) keep: HashSet<SessionId>,
    pub(super) pins: HashSet<SessionKey>,
}

impl Census {
    pub(super) fn new(view: View, decided_by: DecidedBy) -> Self {
        Self {
            view,
            decided_by,
            keep: HashSet::new(),
            pins: HashSet::new(),
        }
    }

    /// Sessions that are neither committed nor aborted: each body must be given to [`hold`](Self::hold).
    #[must_use]
    pub fn in_flight(&self) -> Vec<OpenKey> {
        let controls = &self.view.controls;
        let writers = controls.rows().iter();
        let readers = controls.readers();
        writers
            .filter(|row| self.is_in_flight(row.seen))
            .map(|row| OpenKey::Writer(row.key))
            .chain(
                readers
                    .filter(|(_, seen)| seen.has(Seen::OPEN) && !seen.has(Seen::ABORT))
                    .map(|(key, _)| OpenKey::Reader(key)),
            )
            .collect()
    }

    /// Sessions in flight that may be fenced if they are silent: not those with a copy, which committed and whose manifest
    /// the store lost.
    #[must_use]
    pub fn fenceable(&self) -> Vec<OpenKey> {
        let mut open = self.in_flight();
        open.retain(|key| match key {
            OpenKey::Reader(_) => true,
            OpenKey::Writer(key) => {
                let row = self.view.controls.get(key);
                !row.is_some_and(|row| row.seen.has(Seen::COPY))
            }
        });
        open
    }

    /// Forgotten points that the store took the slot of. They look like sessions at work and are kept as such: only a person can say that
    /// nobody writes them any more. Certain for those whose start record was read: a purge removes that before the slot.
    #[must_use]
    pub fn without_slot(&self) -> Vec<SessionKey> {
        let rows = self.view.controls.rows().iter();
        rows.filter(|row| self.is_in_flight(row.seen) && row.seen.has(Seen::TOMB))
            .map(|row| row.key)
            .collect()
    }

    /// Points that look damaged: each must be looked up again and given to [`examine`](Self::examine).
    #[must_use]
    pub fn suspects(&self) -> Vec<SessionKey> {
        let rows = self.view.controls.rows().iter();
        rows.filter(|row| is_suspect(row.seen))
            .map(|row| row.key)
            .collect()
    }

    /// Takes the body of a session in flight: the points it pins and the sessions it adopts. `None` where the record is
    /// gone.
    ///
    /// # Errors
    /// [`StartOver`] where the record of a writer is gone: it must never be read as "pins nothing". A reader's may be, it
    /// finished, and nobody builds on a reader.
    pub fn hold(
        &mut self,
        key: OpenKey,
        body: Option<(&[SessionKey], &[SessionKey])>,
    ) -> Result<(), StartOver> {
        let seen = match &key {
            OpenKey::Writer(key) => {
                let row = self.view.controls.get_mut(key);
                row.map(|row| &mut row.seen)
            }
            OpenKey::Reader(key) => self.view.controls.reader_mut(key),
        };
        match (seen, body, key) {
            (Some(seen), Some((pins, adopts)), _) => {
                seen.add(Seen::READ);
                self.keep.insert(key.session());
                self.keep.extend(adopts.iter().map(|key| key.session));
                self.pins.extend(pins);
                Ok(())
            }
            (Some(seen), None, OpenKey::Reader(_)) => {
                seen.add(Seen::READ);
                Ok(())
            }
            _ => Err(StartOver {
                object: key.open_name(),
            }),
        }
    }

    /// Takes the second look at a suspect.
    ///
    /// # Errors
    /// [`StartOver`] where it is forgotten by now.
    pub fn examine(&mut self, key: &SessionKey, found: Lookup) -> Result<(), StartOver> {
        let changed = StartOver {
            object: name::copy(key),
        };
        let row = self
            .view
            .controls
            .get_mut(key)
            .ok_or_else(|| changed.clone())?;
        match found {
            Lookup { copy: false, .. } => row.seen.add(Seen::SETTLED),
            Lookup { tomb: true, .. } => return Err(changed),
            // It began after the listings of start records.
            Lookup {
                open: true,
                manifest: true,
                ..
            } => row.seen.add(Seen::SETTLED),
            _ => {
                row.seen.add(Seen::LOST);
                if !found.open && !found.manifest {
                    row.seen.add(Seen::BARE);
                }
            }
        }
        Ok(())
    }

    /// Ends this step.
    ///
    /// # Errors
    /// [`StartOver`] where a body or a second look is missing: without it nothing may be called dead.
    pub fn finish(self) -> Result<Marking, StartOver> {
        let unread = self.in_flight().into_iter().find(|key| !self.was_read(key));
        if let Some(key) = unread {
            return Err(StartOver {
                object: key.open_name(),
            });
        }
        let mut rows = self.view.controls.rows().iter();
        let unseen = rows.find(|row| {
            is_suspect(row.seen) && !row.seen.has(Seen::LOST) && !row.seen.has(Seen::SETTLED)
        });
        match unseen {
            Some(row) => Err(StartOver {
                object: name::copy(&row.key),
            }),
            None => Ok(Marking::new(self)),
        }
    }

    fn is_in_flight(&self, seen: Seen) -> bool {
        let decided = match self.decided_by {
            DecidedBy::Slot => seen.has(Seen::ABORT),
            DecidedBy::Register => seen.has(Seen::TOMB),
        };
        seen.has(Seen::OPEN) && !seen.has(Seen::MANIFEST) && !decided
    }

    fn was_read(&self, key: &OpenKey) -> bool {
        let controls = &self.view.controls;
        match key {
            OpenKey::Writer(key) => controls
                .get(key)
                .is_some_and(|row: &Row| row.seen.has(Seen::READ)),
            OpenKey::Reader(key) => controls
                .readers()
                .any(|(reader, seen)| reader == *key && seen.has(Seen::READ)),
        }
    }
}

/// The store lost something of a point, or so it looks.
fn is_suspect(seen: Seen) -> bool {
    seen.has(Seen::COPY)
        && !seen.has(Seen::TOMB)
        && !(seen.has(Seen::OPEN) && seen.has(Seen::MANIFEST))
}

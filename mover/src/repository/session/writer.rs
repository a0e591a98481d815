//! A writing session, from its start record to the acknowledged point.
//!
//! Owns: the order of the protocol's requests (gc-protocol 4.1). Must not: move data. Nothing is undone on failure: a
//! session without a commit is adopted by the next run of the same volume, or fenced and collected.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::adopt::{self, Adoption, Candidate, Takeover};
use super::origin::Origin;
use super::points::{Catalog, Point};
use super::protect;
use super::reader::{check_held, check_pin};
use super::records::{Abort, Beat, Kind, Open, seal};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::format::manifest::Manifest;
use crate::repository::ids::{Sequence, SessionId, SessionKey, VolumeId, name};
use crate::repository::store::{Created, discard};

/// Session ids tried before a store that does not answer is given up.
pub(super) const OPEN_TRIES: u32 = 6;
/// Pause before the second try; each further one waits as much longer.
pub(super) const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// A session that will commit one point.
#[derive(Debug)]
pub struct WriterSession {
    repository: Arc<Repository>,
    key: SessionKey,
    pins: Vec<SessionKey>,
    adoption: Adoption,
    /// The sealed heartbeat, once one was sent.
    beat: OnceLock<Bytes>,
}

/// What a new session builds on.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    /// Name of the volume.
    pub volume: &'a str,
    /// Every point whose data may be referenced.
    pub pins: &'a [SessionKey],
    /// Position in the volume's history.
    pub sequence: Sequence,
    /// Which silent sessions may be taken over.
    pub takeover: Takeover,
}

impl WriterSession {
    /// Opens a session: pins first, checks them after, then takes over what dead sessions of the volume left. `catalog` is
    /// a listing of the volume; any staleness is fine.
    ///
    /// # Errors
    /// `NotFound` where a pinned point was forgotten or removed meanwhile: choose another parent and begin again. Otherwise
    /// what the store answers.
    pub fn begin(
        repository: &Arc<Repository>,
        begin: &Begin<'_>,
        catalog: &Catalog,
    ) -> Result<Self> {
        let volume = repository.keys.volume_id(begin.volume);
        let candidates = adopt::candidates(repository, catalog, &begin.takeover)?;
        let key = put_open(repository, volume, begin, &candidates)?;
        let mut session = Self {
            repository: Arc::clone(repository),
            key,
            pins: begin.pins.to_vec(),
            adoption: Adoption::default(),
            beat: OnceLock::new(),
        };
        if let Err(error) = session
            .pins
            .iter()
            .try_for_each(|pin| check_pin(repository, pin))
        {
            session.fence_self();
            return Err(error);
        }
        session.adoption = adopt::take_over(repository, key.session, candidates)?;
        Ok(session)
    }

    /// Opens a session that will commit a damaged point again, at the same place of the volume's history. It takes over nothing.
    ///
    /// # Errors
    /// `NotFound` where the point was forgotten or purged meanwhile; otherwise what the store answers.
    pub fn begin_again(repository: &Arc<Repository>, point: &Point) -> Result<Self> {
        let pins = [point.key];
        let begin = Begin {
            volume: &point.manifest.volume,
            pins: &pins,
            sequence: point.key.sequence,
            takeover: Takeover {
                after: Duration::MAX,
                here: Origin::current(),
                given_up: None,
            },
        };
        let session = Self {
            repository: Arc::clone(repository),
            key: put_open(repository, point.key.volume, &begin, &[])?,
            pins: pins.to_vec(),
            adoption: Adoption::default(),
            beat: OnceLock::new(),
        };
        if let Err(error) = check_held(repository, point) {
            session.fence_self();
            return Err(error);
        }
        Ok(session)
    }

    /// What the session's objects are named by.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// The points it pinned.
    #[must_use]
    pub fn pins(&self) -> &[SessionKey] {
        &self.pins
    }

    /// What dead sessions left to it.
    #[must_use]
    pub fn adoption(&self) -> &Adoption {
        &self.adoption
    }

    /// Shows that the session lives, and learns whether it was fenced. Called every few minutes.
    ///
    /// # Errors
    /// `Fenced` where somebody took the slot. A heartbeat that fails is no error: it carries no safety.
    pub fn beat(&self) -> Result<()> {
        if let Err(error) = self.put_beat() {
            tracing::info!(%error, "miss a heartbeat");
        }
        match self.repository.store.head(&name::slot(&self.key)) {
            Ok(Some(_)) => Err(self.fenced()),
            _ => Ok(()),
        }
    }

    /// The same bytes each time: only the object's time changes, and stores may refuse to replace an object by another.
    pub(super) fn put_beat(&self) -> Result<()> {
        let (session, beat_name) = (self.key.session, name::beat(self.key.session));
        let body = match self.beat.get() {
            Some(body) => body.clone(),
            None => seal(
                &self.repository,
                Class::Beat,
                session,
                &beat_name,
                &Beat { version: 1 },
            )?,
        };
        self.repository
            .store
            .put(&beat_name, self.beat.get_or_init(|| body).clone())
    }

    /// Commits the point: every object it references must have been stored before.
    ///
    /// # Errors
    /// `Fenced` where somebody else decided the slot; otherwise the point may or may not exist, and the next run finds out.
    pub fn commit(self, manifest: Manifest) -> Result<Point> {
        let store = self.repository.store.as_ref();
        store.sync()?;
        let slot = name::slot(&self.key);
        let body = manifest.seal(&self.repository.keys)?;
        if store.create(&slot, body.clone())? == Created::Exists {
            return Err(self.fenced());
        }
        store.sync()?;
        // The slot was free because the session had been fenced and purged long ago: then nothing was committed.
        if store.head(&name::open(&self.key))?.is_none() {
            return Err(self.fenced());
        }
        self.lock(&manifest);
        self.finish(body);
        Ok(Point {
            key: self.key,
            manifest,
            status: super::points::PointStatus::Complete,
        })
    }

    /// Locks the start record, which no session has before it commits. Without it a thief can hide the point, not destroy it.
    fn lock(&self, manifest: &Manifest) {
        let committed = protect::moment(manifest.created_unix_millis);
        let locked = protect::lock_open(&self.repository, &name::open(&self.key), committed);
        if let Err(error) = locked {
            tracing::warn!(%error, "leave the start record of the point unlocked: whoever deletes it hides the point");
        }
    }

    /// What may fail without harm once the point is acknowledged: the next backup or gc adds a missing copy.
    fn finish(&self, manifest: Bytes) {
        let store = self.repository.store.as_ref();
        let copied = store
            .put(&name::copy(&self.key), manifest)
            .and_then(|()| store.sync());
        if let Err(error) = copied {
            tracing::warn!(%error, "store the second copy of the manifest; the next backup repeats it");
        }
        if self.beat.get().is_some()
            && let Err(error) = discard(store, &name::beat(self.key.session))
        {
            tracing::info!(%error, "leave a heartbeat behind; gc removes it later");
        }
    }

    /// Gives the session up at once, so that nobody waits for it.
    fn fence_self(&self) {
        let fenced = abort(&self.repository, &self.key, self.key.session);
        if let Err(error) = fenced {
            tracing::info!(%error, "leave an open session behind; gc removes it later");
        }
    }

    fn fenced(&self) -> Error {
        Error::new(ErrorKind::Fenced, "commit the point: another process took this session over")
            .object(name::slot(&self.key))
            .hint("run the backup again; if this repeats, two schedulers back up the same volume, or --takeover-after is too short")
    }
}

/// Stores a start record. It is sent once per session id and never again: one that comes back after a purge would break the
/// protocol. So after any doubt a new id is taken; what the old one may have left is an empty session.
fn put_open(
    repository: &Repository,
    volume: VolumeId,
    begin: &Begin<'_>,
    candidates: &[Candidate],
) -> Result<SessionKey> {
    let open = Open {
        kind: Kind::Backup,
        pins: begin.pins.to_vec(),
        adopts: candidates
            .iter()
            .flat_map(Candidate::with_inherited)
            .collect(),
        volume: begin.volume.to_owned(),
        origin: begin.takeover.here.clone(),
    };
    let mut tries = 1;
    loop {
        let session = SessionId::fresh();
        let key = SessionKey {
            volume,
            sequence: begin.sequence,
            session,
        };
        let open_name = name::open(&key);
        let body = seal(repository, Class::Open, session, &open_name, &open)?;
        match repository.store.put_once(&open_name, body) {
            Ok(()) => return Ok(key),
            Err(error) if error.kind() == ErrorKind::Unavailable && tries < OPEN_TRIES => {
                tracing::info!(%error, "begin again under a new session id");
                std::thread::sleep(OPEN_PAUSE * tries);
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Fills a slot with an abort marker, create-only.
pub(crate) fn abort(repository: &Repository, key: &SessionKey, by: SessionId) -> Result<Created> {
    let slot = name::slot(key);
    let marker = seal(repository, Class::Abort, key.session, &slot, &Abort { by })?;
    repository.store.create(&slot, marker)
}

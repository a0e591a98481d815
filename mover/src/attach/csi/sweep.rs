//! What earlier runs left behind, because they died: taken back at the start of the next one.
//!
//! Owns: whose journals are taken up. Must not: touch what belongs to a run that lives, or to another driver.

use std::path::Path;
use std::time::{Duration, Instant};

use super::base::Bases;
use super::driver::Driver;
use super::journal::{self, Found, Journal};
use super::options::CsiOptions;
use super::state::{Begun, Entry, Thing, Undo};
use super::undo::Back;
use crate::error::{Error, ErrorKind, Result};

/// Whether the newest point of the volume that a run backed up was made from this snapshot. `None` where nobody can tell, because
/// the run worked for another repository.
pub type IsCommitted<'a> = dyn Fn(&Begun, &str) -> Result<Option<bool>> + 'a;

/// How long one call may be repeated for what concerns another volume, and all of them together: who is about to work on a volume
/// does not wait for the troubles of others.
const FOREIGN: Duration = Duration::from_secs(5);

/// What is cleaned up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A run that works on this volume next; on a new one without.
    Work(Option<&'a str>),
    /// To remove all that is kept of this volume; of every volume without.
    Release(Option<&'a str>),
    /// Nothing else.
    Only,
}

impl Purpose<'_> {
    /// Whether this volume is the one that everything is about.
    fn is_about(self, volume: Option<&str>) -> bool {
        match self {
            Self::Work(own) => own.is_some() && own == volume,
            Self::Release(Some(own)) => volume == Some(own),
            Self::Release(None) | Self::Only => true,
        }
    }

    /// Whether a search in vain for what was made for this volume brings its end nearer: volumes that are made new have no run of
    /// their own that comes next.
    fn counts(self, volume: Option<&str>) -> bool {
        self.is_about(volume) || (self == Self::Work(None) && volume.is_none())
    }

    /// Whether no base of this volume is wanted any more, whoever it is for.
    fn releases(self, volume: Option<&str>) -> bool {
        matches!(self, Self::Release(_)) && self.is_about(volume)
    }
}

/// What becomes of what a dead run made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// All of it is known to be superfluous, or noted.
    TakeBack,
    /// Its snapshot may be the base of a point in another repository, whose next run knows.
    Undecided,
}

/// What a sweep came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// What a person should know.
    pub told: Vec<String>,
    /// What could not be taken back.
    pub stays: Vec<Stay>,
}

/// What a run left that cannot be taken back now; the next run tries again.
#[derive(Debug)]
pub struct Stay {
    /// Name of the run, or of the file of its journal.
    pub run: String,
    /// The volume that it backed up; none for one that it made.
    pub volume: Option<String>,
    /// Whether the sweep was about that volume.
    pub is_asked_for: bool,
    /// Why it stays.
    pub error: Error,
}

impl Stay {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "what run {} left behind cannot be removed yet: {}; the next run tries again",
            self.run,
            with_causes(&self.error)
        )
    }
}

/// Takes back what dead runs of this driver left. Those of the volume that the caller works on next are left to
/// [`Backup::begin`](super::Backup::begin), which holds it.
///
/// # Errors
/// `Io`, `AccessDenied` where the journals cannot be looked at.
pub fn dead_runs(
    driver: &Driver,
    options: &CsiOptions,
    purpose: Purpose<'_>,
    is_committed: &IsCommitted<'_>,
) -> Result<Swept> {
    let bases = Bases::at(options.bases(), options.locks());
    let hurried = driver.with_patience(FOREIGN);
    let mut left = FOREIGN;
    let mut swept = Swept::default();
    for found in journal::dead(&options.journals())? {
        let journal = match found {
            Found::Dead(journal) => *journal,
            Found::Unreadable(path, why) => {
                swept.stays.push(unreadable(&path, &why, purpose));
                continue;
            }
        };
        let volume = begun_volume(&journal);
        let is_own = purpose.is_about(volume.as_deref());
        let next = match purpose {
            Purpose::Work(next) => next,
            Purpose::Release(_) | Purpose::Only => None,
        };
        let is_next = next.is_some_and(|it| is_of(&journal, &driver.name, &driver.socket, it));
        if is_next || (!is_own && left.is_zero()) {
            continue;
        }
        let (started, run) = (Instant::now(), journal.session().to_owned());
        let taker = Taker {
            driver: if is_own { driver } else { &hurried },
            bases: &bases,
            purpose,
            is_committed,
        };
        match taker.take_up(journal, true) {
            Ok(told) => swept.told.extend(told),
            Err(error) => swept.stays.push(Stay {
                run,
                volume,
                is_asked_for: is_own,
                error,
            }),
        }
        if !is_own {
            left = left.saturating_sub(started.elapsed());
        }
    }
    Ok(swept)
}

/// Nobody knows whom it concerns: it stays for whoever wants everything gone.
fn unreadable(path: &Path, why: &str, purpose: Purpose<'_>) -> Stay {
    let message = format!("understand what an earlier run made: {why}");
    let error = Error::new(ErrorKind::Io, message)
        .object(path.display())
        .hint("read it, delete by hand what it names, then remove the file");
    let name = path.file_stem().unwrap_or_default();
    Stay {
        run: name.to_string_lossy().into_owned(),
        volume: None,
        is_asked_for: purpose.is_about(None),
        error,
    }
}

/// The same for the one volume that the caller holds and works on next. Whatever stays of an earlier run keeps the next one from
/// beginning: it would leave as much again.
///
/// # Errors
/// What keeps something of an earlier run from being taken back.
pub(super) fn dead_runs_of(
    driver: &Driver,
    options: &CsiOptions,
    volume: &str,
    is_committed: &IsCommitted<'_>,
) -> Result<Vec<String>> {
    let bases = Bases::at(options.bases(), options.locks());
    let taker = Taker {
        driver,
        bases: &bases,
        purpose: Purpose::Work(Some(volume)),
        is_committed,
    };
    let (mut told, mut stays) = (Vec::new(), None);
    for found in journal::dead(&options.journals())? {
        if let Found::Dead(journal) = found
            && is_of(&journal, &driver.name, &driver.socket, volume)
        {
            let run = journal.session().to_owned();
            match taker.take_up(*journal, false) {
                Ok(text) => told.extend(text),
                Err(error) => {
                    tracing::warn!(run, error = with_causes(&error), "it stays");
                    stays.get_or_insert((run, error));
                }
            }
        }
    }
    match stays {
        None => Ok(told),
        Some((run, error)) => Err(not_begun(&run, error)),
    }
}

fn not_begun(run: &str, error: Error) -> Error {
    let what = "nothing new is made while something of an earlier run is left";
    let hint = match error.hint_text() {
        Some(hint) => format!("{hint}; {what}"),
        None => format!("look at the log of the driver, then run again: {what}"),
    };
    let message = format!("begin before what run {run} left behind is removed");
    error.context(message).hint(hint)
}

fn is_of(journal: &Journal, driver: &str, socket: &Path, volume: &str) -> bool {
    journal.state().begun.as_ref().is_some_and(|begun| {
        begun.driver == driver && begun.socket == socket && begun.volume.as_deref() == Some(volume)
    })
}

fn begun_volume(journal: &Journal) -> Option<String> {
    let begun = journal.state().begun.as_ref();
    begun.and_then(|begun| begun.volume.clone())
}

/// Takes up journals.
struct Taker<'a> {
    driver: &'a Driver,
    bases: &'a Bases,
    purpose: Purpose<'a>,
    is_committed: &'a IsCommitted<'a>,
}

impl Taker<'_> {
    fn take_up(&self, mut journal: Journal, locks: bool) -> Result<Vec<String>> {
        let driver = self.driver;
        let Some(begun) = journal.state().begun.clone() else {
            // It died before its first line: there is nothing.
            return journal.end().map(|()| Vec::new());
        };
        if begun.driver != driver.name || begun.socket != driver.socket {
            return Ok(Vec::from([elsewhere(&begun)]));
        }
        let _lock = match &begun.volume {
            Some(volume) if locks => match self.bases.lock(&begun.driver, &begun.socket, volume) {
                // Whoever works on it looks when it holds the volume, and nobody was asked to remove it.
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        && !self.purpose.releases(Some(volume)) =>
                {
                    return Ok(Vec::new());
                }
                lock => Some(lock?),
            },
            _ => None,
        };
        let kept = journal.state().kept_volume.clone();
        let releases = self.purpose.releases(begun.volume.as_deref());
        let fate = adopt_base(
            self.bases,
            &mut journal,
            &begun,
            releases,
            self.is_committed,
        );
        let back = Back {
            driver,
            bases: self.bases,
            stop: None,
            counts: self.purpose.counts(begun.volume.as_deref()),
            tells_folders: matches!(self.purpose, Purpose::Work(_)),
            is_own: false,
        };
        if !matches!(fate, Ok(Fate::TakeBack)) {
            let mut told = back.clone_of(&mut journal)?;
            fate?;
            told.push(undecided(&begun));
            return Ok(told);
        }
        let undo = journal.state().next_undo();
        let left = undo.is_some_and(|undo| !matches!(undo, Undo::RemoveFolder(_)));
        let mut told = back.all(journal)?;
        tracing::info!(
            driver = driver.name,
            "removed what a run that died left behind"
        );
        told.extend(match (kept, left) {
            (Some(volume), _) => Some(format!(
                "an earlier restore was complete when it died: its volume is {volume}"
            )),
            (None, true) => Some("removed what an earlier run left behind when it died".to_owned()),
            (None, false) => None,
        });
        Ok(told)
    }
}

fn elsewhere(begun: &Begun) -> String {
    format!(
        "a run that died left something of {} behind: `snaphaul csi release --csi-socket {}` removes it",
        begun.driver,
        begun.socket.display()
    )
}

fn undecided(begun: &Begun) -> String {
    let volume = begun.volume.as_deref().unwrap_or_default();
    format!(
        "a run that died left a snapshot of {volume}, which the newest point of {} in another repository may need: the next \
         backup to repository {} decides, `snaphaul csi release {volume} --csi-socket {}` removes it",
        begun.name,
        begun.repository,
        begun.socket.display()
    )
}

/// A run that died between its commit and the note of its base: the point is there, and its snapshot is the base.
fn adopt_base(
    bases: &Bases,
    journal: &mut Journal,
    begun: &Begun,
    releases: bool,
    is_committed: &IsCommitted<'_>,
) -> Result<Fate> {
    let state = journal.state();
    let Thing::Made(snapshot) = state.snapshot.clone() else {
        return Ok(Fate::TakeBack);
    };
    // A snapshot that is not wanted any more has been judged before; one that no device was made of is in no point.
    if !begun.keeps_base || !state.had_device || state.base_wanted || state.base_superseded {
        return Ok(Fate::TakeBack);
    }
    match is_committed(begun, &snapshot)? {
        Some(false) => Ok(Fate::TakeBack),
        None if releases => Ok(Fate::TakeBack),
        None => Ok(Fate::Undecided),
        Some(true) => {
            let noted = bases.find(begun)?.map(|base| base.snapshot);
            // The note may be of this very snapshot, found again where the notes were lost.
            let old = noted.filter(|old| *old != snapshot);
            journal.write(&Entry::KeepBase { old })?;
            Ok(Fate::TakeBack)
        }
    }
}

/// An error in one line: its causes, and what to do about it.
pub(crate) fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!(" ({hint})"));
    }
    text
}

#[cfg(test)]
mod tests;

//! What earlier runs left behind, because they died: taken back at the start of the next one.
//!
//! Owns: whose journals are taken up. Must not: touch what belongs to a run that lives, or to another driver.

use super::base::{Bases, KeptBase};
use super::driver::Driver;
use super::journal::{self, Found, Journal};
use super::options::CsiOptions;
use super::state::{Begun, Entry, Thing};
use super::undo;
use crate::error::{Error, ErrorKind, Result};

/// Whether the newest point of the volume that a run backed up was made from this snapshot. `None` where nobody can tell.
pub type IsCommitted<'a> = dyn Fn(&Begun, &str) -> Result<Option<bool>> + 'a;

/// Takes back what dead runs of this driver left, and says what a person should know.
///
/// # Errors
/// `Io`, `AccessDenied` where the journals cannot be looked at. What cannot be taken back now is told, and tried again by the
/// next run.
pub fn dead_runs(
    driver: &Driver,
    options: &CsiOptions,
    is_committed: &IsCommitted<'_>,
) -> Result<Vec<String>> {
    let bases = Bases::at(options.bases(), options.locks());
    let mut told = Vec::new();
    for found in journal::dead(&options.journals())? {
        let journal = match found {
            Found::Dead(journal) => *journal,
            Found::Unreadable(path, why) => {
                told.push(format!(
                    "{} tells what an earlier run made, and cannot be used: {why}",
                    path.display()
                ));
                continue;
            }
        };
        let session = journal.session().to_owned();
        match take_up(driver, &bases, journal, is_committed) {
            Ok(None) => {}
            Ok(Some(text)) => told.push(text),
            Err(error) => told.push(format!(
                "what run {session} left behind cannot be removed yet: {}; the next run tries again",
                with_causes(&error)
            )),
        }
    }
    Ok(told)
}

fn take_up(
    driver: &Driver,
    bases: &Bases,
    mut journal: Journal,
    is_committed: &IsCommitted<'_>,
) -> Result<Option<String>> {
    let Some(begun) = journal.state().begun.clone() else {
        // It died before its first line: there is nothing.
        return journal.end().map(|()| None);
    };
    if begun.driver != driver.name || begun.socket != driver.socket {
        return Ok(Some(format!(
            "a run that died left something of {} behind: `snaphaul csi release --csi-socket {}` removes it",
            begun.driver,
            begun.socket.display()
        )));
    }
    let _lock = match &begun.volume {
        None => None,
        Some(volume) => match bases.lock(&begun.driver, &begun.socket, volume) {
            // Whoever works on it swept before.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(None),
            lock => Some(lock?),
        },
    };
    let kept = journal.state().kept_volume.clone();
    adopt_base(bases, &mut journal, &begun, is_committed)?;
    let left = journal.state().next_undo().is_some();
    undo::all(driver, bases, journal)?;
    tracing::info!(
        driver = driver.name,
        "removed what a run that died left behind"
    );
    Ok(match (kept, left) {
        (Some(volume), _) => Some(format!(
            "an earlier restore was complete when it died: its volume is {volume}"
        )),
        (None, true) => Some("removed what an earlier run left behind when it died".to_owned()),
        (None, false) => None,
    })
}

/// A run that died between its commit and the note of its base: the point is there, and its snapshot is the base.
fn adopt_base(
    bases: &Bases,
    journal: &mut Journal,
    begun: &Begun,
    is_committed: &IsCommitted<'_>,
) -> Result<()> {
    let state = journal.state();
    let Thing::Made(snapshot) = state.snapshot.clone() else {
        return Ok(());
    };
    if !begun.keeps_base || state.base_wanted || is_committed(begun, &snapshot)? != Some(true) {
        return Ok(());
    }
    let old = bases.find(begun)?.map(|base| base.snapshot);
    journal.write(&Entry::KeepBase { old })
}

/// Deletes the bases of a volume, or of every volume of the driver. The snapshots that went.
///
/// # Errors
/// `Unavailable` while a run works on such a volume; what the driver answers.
pub fn release(
    driver: &Driver,
    options: &CsiOptions,
    volume: Option<&str>,
) -> Result<Vec<KeptBase>> {
    let bases = Bases::at(options.bases(), options.locks());
    let mut gone = Vec::new();
    for base in bases.all()? {
        let is_meant = base.driver == driver.name
            && base.socket == driver.socket
            && volume.is_none_or(|volume| volume == base.volume);
        if !is_meant {
            continue;
        }
        let _lock = bases.lock(&base.driver, &base.socket, &base.volume)?;
        driver
            .delete_snapshot(&base.snapshot)
            .map_err(Error::from)?;
        bases.forget(&base)?;
        gone.push(base);
    }
    Ok(gone)
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

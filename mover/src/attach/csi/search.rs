//! Finds out whether a call made something of which nobody heard.
//!
//! ```text
//!   the same request ──► it answers ─────────────────────────────► it is there
//!                    ──► it refuses the request itself ──► listed under our name? ──► it was never made
//!                    ──► it fails, or cannot now ─────────► listed under our name? ──► nothing that could be it is listed?
//!                    │                                                            └─► ask another time, for a while
//!                    ──► nobody answers, or not us ──────────────────────────────► nobody knows
//! ```
//!
//! Owns: asking the same again, looking in what the driver lists, and what both say together. Must not: delete anything, write a
//! journal, or take for ours what only looks like it.
//!
//! From the specification: a name stands for one thing, and only the answer to the same request tells how an earlier one ended. A
//! list shows no names, but many drivers build ids from them, and some tell of a volume the snapshot that it was made of.

use std::collections::BTreeSet;

use csi_proto::Code;

use super::answer::{self, Purpose};
use super::call::{CallError, Pause};
use super::driver::{Driver, MadeSnapshot, MadeVolume};
use super::state::{WantedSnapshot, WantedVolume};
use crate::error::{Error, Result};
use crate::pipeline::progress::StopFlag;

/// How often a driver is asked in one search that only fails: enough for a hiccup.
const TRIES: u32 = 3;

/// What a search came to. Where nobody knows, it is an error.
#[derive(Debug)]
pub(super) enum Search<T> {
    /// It exists.
    There(T),
    /// It does not.
    Never,
    /// The driver fails or cannot now; it may say more another time.
    InVain(Error),
}

/// What a driver's list says of something that may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    /// Nothing is listed that could be it.
    Nothing,
    /// Something is listed that could be it, or the driver lists nothing at all.
    Unclear,
}

/// What follows where it is neither answered nor listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Never,
    InVain,
    Unknown,
}

/// Looks for a snapshot. `known` are the ids of those that are something else.
///
/// # Errors
/// What the driver answers where nobody knows; `Interrupted`.
pub(super) fn snapshot(
    driver: &Driver,
    wanted: &WantedSnapshot,
    known: &BTreeSet<String>,
    stop: Option<&StopFlag>,
) -> Result<Search<MadeSnapshot>> {
    let asked = ask(driver, stop, &|| {
        driver.create_snapshot(wanted, Purpose::Undo, stop)
    });
    let failed = match asked {
        Ok(snapshot) => return Ok(Search::There(snapshot)),
        Err(failed) => failed,
    };
    if !is_answer(failed.code) {
        return Err(unknown(failed, &wanted.name));
    }
    let (mut listed, mut ours) = (Listed::Unclear, None);
    if driver.abilities.list_snapshots
        && let Ok(ids) = driver.snapshots_of(&wanted.volume)
    {
        if ids.iter().all(|id| known.contains(id)) {
            listed = Listed::Nothing;
        }
        ours = ids.into_iter().find(|id| names(id, &wanted.name));
    }
    match ours {
        Some(id) => Ok(Search::There(MadeSnapshot::listed(id, wanted))),
        None => judged(failed, listed, &wanted.name),
    }
}

/// Looks for a volume. `own` is the snapshot of a run that ends now, of which nobody else has made volumes yet.
///
/// # Errors
/// As [`snapshot`].
pub(super) fn volume(
    driver: &Driver,
    wanted: &WantedVolume,
    own: Option<&str>,
    stop: Option<&StopFlag>,
) -> Result<Search<MadeVolume>> {
    let asked = ask(driver, stop, &|| {
        driver.create_volume(wanted, Purpose::Undo, stop)
    });
    let failed = match asked {
        Ok(volume) => return Ok(Search::There(volume)),
        Err(failed) => failed,
    };
    if !is_answer(failed.code) {
        return Err(unknown(failed, &wanted.name));
    }
    let own = own.filter(|own| wanted.snapshot.as_deref() == Some(*own));
    let is_ours = |volume: &MadeVolume| {
        names(&volume.id, &wanted.name) || own.is_some_and(|own| volume.is_made_of(own))
    };
    // A list without it says nothing: not every driver builds ids from names, or tells there what a volume was made of.
    match driver.find_volume(&wanted.name, &is_ours) {
        Ok(Some(volume)) => Ok(Search::There(volume)),
        Ok(None) | Err(_) => judged(failed, Listed::Unclear, &wanted.name),
    }
}

/// Asks again where the driver only fails.
fn ask<T>(
    driver: &Driver,
    stop: Option<&StopFlag>,
    once: &dyn Fn() -> std::result::Result<T, CallError>,
) -> std::result::Result<T, CallError> {
    let mut pause = Pause::new();
    for _ in 1..TRIES {
        match once() {
            Err(failed) if failed.code.is_some_and(answer::is_unclear) => {
                if !driver.caller().rest(pause.next(), stop) {
                    return Err(failed);
                }
            }
            other => return other,
        }
    }
    once()
}

/// Whether an id is built from a name: names of runs are random, so that nothing else holds one.
fn names(id: &str, name: &str) -> bool {
    !name.is_empty() && id.contains(name)
}

/// Whether the driver took a decision at all.
fn is_answer(code: Option<Code>) -> bool {
    code.is_some_and(|code| {
        !matches!(
            code,
            Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted
        )
    })
}

fn judged<T>(failed: CallError, listed: Listed, name: &str) -> Result<Search<T>> {
    match verdict(failed.code, listed) {
        Verdict::Never => {
            tracing::info!(name, code = ?failed.code, "nothing was made by this name");
            Ok(Search::Never)
        }
        Verdict::InVain => Ok(Search::InVain(unknown(failed, name))),
        Verdict::Unknown => Err(unknown(failed, name)),
    }
}

/// The request is the one of then, so that whoever refuses it for what it says refused it then, too: its source is gone, nothing of
/// its size can be, or the driver never did such a thing. Who is full, out of order or has something else by the name says nothing
/// of what it did before, and may never say more; who wants other secrets does once it has them.
fn verdict(code: Option<Code>, listed: Listed) -> Verdict {
    match code {
        Some(Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented) => {
            Verdict::Never
        }
        None | Some(Code::PermissionDenied | Code::Unauthenticated) => Verdict::Unknown,
        Some(code) if !is_answer(Some(code)) => Verdict::Unknown,
        Some(_) => match listed {
            Listed::Nothing => Verdict::Never,
            Listed::Unclear => Verdict::InVain,
        },
    }
}

fn unknown(failed: CallError, name: &str) -> Error {
    let why = failed.error.hint_text().unwrap_or_default();
    let what = match failed.code {
        Some(Code::AlreadyExists) => format!(
            "the storage system has something by the name {name} that is not like the request: delete it there, then run again"
        ),
        Some(Code::PermissionDenied | Code::Unauthenticated) => format!(
            "{why}; whether that run made {name} is known only when the driver answers the same request: run again with the \
             secrets of that run"
        ),
        _ => format!(
            "{why}; whether that run made {name} is known only when the driver answers the same request: run again when it does"
        ),
    };
    failed
        .error
        .context("look whether a run made something of which it never heard")
        .hint(what)
}

#[cfg(test)]
mod tests {
    use super::super::answer::Outcome;
    use super::*;
    use crate::error::ErrorKind;

    fn failed(code: Option<Code>) -> CallError {
        CallError {
            error: Error::new(ErrorKind::AccessDenied, "create").hint("give the secrets"),
            outcome: Outcome::NotDone,
            code,
        }
    }

    #[test]
    fn only_who_refuses_the_request_itself_says_that_nothing_was_made() {
        for number in 1..=16 {
            let code = Some(Code::from(number));
            for listed in [Listed::Nothing, Listed::Unclear] {
                let wanted = match (number, listed) {
                    (1 | 4 | 7 | 10 | 14 | 16, _) => Verdict::Unknown,
                    (3 | 5 | 11 | 12, _) | (_, Listed::Nothing) => Verdict::Never,
                    (_, Listed::Unclear) => Verdict::InVain,
                };
                assert_eq!(verdict(code, listed), wanted, "{code:?} {listed:?}");
            }
        }
        // A stop.
        assert_eq!(verdict(None, Listed::Nothing), Verdict::Unknown);
        assert!(!is_answer(None));
        for number in [1, 4, 10, 14] {
            assert!(!is_answer(Some(Code::from(number))), "{number}");
        }
    }

    #[test]
    fn what_to_do_names_what_may_be_there() {
        for (code, word) in [
            (Some(Code::AlreadyExists), "delete it there"),
            (Some(Code::Unauthenticated), "with the secrets of that run"),
            (Some(Code::ResourceExhausted), "run again when it does"),
            (None, "run again when it does"),
        ] {
            let error = unknown(failed(code), "snaphaul-1");
            let hint = error.hint_text().unwrap_or_default();
            assert!(
                hint.contains(word) && hint.contains("snaphaul-1"),
                "{code:?}: {hint}"
            );
            assert_eq!(error.kind(), ErrorKind::AccessDenied);
        }
    }

    #[test]
    fn an_id_is_ours_only_with_the_whole_name() {
        assert!(names("pool/snaphaul-00ff@x", "snaphaul-00ff"));
        assert!(!names("pool/snaphaul-00f", "snaphaul-00ff"));
        assert!(!names("anything", ""));
    }
}

//! The listings of a run, step by step.
//!
//! ```text
//!   step: first page of each prefix ─► that was all │ sixteen parts, several at once ─► next step
//! ```
//!
//! Owns: how a step is listed. Must not: let a step begin before the one before ended, or know what names mean.

use std::sync::{Mutex, PoisonError};

use super::{Job, crew};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::gc::{Stage, View};
use crate::repository::store::{ObjectInfo, Store};

/// Parts listed at once.
const LISTERS: usize = 8;
/// What the part of a name behind its prefix begins with: an id in hex.
const PARTS: &str = "0123456789abcdef";

/// Lists everything in the planner's order.
pub(super) fn view(job: &Job<'_>) -> Result<View> {
    let view = Mutex::new(View::default());
    for stage in Stage::ORDER {
        list_stage(job, stage, &view)?;
        tracing::debug!(?stage, "listed");
    }
    Ok(view.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn list_stage(job: &Job<'_>, stage: Stage, view: &Mutex<View>) -> Result<()> {
    let (store, stop) = (job.store(), &job.context.stop);
    let note = |page: &[ObjectInfo]| {
        let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
        page.iter().for_each(|info| view.note(info));
    };
    let mut parts = Vec::new();
    for prefix in stage.prefixes() {
        stop.check()?;
        match only_page(store, prefix)? {
            Some(page) => note(&page),
            None => parts.extend(PARTS.chars().map(|first| format!("{prefix}{first}"))),
        }
    }
    let listers = LISTERS.min(job.request.requests);
    crew::for_each(parts.into_iter(), listers, stop, |part| {
        store.list(&part, &mut |page| {
            note(&page);
            stop.check()
        })
    })
}

/// The objects under a prefix where they fit one page, which is nearly always; else `None`.
fn only_page(store: &dyn Store, prefix: &str) -> Result<Option<Vec<ObjectInfo>>> {
    let mut first = None;
    let mut more = false;
    let listed = store.list(prefix, &mut |page| {
        if first.is_none() {
            first = Some(page);
            return Ok(());
        }
        more = true;
        Err(Error::new(ErrorKind::Interrupted, "list no further"))
    });
    if more {
        return Ok(None);
    }
    listed?;
    Ok(Some(first.unwrap_or_default()))
}

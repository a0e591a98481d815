//! `snaphaul csi release`.
//!
//! Owns: what it says of what went and what stays. Must not: delete anything itself (`attach::csi` does).

use serde::Serialize;

use super::super::args::CsiReleaseArgs;
use super::super::run::{Outcome, Run, Text};
use super::{options, sweep_up};
use crate::attach::csi::base::KeptBase;
use crate::attach::csi::sweep::{Purpose, Stay, with_causes};
use crate::attach::csi::{Driver, PREFIX, release as kept};
use crate::error::{Error, Result};

#[derive(Debug, Serialize)]
struct ReleaseReport {
    released: Vec<KeptBase>,
    /// What was to go and is still there.
    stays: Vec<Staying>,
}

/// Something that is still there.
#[derive(Debug, Serialize)]
struct Staying {
    /// The run that left it; null for a base.
    run: Option<String>,
    volume: Option<String>,
    /// The base; null for what a run left.
    snapshot: Option<String>,
    why: String,
}

impl From<&Stay> for Staying {
    fn from(stay: &Stay) -> Self {
        Self {
            run: Some(stay.run.clone()),
            volume: stay.volume.clone(),
            snapshot: None,
            why: with_causes(&stay.error),
        }
    }
}

impl From<&(KeptBase, Error)> for Staying {
    fn from((base, error): &(KeptBase, Error)) -> Self {
        Self {
            run: None,
            volume: Some(base.volume.clone()),
            snapshot: Some(base.snapshot.clone()),
            why: with_causes(error),
        }
    }
}

pub(super) fn run(run: &Run, args: &CsiReleaseArgs) -> Result<Outcome> {
    let options = options(&args.driver, None, None)?;
    let driver = Driver::connect(&options)?;
    let volume = args.volume_id.as_deref();
    let volume = volume.map(|id| id.strip_prefix(PREFIX).unwrap_or(id));
    let is_release = args.all || volume.is_some();
    let purpose = if is_release {
        Purpose::Release(volume)
    } else {
        Purpose::Only
    };
    let mut stays = sweep_up(run, &driver, &options, purpose, None)?;
    // What concerns other volumes was told.
    stays.retain(|stay| stay.is_asked_for);
    let released = if is_release {
        kept::release(&driver, &options, volume)?
    } else {
        kept::Released::default()
    };
    for (_, error) in &released.failed {
        run.warn(with_causes(error));
    }
    let mut staying: Vec<Staying> = stays.iter().map(Staying::from).collect();
    staying.extend(released.failed.iter().map(Staying::from));
    let failed = released.failed.into_iter().map(|(_, error)| error);
    let finding = left(stays.into_iter().map(|stay| stay.error).chain(failed));
    let released = released.gone;
    let mut lines: Vec<String> = released.iter().map(removed).collect();
    lines.extend(staying.iter().map(stays_text));
    if lines.is_empty() {
        lines.push(if is_release {
            "no snapshot is kept".to_owned()
        } else {
            "nothing else is left of runs that died".to_owned()
        });
    }
    let report = ReleaseReport {
        released,
        stays: staying,
    };
    Ok(Outcome::new(&report, Text::Answer(lines.join("\n")))?.with_finding(finding))
}

/// What ends a release that did not remove everything it was asked for.
fn left(mut errors: impl Iterator<Item = Error>) -> Option<Error> {
    let first = errors.next()?;
    let count = errors.count() + 1;
    let message = format!("remove everything that was to go: {count} still there");
    Some(first.context(message))
}

fn stays_text(stays: &Staying) -> String {
    let what = match (&stays.run, &stays.snapshot) {
        (Some(run), _) => format!("what run {run} left behind"),
        (None, snapshot) => format!("snapshot {}", snapshot.as_deref().unwrap_or_default()),
    };
    let volume = stays.volume.as_ref();
    let of = volume.map(|volume| format!(" of {volume}"));
    format!("{what}{} stays: {}", of.unwrap_or_default(), stays.why)
}

fn removed(base: &KeptBase) -> String {
    format!("removed snapshot {} of {}", base.snapshot, base.volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn whatever_stays_ends_it_with_an_error() {
        assert!(left(std::iter::empty()).is_none());
        let errors = [
            Error::new(ErrorKind::Unavailable, "one").hint("wait"),
            Error::new(ErrorKind::Io, "two"),
        ];
        let finding = left(errors.into_iter()).unwrap();
        assert_eq!(finding.kind(), ErrorKind::Unavailable);
        assert!(finding.message().contains("2 still there"), "{finding}");
        assert_eq!(finding.hint_text(), Some("wait"));
    }
}

//! What the findings of a verification mean to whoever has to act on them.
//!
//! Owns: that sentence. Must not: judge what a finding is.

use crate::error::{Error, ErrorKind};
use crate::pipeline::report::VerifyReport;

/// Names in one line.
const SHOWN: usize = 3;

/// What is wrong, whom it hurts and what to do; nothing where nothing was found.
#[must_use]
pub fn of(report: &VerifyReport) -> Option<Error> {
    let first = report.errors.first()?;
    let mut volumes: Vec<&str> = report
        .errors
        .iter()
        .filter_map(|found| found.volume.as_deref())
        .collect();
    volumes.sort_unstable();
    volumes.dedup();
    let hurt = match volumes.len() {
        0 => String::new(),
        _ => format!(", which hurts points of {}", shortened(&volumes)),
    };
    let count = report.errors.len();
    Some(
        Error::new(ErrorKind::Corrupt, format!("verify the points: {count} findings of damaged or missing objects{hurt}"))
            .object(&first.object)
            .hint("back the hurt volumes up again: what was found bad is stored anew; `snaphaul repair --dry-run` says what else can be mended, `restore --salvage` saves what is left of a point"),
    )
}

/// The first of some names, and how many more there are.
pub(crate) fn shortened(names: &[&str]) -> String {
    let shown = names
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{shown} and {more} more"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::report::VerifyFinding;

    fn report(findings: usize) -> VerifyReport {
        let finding = VerifyFinding {
            kind: "missing".to_owned(),
            object: "seg/1".to_owned(),
            message: "it is gone; back up again".to_owned(),
            volume: Some("db".to_owned()),
            points: Vec::new(),
            ranges: Vec::new(),
        };
        VerifyReport {
            errors: vec![finding; findings],
            ..VerifyReport::default()
        }
    }

    #[test]
    fn findings_end_the_run_with_an_error() {
        assert!(of(&report(0)).is_none());
        let error = of(&report(2)).unwrap();
        assert_eq!(
            (error.kind(), error.object_name()),
            (ErrorKind::Corrupt, Some("seg/1"))
        );
        assert!(error.message().ends_with("hurts points of db"), "{error}");
    }
}

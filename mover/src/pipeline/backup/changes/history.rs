//! What a point records about how its bytes were found, so that the next run can tell how far to trust a delta.
//!
//! Owns: the records (`changed-blocks.*` among a manifest's identity) and rule R10, when everything must be read again. Must
//! not: read clocks; the moment comes in.

use std::fmt;

use crate::repository::format::manifest::Manifest;

/// Deltas in a row before everything is read again.
pub const MAX_DELTAS: u32 = 30;
/// Days after which everything is read again.
pub const MAX_DAYS: i64 = 30;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Longest record the manifest takes is far above; evidence is cut here.
const MAX_EVIDENCE: usize = 1024;

const DELTAS: &str = "changed-blocks.deltas";
const FULL_AT: &str = "changed-blocks.full-unix-millis";
const ROLLED_TO: &str = "changed-blocks.rolled-to";
const ENVIRONMENT: &str = "changed-blocks.environment";
const LIAR: &str = "changed-blocks.liar";
const EVIDENCE: &str = "changed-blocks.evidence";

/// Facts by which sources tell the version of their backend, and its name.
const BACKENDS: [(&str, &str); 2] = [("rbd.librbd", "librbd"), ("csi.driver-version", "driver")];

/// What answers depend on beside the volume: after a change of any of it, everything is read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(String);

impl Environment {
    /// This program, this kernel, and the version that a source tells of its backend.
    #[must_use]
    pub fn current(identities: &[(String, String)]) -> Self {
        let kernel = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let backend: String = BACKENDS
            .iter()
            .flat_map(|(fact, name)| {
                let told = identities.iter().filter(move |(key, _)| key == fact);
                told.map(move |(_, version)| format!("; {name} {version}"))
            })
            .collect();
        let tool = env!("CARGO_PKG_VERSION");
        Self(format!("snaphaul {tool}; kernel {kernel}{backend}"))
    }
}

/// A source that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub source: String,
    /// Where, and what was there instead.
    pub evidence: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lied about this volume before ({})",
            self.source, self.evidence
        )
    }
}

/// The records of one point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Points since the last one of which everything was read.
    pub deltas: u32,
    /// When that one was taken, in milliseconds since 1970.
    pub full_at: i64,
    /// Chunks below this one were read again since the last round began.
    pub rolled_to: u64,
    /// What it ran on.
    pub environment: Option<Environment>,
    /// Who was caught, until a person takes it back.
    pub verdict: Option<Verdict>,
}

impl History {
    /// What a point recorded; a point of before there were records counts as read in whole when it was taken.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let record = |key: &str| {
            let mut pairs = manifest.identity.iter();
            pairs
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str())
        };
        let number = |key: &str| record(key).and_then(|text| text.parse::<u64>().ok());
        Self {
            deltas: number(DELTAS)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            full_at: number(FULL_AT)
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or(manifest.created_unix_millis),
            rolled_to: number(ROLLED_TO).unwrap_or(0),
            environment: record(ENVIRONMENT).map(|text| Environment(text.to_owned())),
            verdict: record(LIAR).map(|source| Verdict {
                source: source.to_owned(),
                evidence: record(EVIDENCE).unwrap_or("evidence lost").to_owned(),
            }),
        }
    }

    /// Why everything must be read now, if it must.
    #[must_use]
    pub fn full_due(&self, now: i64, environment: &Environment) -> Option<String> {
        if self.environment.as_ref() != Some(environment) {
            let before = self
                .environment
                .as_ref()
                .map_or("an unknown one", |before| &before.0);
            return Some(format!(
                "this is {}, the parent was made by {before}",
                environment.0
            ));
        }
        if self.deltas >= MAX_DELTAS {
            return Some(format!(
                "{} points were made by deltas since the last full read",
                self.deltas
            ));
        }
        // A clock that stands before the last full read says nothing about its age.
        let days = now.saturating_sub(self.full_at) / DAY_MILLIS;
        (days >= MAX_DAYS || now < self.full_at)
            .then(|| format!("the last full read is {} days old", days.max(0)))
    }

    /// The records of a point of which everything is read. The verdict stays.
    #[must_use]
    pub fn after_full(self, now: i64, environment: &Environment) -> Self {
        Self {
            deltas: 0,
            full_at: now,
            rolled_to: 0,
            environment: Some(environment.clone()),
            verdict: self.verdict,
        }
    }

    /// The records of a point that is made by a delta of `source`: it is believed, so that no verdict on it stands.
    #[must_use]
    pub fn after_delta(self, source: &str, environment: &Environment) -> Self {
        Self {
            deltas: self.deltas + 1,
            environment: Some(environment.clone()),
            verdict: self.verdict.filter(|verdict| verdict.source != source),
            ..self
        }
    }

    /// Whether a record of a manifest is one of these.
    #[must_use]
    pub fn is_record(key: &str) -> bool {
        key.starts_with("changed-blocks.")
    }

    /// The same with a verdict.
    #[must_use]
    pub fn with_verdict(self, verdict: Verdict) -> Self {
        Self {
            verdict: Some(verdict),
            ..self
        }
    }

    /// The records as they are kept.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::from([
            (DELTAS.to_owned(), self.deltas.to_string()),
            (FULL_AT.to_owned(), self.full_at.to_string()),
            (ROLLED_TO.to_owned(), self.rolled_to.to_string()),
        ]);
        if let Some(environment) = &self.environment {
            pairs.push((ENVIRONMENT.to_owned(), environment.0.clone()));
        }
        if let Some(verdict) = &self.verdict {
            let evidence: String = verdict.evidence.chars().take(MAX_EVIDENCE).collect();
            pairs.push((LIAR.to_owned(), verdict.source.clone()));
            pairs.push((EVIDENCE.to_owned(), evidence));
        }
        pairs
    }

    /// Replaces where the rolling verification stands among `pairs`.
    pub fn roll(pairs: &mut [(String, String)], rolled_to: u64) {
        for (_, value) in pairs.iter_mut().filter(|(key, _)| key == ROLLED_TO) {
            *value = rolled_to.to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn environment(text: &str) -> Environment {
        Environment(text.to_owned())
    }

    fn history() -> History {
        History::default().after_full(NOW, &environment("a"))
    }

    #[test]
    fn another_version_of_a_backend_is_another_environment() {
        let told = |fact: &str, version: &str| {
            Environment::current(&[(fact.to_owned(), version.to_owned())])
        };
        let none = Environment::current(&[]);
        for (fact, name) in BACKENDS {
            assert_ne!(told(fact, "1"), none);
            assert_ne!(told(fact, "1"), told(fact, "2"));
            assert!(told(fact, "1").0.ends_with(&format!("; {name} 1")));
        }
        assert_eq!(told("csi.snapshot", "1"), none);
    }

    #[test]
    fn a_full_read_is_due_after_points_days_and_changes() {
        let here = environment("a");
        assert_eq!(history().full_due(NOW, &here), None);
        assert_eq!(history().full_due(NOW + 29 * DAY_MILLIS, &here), None);
        let due = |history: &History, now, here: &Environment| history.full_due(now, here).unwrap();
        assert!(due(&history(), NOW + 30 * DAY_MILLIS, &here).contains("30 days"));
        assert!(due(&history(), NOW - 1, &here).contains("days"));
        assert!(due(&history(), NOW, &environment("b")).contains("b"));
        assert!(due(&History::default(), NOW, &here).contains("unknown"));
        let mut after = history();
        for _ in 0..MAX_DELTAS {
            assert_eq!(after.full_due(NOW, &here), None);
            after = after.after_delta("rbd", &here);
        }
        assert!(due(&after, NOW, &here).contains("30 points"));
        assert_eq!(after.full_at, NOW);
    }

    #[test]
    fn a_verdict_stays_until_a_delta_is_believed_again() {
        let verdict = Verdict {
            source: "rbd".to_owned(),
            evidence: "chunk 7".to_owned(),
        };
        let caught = history().with_verdict(verdict.clone());
        let next = caught.clone().after_full(NOW, &environment("a"));
        assert_eq!(next.verdict, Some(verdict.clone()));
        let here = environment("a");
        assert_eq!(
            next.clone().after_delta("thin", &here).verdict,
            Some(verdict)
        );
        assert_eq!(next.after_delta("rbd", &here).verdict, None);
    }

    #[test]
    fn long_evidence_is_cut() {
        let verdict = Verdict {
            source: "rbd".to_owned(),
            evidence: "é".repeat(5000),
        };
        let pairs = history().with_verdict(verdict).pairs();
        assert!(pairs.iter().all(|(_, value)| value.len() <= 2048));
    }
}

//! What a point records about how its bytes were found, so that the next run can tell how far to trust an answer.
//!
//! Owns: the records (`changed-blocks.*` among a manifest's identity) and rule R10, when everything must be read again. Must
//! not: read clocks; the moment comes in.
//!
//! What R9 comes to: each point of which not everything was read counts, and after 30 of them, or 30 days, everything is read.
//! So every chunk is read at least once in 31 points that follow each other. The round over everything (`recheck`) reads most
//! of them earlier.

use super::environment::Environment;
use super::verdict::Verdict;
use crate::repository::format::manifest::Manifest;

/// Points in a row of which not everything was read.
pub const MAX_PARTIAL: u32 = 30;
/// Days after which everything is read again.
pub const MAX_DAYS: i64 = 30;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

const PARTIAL: &str = "changed-blocks.deltas";
const FULL_AT: &str = "changed-blocks.full-unix-millis";
const ROLLED_TO: &str = "changed-blocks.rolled-to-byte";
const ENVIRONMENT: &str = "changed-blocks.environment";

/// The records of one point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Points since the last one of which everything was read.
    pub partial: u32,
    /// When that one was taken, or the first point, in milliseconds since 1970.
    pub full_at: i64,
    /// The round over everything read what lies below this byte. In bytes, because a copy of the point may lie in a repository
    /// with other chunks.
    pub rolled_to: u64,
    /// What it ran on.
    pub environment: Option<Environment>,
    /// Who was caught, until a person takes it back; at most one verdict on each source.
    pub verdicts: Vec<Verdict>,
}

impl History {
    /// Of a volume without points.
    #[must_use]
    pub fn beginning(now: i64) -> Self {
        Self {
            full_at: now,
            ..Self::default()
        }
    }

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
            partial: number(PARTIAL)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            full_at: number(FULL_AT)
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or(manifest.created_unix_millis),
            rolled_to: number(ROLLED_TO).unwrap_or(0),
            environment: record(ENVIRONMENT).map(|text| Environment(text.to_owned())),
            verdicts: Verdict::among(&manifest.identity),
        }
    }

    /// Why everything must be read now, if it must.
    #[must_use]
    pub fn full_due(&self, now: i64, environment: &Environment) -> Option<String> {
        if self.environment.as_ref() != Some(environment) {
            let before = self
                .environment
                .as_ref()
                .map_or_else(|| "an unknown one".to_owned(), ToString::to_string);
            return Some(format!(
                "this is {environment}, the last point was made by {before}"
            ));
        }
        if self.partial >= MAX_PARTIAL {
            return Some(format!(
                "{} points were made since the last full read",
                self.partial
            ));
        }
        // A clock that stands before the last full read says nothing about its age.
        let days = now.saturating_sub(self.full_at) / DAY_MILLIS;
        (days >= MAX_DAYS || now < self.full_at)
            .then(|| format!("the last full read is {} days old", days.max(0)))
    }

    /// The records of a point of which everything is read. Verdicts stay.
    #[must_use]
    pub fn after_full(self, now: i64, environment: &Environment) -> Self {
        Self {
            partial: 0,
            full_at: now,
            rolled_to: 0,
            environment: Some(environment.clone()),
            verdicts: self.verdicts,
        }
    }

    /// The records of a point of which somebody said what is allocated: the rest was not read, so that it counts.
    #[must_use]
    pub fn after_claim(self, environment: &Environment) -> Self {
        Self {
            partial: self.partial.saturating_add(1),
            environment: Some(environment.clone()),
            ..self
        }
    }

    /// The records of a point that is made by a delta of `source`: it is believed, so that no verdict on it stands.
    #[must_use]
    pub fn after_delta(self, source: &str, environment: &Environment) -> Self {
        let mut after = self.after_claim(environment);
        after.verdicts.retain(|verdict| verdict.source != source);
        after
    }

    /// Whether a record of a manifest is one of these.
    #[must_use]
    pub fn is_record(key: &str) -> bool {
        key.starts_with("changed-blocks.")
    }

    /// The same with a verdict, which replaces the one on this source and no other.
    #[must_use]
    pub fn with_verdict(mut self, verdict: Verdict) -> Self {
        self.verdicts.retain(|old| old.source != verdict.source);
        self.verdicts.push(verdict);
        self
    }

    /// The verdict on `source`.
    #[must_use]
    pub fn verdict_on(&self, source: &str) -> Option<&Verdict> {
        let mut verdicts = self.verdicts.iter();
        verdicts.find(|verdict| verdict.source == source)
    }

    /// The records as they are kept.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::from([
            (PARTIAL.to_owned(), self.partial.to_string()),
            (FULL_AT.to_owned(), self.full_at.to_string()),
            (ROLLED_TO.to_owned(), self.rolled_to.to_string()),
        ]);
        if let Some(environment) = &self.environment {
            pairs.push((ENVIRONMENT.to_owned(), environment.to_string()));
        }
        pairs.extend(self.verdicts.iter().flat_map(Verdict::pairs));
        pairs
    }

    /// Replaces where the round stands among `pairs`.
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
        for round in 0..MAX_PARTIAL {
            assert_eq!(after.full_due(NOW, &here), None);
            // Whoever only says what is allocated does not have everything read either.
            after = match round % 3 {
                0 => after.after_claim(&here),
                _ => after.after_delta("rbd", &here),
            };
        }
        assert!(due(&after, NOW, &here).contains("30 points"));
        assert_eq!(after.full_at, NOW);
    }

    #[test]
    fn a_volume_whose_first_point_was_not_read_in_whole_is_read_in_time() {
        let here = environment("a");
        let first = History::beginning(NOW).after_claim(&here);
        assert_eq!((first.partial, first.full_at), (1, NOW));
        assert!(first.full_due(NOW + 30 * DAY_MILLIS, &here).is_some());
    }

    #[test]
    fn a_verdict_stays_until_a_delta_is_believed_again() {
        let verdict = Verdict::new("rbd", "chunk 7".to_owned(), "");
        let caught = history().with_verdict(verdict.clone());
        let here = environment("a");
        let next = caught.clone().after_full(NOW, &here).after_claim(&here);
        assert_eq!(next.verdict_on("rbd"), Some(&verdict));
        let list = Verdict::new("extents", "chunk 9".to_owned(), "");
        let both = next.with_verdict(list.clone()).after_delta("thin", &here);
        assert_eq!(both.verdict_on("rbd"), Some(&verdict));
        assert_eq!(both.verdict_on("extents"), Some(&list));
        assert_eq!(both.after_delta("rbd", &here).verdicts, [list]);
    }
}

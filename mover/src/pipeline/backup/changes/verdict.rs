//! What stays of a source of changed blocks that was caught.
//!
//! Owns: the records of a verdict among a manifest's identity. Must not: catch anybody, or forgive.

use std::fmt;

use changed_blocks::Identity;

/// The longest text that a manifest takes is far longer; evidence is cut here.
const MAX_TEXT: usize = 1024;

/// Each source that was caught has records of its own, which end in its name: another one that is caught later is no pardon.
const LIAR: &str = "changed-blocks.liar.";
const TARGET: &str = "changed-blocks.liar-target.";

/// A source that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub source: String,
    /// Where, and what was there instead.
    pub evidence: String,
    /// The identity record of what it spoke about, as text; empty where it named nothing.
    pub target: String,
}

impl Verdict {
    /// On `source`, which spoke about the target with this record.
    #[must_use]
    pub fn new(source: &str, evidence: String, target: &str) -> Self {
        Self {
            source: source.to_owned(),
            evidence,
            target: target.to_owned(),
        }
    }

    /// Those that a point keeps among its identity records, one for each source.
    pub(super) fn among(records: &[(String, String)]) -> Vec<Self> {
        let target = |source: &str| {
            let mut pairs = records.iter();
            pairs.find(|(key, _)| key.strip_prefix(TARGET) == Some(source))
        };
        let pairs = records.iter();
        pairs
            .filter_map(|(key, evidence)| Some((key.strip_prefix(LIAR)?, evidence)))
            .map(|(source, evidence)| Self {
                source: source.to_owned(),
                evidence: evidence.clone(),
                target: target(source).map_or_else(String::new, |(_, target)| target.clone()),
            })
            .collect()
    }

    /// The records as they are kept.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let source = &self.source;
        let mut pairs = Vec::from([(format!("{LIAR}{source}"), cut(&self.evidence))]);
        if !self.target.is_empty() {
            pairs.push((format!("{TARGET}{source}"), cut(&self.target)));
        }
        pairs
    }
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

/// Not more of a text than a manifest is meant to keep.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The facts of a record in one line.
#[must_use]
pub fn in_one_line(record: Option<&Identity>) -> String {
    let pairs = record.into_iter().flat_map(Identity::pairs);
    let facts: Vec<_> = pairs
        .map(|(fact, value)| format!("{fact}={value}"))
        .collect();
    facts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_back_from_its_records() {
        let record = Identity::new("rbd").with("image", "1a").with("snapshot", 4);
        let target = in_one_line(Some(&record));
        assert_eq!(target, "rbd.image=1a rbd.snapshot=4");
        for target in [target.as_str(), ""] {
            let verdict = Verdict::new("rbd", "chunk 7".to_owned(), target);
            assert_eq!(Verdict::among(&verdict.pairs()), [verdict]);
        }
        assert_eq!(Verdict::among(&[]), []);
    }

    #[test]
    fn long_evidence_is_cut() {
        let verdict = Verdict::new("rbd", "é".repeat(5000), &"x".repeat(5000));
        assert!(verdict.pairs().iter().all(|(_, value)| value.len() <= 2048));
    }
}

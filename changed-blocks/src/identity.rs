//! What names a target for ever: the record a point keeps of what it was made from.
//!
//! Owns: the record and its form as key-value pairs. Must not: know what the facts of a source mean.
//! Rule R1: a delta is taken only against a base whose record is the parent's.

use std::collections::BTreeMap;
use std::fmt;

/// Facts that together name one frozen state of one volume, as a source knows it: ids, sizes, generations; never a time alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    source: String,
    facts: BTreeMap<String, String>,
}

impl Identity {
    /// A record of the source `source` (its name in [`Capabilities`](crate::source::Capabilities)) without facts.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            facts: BTreeMap::new(),
        }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, fact: &str, value: impl fmt::Display) -> Self {
        self.facts.insert(fact.to_owned(), value.to_string());
        self
    }

    /// Name of the source that made the record.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value of a fact.
    #[must_use]
    pub fn fact(&self, fact: &str) -> Option<&str> {
        self.facts.get(fact).map(String::as_str)
    }

    /// The record as pairs `SOURCE.FACT`, ascending.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.facts
            .iter()
            .map(|(fact, value)| (format!("{}.{fact}", self.source), value.clone()))
    }

    /// The record that `source` left among `pairs`; `None` where there is none.
    #[must_use]
    pub fn among(source: &str, pairs: &[(String, String)]) -> Option<Self> {
        let facts: BTreeMap<String, String> = pairs
            .iter()
            .filter_map(|(key, value)| {
                let fact = key.strip_prefix(source)?.strip_prefix('.')?;
                Some((fact.to_owned(), value.clone()))
            })
            .collect();
        (!facts.is_empty()).then(|| Self {
            source: source.to_owned(),
            facts,
        })
    }

    /// The first fact in which `other` differs, with both values, for a message; `None` where they are the same.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let all = self.facts.keys().chain(other.facts.keys());
        let fact = all
            .into_iter()
            .find(|fact| self.fact(fact) != other.fact(fact))?;
        let [mine, theirs] = [self, other].map(|record| record.fact(fact).unwrap_or("unknown"));
        Some(format!("{fact} is {mine}, not {theirs}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_its_pairs() {
        let record = Identity::new("fiemap").with("ino", 7).with("size", "4096");
        let mut pairs: Vec<_> = record.pairs().collect();
        pairs.push(("fiemapper.ino".to_owned(), "8".to_owned()));
        pairs.push(("kind".to_owned(), "file".to_owned()));
        assert_eq!(Identity::among("fiemap", &pairs), Some(record));
        assert_eq!(Identity::among("rbd", &pairs), None);
    }

    #[test]
    fn a_difference_names_the_fact() {
        let record = Identity::new("rbd").with("image", "1a").with("snap", 4);
        assert_eq!(record.difference(&record.clone()), None);
        let other = Identity::new("rbd").with("image", "1a").with("snap", 5);
        assert_eq!(record.difference(&other).unwrap(), "snap is 4, not 5");
        let fewer = Identity::new("rbd").with("image", "1a");
        assert_eq!(record.difference(&fewer).unwrap(), "snap is 4, not unknown");
    }
}

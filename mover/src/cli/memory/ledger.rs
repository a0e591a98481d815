//! The newest point of each volume, as one machine remembers it.
//!
//! Owns: what is newer, and what is missing. Must not: do I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::repository::ids::{SessionKey, VolumeId};

/// Everything that is remembered of one repository, by `<vol>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    volumes: BTreeMap<VolumeId, Remembered>,
}

/// The newest point of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub key: SessionKey,
    /// Name of the volume; empty where its manifests could never be read.
    pub volume: String,
    /// When it was seen first.
    pub seen_unix_secs: i64,
}

/// A point as a listing shows it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub key: SessionKey,
    pub volume: String,
}

impl Ledger {
    /// The newest point of a volume.
    pub(super) fn newest(&self, volume: VolumeId) -> Option<Remembered> {
        self.volumes.get(&volume).cloned()
    }

    /// Remembers a point, unless one of its volume is known that is not older.
    pub(super) fn note(&mut self, seen: &Seen, now_unix_secs: i64) {
        match self.volumes.get(&seen.key.volume) {
            Some(known) if known.key.sequence >= seen.key.sequence => {}
            _ => {
                self.volumes.insert(
                    seen.key.volume,
                    Remembered {
                        key: seen.key,
                        volume: seen.volume.clone(),
                        seen_unix_secs: now_unix_secs,
                    },
                );
            }
        }
    }

    /// Lets go of a point that was forgotten on purpose: it may vanish, and older ones are the newest then.
    pub(super) fn forgot(&mut self, key: &SessionKey) {
        if self
            .volumes
            .get(&key.volume)
            .is_some_and(|known| known.key == *key)
        {
            self.volumes.remove(&key.volume);
        }
    }

    /// Points that are not there any more although nothing later is, so that no policy can have dropped them. `newest` was just
    /// seen of each volume, `is_there` tells of single points, `scope` is the only volume that was looked at, if there is one.
    ///
    /// Another point with the same sequence is no later one: a store that was put back gets one with the next backup.
    pub(super) fn missing(
        &self,
        scope: Option<VolumeId>,
        newest: &[Seen],
        is_there: impl Fn(&SessionKey) -> bool,
    ) -> Vec<Remembered> {
        self.volumes
            .values()
            .filter(|known| scope.is_none_or(|scope| scope == known.key.volume))
            .filter(|known| !is_there(&known.key))
            .filter(|known| {
                !newest.iter().any(|seen| {
                    seen.key.volume == known.key.volume && seen.key.sequence > known.key.sequence
                })
            })
            .cloned()
            .collect()
    }

    /// The file's form.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let points = self
            .volumes
            .values()
            .map(|known| Line {
                point: known.key.to_string(),
                volume: known.volume.clone(),
                seen_unix_secs: known.seen_unix_secs,
            })
            .collect();
        serde_json::to_string_pretty(&File { version: 1, points })
    }

    /// Reads the file's form; `None` where it is not one of ours.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let file: File = serde_json::from_str(text).ok()?;
        let known = file.points.into_iter().map(|line| {
            let key = SessionKey::parse(&line.point)?;
            Some((
                key.volume,
                Remembered {
                    key,
                    volume: line.volume,
                    seen_unix_secs: line.seen_unix_secs,
                },
            ))
        });
        let volumes: Option<BTreeMap<_, _>> = known.collect();
        (file.version == 1).then_some(())?;
        Some(Self { volumes: volumes? })
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    points: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// `<vol>/<seq>-<sid>`.
    point: String,
    volume: String,
    seen_unix_secs: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::ids::{Sequence, SessionId};

    fn seen(volume: u8, sequence: u32, session: u8) -> Seen {
        Seen {
            key: SessionKey {
                volume: VolumeId([volume; 16]),
                sequence: Sequence(sequence),
                session: SessionId([session; 16]),
            },
            volume: format!("v{volume}"),
        }
    }

    fn missing(ledger: &Ledger, scope: Option<u8>, now: &[Seen]) -> Vec<u32> {
        let scope = scope.map(|byte| VolumeId([byte; 16]));
        let is_there = |key: &SessionKey| now.iter().any(|seen| seen.key == *key);
        let missing = ledger.missing(scope, now, is_there);
        missing.iter().map(|known| known.key.sequence.0).collect()
    }

    #[test]
    fn the_newest_is_remembered_whatever_comes_in_which_order() {
        let mut ledger = Ledger::default();
        for point in [
            seen(1, 5, 1),
            seen(1, 7, 2),
            seen(1, 6, 3),
            seen(1, 7, 1),
            seen(2, 1, 1),
        ] {
            ledger.note(&point, 9);
        }
        let newest = ledger.newest(VolumeId([1; 16])).unwrap();
        assert_eq!(newest.key, seen(1, 7, 2).key);
        assert_eq!(newest.seen_unix_secs, 9);
    }

    #[test]
    fn only_what_nothing_newer_took_the_place_of_is_missing() {
        let mut ledger = Ledger::default();
        ledger.note(&seen(1, 7, 1), 0);
        ledger.note(&seen(2, 3, 1), 0);
        let all = [seen(1, 7, 1), seen(2, 3, 1)];
        assert!(missing(&ledger, None, &all).is_empty());
        // Retention may take the remembered point once a newer one is there.
        assert!(missing(&ledger, None, &[seen(1, 8, 9), seen(2, 3, 1)]).is_empty());
        assert_eq!(missing(&ledger, None, &[seen(1, 6, 9), seen(2, 3, 1)]), [7]);
        assert_eq!(missing(&ledger, None, &[]), [7, 3]);
        assert_eq!(missing(&ledger, Some(2), &[]), [3]);
        // One of two points with the same sequence is no proof of the other.
        assert_eq!(missing(&ledger, Some(1), &[seen(1, 7, 2)]), [7]);
        ledger.note(&seen(1, 7, 2), 0);
        assert_eq!(missing(&ledger, Some(1), &[seen(1, 7, 2)]), [7]);
        assert!(missing(&ledger, Some(1), &[seen(1, 7, 1), seen(1, 7, 2)]).is_empty());
    }

    #[test]
    fn what_was_forgotten_may_vanish_and_the_one_before_is_the_newest() {
        let mut ledger = Ledger::default();
        ledger.note(&seen(1, 7, 1), 0);
        ledger.forgot(&seen(1, 6, 1).key);
        assert_eq!(missing(&ledger, None, &[]), [7]);
        ledger.forgot(&seen(1, 7, 1).key);
        assert!(missing(&ledger, None, &[]).is_empty());
        ledger.note(&seen(1, 6, 1), 0);
        assert_eq!(missing(&ledger, None, &[]), [6]);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let mut ledger = Ledger::default();
        ledger.note(&seen(1, 7, 1), 5);
        ledger.note(&seen(2, 3, 1), 6);
        ledger.forgot(&seen(2, 3, 1).key);
        assert_eq!(Ledger::from_json(&ledger.to_json().unwrap()), Some(ledger));
        let foreign = [
            "",
            "{}",
            "[]",
            r#"{"version":2,"points":[]}"#,
            r#"{"version":1,"points":[{"point":"x","volume":"","seen_unix_secs":0}]}"#,
        ];
        for text in foreign {
            assert_eq!(Ledger::from_json(text), None, "{text}");
        }
    }
}

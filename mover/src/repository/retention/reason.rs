//! Why a point is kept or dropped, in words for people.
//!
//! Owns: the reasons and their text. Must not: decide.

use std::fmt;
use std::time::Duration;

use super::Span;

/// What one rule says about one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Kept: the newest point that can be restored.
    Newest,
    /// Kept: the newest point whose source did not change while it was read.
    NewestConsistent,
    /// Kept: rules do not see damaged points.
    Damaged,
    /// Kept: among so many newest.
    Last(u32),
    /// Kept: the newest of this bucket.
    Bucket(Span, i64),
    /// Kept: young enough.
    Within(Duration),
    /// Kept: its time is later than that of the newest point, or still to come.
    Ahead(Duration),
    /// Kept: the clock seems to have jumped.
    ClockJump,
    /// Kept: has this tag.
    Tag(String),
    /// Not kept: so many newer ones are there.
    NotLast(u32),
    /// Not kept: a newer point of the same bucket is.
    NotNewestOf(Span, i64),
    /// Not kept: so many younger buckets are.
    OldBucket(Span, u32),
    /// Not kept: too old.
    NotWithin(Duration),
    /// Not kept: has none of the tags.
    NotTagged,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |duration: &Duration| humantime::format_duration(*duration).to_string();
        match self {
            Self::Newest => f.write_str("newest of the volume"),
            Self::NewestConsistent => f.write_str("newest that is not fuzzy"),
            Self::Damaged => f.write_str("damaged: no policy drops it, only its id"),
            Self::Last(count) => write!(f, "last {count}"),
            Self::Bucket(span, bucket) => write!(f, "{span}: {}", span.label(*bucket)),
            Self::Within(limit) => write!(f, "within {}", time(limit)),
            Self::Ahead(limit) => write!(
                f,
                "within {}: its time lies ahead",
                time(limit)
            ),
            Self::ClockJump => f.write_str(
                "clock: the newest point is over a year ahead of all others, which one more point must confirm",
            ),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::NotLast(count) => write!(f, "not of the last {count}"),
            Self::NotNewestOf(span, bucket) => {
                write!(f, "not the newest of {}", span.label(*bucket))
            }
            Self::OldBucket(span, count) => {
                write!(f, "{span}: {count} younger {} are kept", span.noun(*count))
            }
            Self::NotWithin(limit) => write!(f, "older than {}", time(limit)),
            Self::NotTagged => f.write_str("not tagged to be kept"),
        }
    }
}

//! Hours, days, weeks, months and years of UTC.
//!
//! Owns: the arithmetic from milliseconds to calendar buckets, for every time that 64 bits can hold. Must not: know points.

use std::fmt;

const MILLIS_PER_HOUR: i64 = 3_600_000;
const MILLIS_PER_DAY: i64 = 24 * MILLIS_PER_HOUR;
/// From 1 March of year 0 to 1 January 1970, in the proleptic Gregorian calendar.
const DAYS_TO_1970: i64 = 719_468;
/// 400 years repeat exactly.
const DAYS_PER_ERA: i64 = 146_097;

/// A calendar unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// 60 minutes.
    Hour,
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// From 1 January.
    Year,
}

impl Span {
    /// Every unit, the shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// What its rule is called.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// One of them, or several, in words.
    #[must_use]
    pub fn noun(self, count: u32) -> &'static str {
        match (self, count) {
            (Self::Hour, 1) => "hour",
            (Self::Hour, _) => "hours",
            (Self::Day, 1) => "day",
            (Self::Day, _) => "days",
            (Self::Week, 1) => "week",
            (Self::Week, _) => "weeks",
            (Self::Month, 1) => "month",
            (Self::Month, _) => "months",
            (Self::Year, 1) => "year",
            (Self::Year, _) => "years",
        }
    }

    /// The number of the unit in which a time lies; equal for two times in the same one, ascending with time.
    #[must_use]
    pub fn bucket(self, unix_millis: i64) -> i64 {
        let days = unix_millis.div_euclid(MILLIS_PER_DAY);
        match self {
            Self::Hour => unix_millis.div_euclid(MILLIS_PER_HOUR),
            Self::Day => days,
            // 1970 began on a Thursday.
            Self::Week => (days + 3).div_euclid(7),
            Self::Month => {
                let (year, month, _) = civil(days);
                year * 12 + month - 1
            }
            Self::Year => civil(days).0,
        }
    }

    /// What people call a bucket: `2026-11-21 14h`, `2026-11-21`, `the week of 2026-11-16`, `2026-11`, `2026`.
    pub(super) fn label(self, bucket: i64) -> String {
        let date = |days: i64| {
            let (year, month, day) = civil(days);
            format!("{year:04}-{month:02}-{day:02}")
        };
        match self {
            Self::Hour => format!(
                "{} {:02}h",
                date(bucket.div_euclid(24)),
                bucket.rem_euclid(24)
            ),
            Self::Day => date(bucket),
            Self::Week => format!(
                "the week of {}",
                date(bucket.saturating_mul(7).saturating_sub(3))
            ),
            Self::Month => format!(
                "{:04}-{:02}",
                bucket.div_euclid(12),
                bucket.rem_euclid(12) + 1
            ),
            Self::Year => format!("{bucket:04}"),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())
    }
}

/// Year, month and day of a day counted from 1970. Years begin in March inside, so that the leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    /// RFC 3339 of a time from 1970 to 9999, by code that is not ours.
    fn text(unix_millis: i64) -> String {
        let since = Duration::from_millis(u64::try_from(unix_millis).unwrap());
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    }

    #[test]
    fn known_days() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_778, (2026, 11, 21)),
            (-719_528, (0, 1, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-11-16 was a Monday.
        let monday = 20_773 * MILLIS_PER_DAY;
        let week = Span::Week.bucket(monday);
        assert_eq!(Span::Week.bucket(monday + 7 * MILLIS_PER_DAY - 1), week);
        assert_eq!(Span::Week.bucket(monday - 1), week - 1);
        assert_eq!(Span::Week.label(week), "the week of 2026-11-16");
        assert_eq!(
            Span::Hour.label(Span::Hour.bucket(monday - 1)),
            "2026-11-15 23h"
        );
    }

    #[test]
    fn the_ends_of_time_have_buckets() {
        for span in Span::ALL {
            for millis in [i64::MIN, -1, 0, i64::MAX] {
                assert!(!span.label(span.bucket(millis)).is_empty());
            }
        }
    }

    proptest! {
        #[test]
        fn labels_are_those_of_rfc_3339(millis in 0_i64..253_402_300_800_000) {
            let rfc = text(millis);
            let label = |span: Span| span.label(span.bucket(millis));
            prop_assert_eq!(label(Span::Year), &rfc[..4]);
            prop_assert_eq!(label(Span::Month), &rfc[..7]);
            prop_assert_eq!(label(Span::Day), &rfc[..10]);
            prop_assert_eq!(label(Span::Hour), format!("{} {}h", &rfc[..10], &rfc[11..13]));
        }

        #[test]
        fn buckets_ascend_with_time(a: i64, b: i64) {
            for span in Span::ALL {
                prop_assert_eq!(
                    span.bucket(a.min(b)).min(span.bucket(a.max(b))),
                    span.bucket(a.min(b))
                );
            }
        }
    }
}

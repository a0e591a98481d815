//! Sizes, rates and durations as people write and read them.
//!
//! Owns: parsing and printing of units. Must not: know flags. `KiB MiB GiB TiB` are powers of 1024, `kB MB GB TB` powers
//! of 1000; a bare `K`, `M`, `G` or `T` is the power of 1024, as in dd and qemu-img.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Units a person may write, longest first so that a suffix match is unambiguous.
const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
];

/// Parses a size such as `128KiB`, `1.5GiB`, `100MB` or `4096` into bytes; a fraction of a byte is dropped.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = unit_factor(unit.trim())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.contains('.') || fraction.len() > 18 {
        return Err("write a size as a number and a unit, e.g. 128KiB, 32MiB, 1.5GiB".to_owned());
    }
    scale(whole, fraction, factor).ok_or_else(|| format!("`{text}` is more than 2^64 bytes"))
}

/// Parses a rate such as `100MB/s` or `1.5GiB/s` into bytes a second; `/s` may be left out.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = parse_size(text.trim().strip_suffix("/s").unwrap_or(text))?;
    if rate == 0 {
        return Err("a rate of 0 would never finish; leave the flag out for no limit".to_owned());
    }
    Ok(rate)
}

/// Parses `OFFSET:LENGTH`, both sizes, into bytes. The length is not zero and the end fits in 64 bits.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (offset, length) = text
        .split_once(':')
        .ok_or("write a range as OFFSET:LENGTH, e.g. 1GiB:64MiB")?;
    let (offset, length) = (parse_size(offset)?, parse_size(length)?);
    if length == 0 {
        return Err("the length of a range is at least 1 byte".to_owned());
    }
    offset
        .checked_add(length)
        .ok_or("the end of the range is more than 2^64 bytes")?;
    Ok((offset, length))
}

/// Parses a duration such as `10min`, `90s` or `1h 30m`.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as e.g. 10min"))
}

/// Prints bytes with three significant digits: `0 B`, `128 KiB`, `1.50 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut power = 0;
    // 999.5 would print as 1000 in three digits, so the next unit begins there.
    while power + 1 < NAMES.len() && u128::from(bytes) * 2 >= 1999 << (10 * power) {
        power += 1;
    }
    let name = NAMES[power];
    if power == 0 {
        return format!("{bytes} {name}");
    }
    let unit = 1_u128 << (10 * power);
    let rounded = |scale: u128| (u128::from(bytes) * scale + unit / 2) / unit;
    if bytes.is_multiple_of(1 << (10 * power)) {
        return format!("{} {name}", bytes >> (10 * power));
    }
    match (rounded(100), rounded(10)) {
        (hundredths, _) if hundredths < 1000 => {
            format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
        }
        (_, tenths) if tenths < 1000 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        _ => format!("{} {name}", rounded(1)),
    }
}

/// Prints a rate: `1.14 GiB/s`; `-` where no time has passed.
#[must_use]
pub fn rate(bytes: u64, seconds: f64) -> String {
    per_second(bytes, seconds).map_or_else(|| "-".to_owned(), |rate| format!("{}/s", size(rate)))
}

/// Bytes a second, rounded down; `None` where no time has passed.
#[must_use]
pub fn per_second(bytes: u64, seconds: f64) -> Option<u64> {
    let elapsed = Duration::try_from_secs_f64(seconds).ok()?.as_micros();
    u64::try_from((u128::from(bytes) * 1_000_000).checked_div(elapsed)?).ok()
}

/// Prints seconds: `0.52 s`, `12.3 s`, `3 min 20 s`, `2 h 05 min`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match whole {
        0..=9 => format!("{seconds:.2} s"),
        10..=99 => format!("{seconds:.1} s"),
        100..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// Prints milliseconds since 1970 as RFC 3339 UTC: `2026-11-21T10:00:00.123Z`; `unknown` outside the years 1970 to 9999.
#[must_use]
pub fn timestamp_millis(unix_millis: i64) -> String {
    timestamp(
        u64::try_from(unix_millis).ok().map(Duration::from_millis),
        true,
    )
}

/// Prints seconds since 1970 as RFC 3339 UTC: `2026-11-21T10:00:00Z`; `unknown` outside the years 1970 to 9999.
#[must_use]
pub fn timestamp_secs(unix_secs: i64) -> String {
    timestamp(
        u64::try_from(unix_secs).ok().map(Duration::from_secs),
        false,
    )
}

fn timestamp(since_epoch: Option<Duration>, millis: bool) -> String {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
    const LAST_SECOND: u64 = 253_402_300_799;
    let time: Option<SystemTime> = since_epoch
        .filter(|duration| duration.as_secs() <= LAST_SECOND)
        .and_then(|duration| UNIX_EPOCH.checked_add(duration));
    match time {
        Some(time) if millis => humantime::format_rfc3339_millis(time).to_string(),
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => "unknown".to_owned(),
    }
}

fn unit_factor(unit: &str) -> Result<u64, String> {
    if unit.is_empty() {
        return Ok(1);
    }
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
        .ok_or_else(|| {
            format!(
                "unknown unit `{unit}`; use B, KiB, MiB, GiB, TiB (1024) or kB, MB, GB, TB (1000)"
            )
        })
}

/// `(whole + fraction) * factor` without floating point, so that 1.5GiB is exact.
fn scale(whole: &str, fraction: &str, factor: u64) -> Option<u64> {
    let whole: u64 = whole.parse().ok()?;
    let mut bytes = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok()?;
        let numerator: u64 = fraction.parse().ok()?;
        bytes += u128::from(numerator) * u128::from(factor) / 10_u128.pow(digits);
    }
    u64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests;

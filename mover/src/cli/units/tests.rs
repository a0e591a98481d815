//! Units as people write them, and back.

use proptest::prelude::*;

use super::*;

#[test]
fn sizes_are_parsed_exactly() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("17B", 17),
        ("128KiB", 128 << 10),
        ("32MiB", 32 << 20),
        ("1.5GiB", 3 << 29),
        ("16TiB", 1 << 44),
        ("100MB", 100_000_000),
        ("2kB", 2_000),
        ("2KB", 2_000),
        ("64K", 64 << 10),
        ("0.5 M", 1 << 19),
        (" 1 GB ", 1_000_000_000),
        ("0.1KiB", 102),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for text in [
        "", "MiB", "1.", ".5GiB", "1.2.3", "-1", "1e9", "100Mb", "1 mib", "1PiB", "0x10",
    ] {
        assert!(parse_size(text).is_err(), "{text}");
    }
    assert!(parse_size("99999999TiB").unwrap_err().contains("2^64"));
}

#[test]
fn rates_are_sizes_a_second() {
    assert_eq!(parse_rate("100MB/s"), Ok(100_000_000));
    assert_eq!(parse_rate("1.5GiB/s"), Ok(3 << 29));
    assert_eq!(parse_rate("64MiB"), Ok(64 << 20));
    assert!(parse_rate("0MB/s").is_err());
    assert!(parse_rate("100Mbit/s").is_err());
}

#[test]
fn ranges_have_an_offset_and_a_length() {
    assert_eq!(parse_range("1GiB:64MiB"), Ok((1 << 30, 64 << 20)));
    assert_eq!(parse_range("0:1"), Ok((0, 1)));
    for text in ["5", "1:0", "1:2:3", ":", "18446744073709551615:1"] {
        assert!(parse_range(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_printed_with_three_digits() {
    for (bytes, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1 KiB"),
        (1536, "1.50 KiB"),
        (128 << 10, "128 KiB"),
        (3 << 29, "1.50 GiB"),
        (12_345_678, "11.8 MiB"),
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(size(bytes), text, "{bytes}");
    }
}

#[test]
fn durations_are_printed_for_people() {
    for (value, text) in [
        (0.0, "0.00 s"),
        (0.519, "0.52 s"),
        (12.34, "12.3 s"),
        (200.0, "3 min 20 s"),
        (7_500.0, "2 h 05 min"),
    ] {
        assert_eq!(seconds(value), text);
    }
    assert_eq!(seconds(f64::NAN), "NaN s");
}

#[test]
fn rates_need_time() {
    assert_eq!(rate(1 << 30, 0.0), "-");
    assert_eq!(rate(1 << 30, 2.0), "512 MiB/s");
    assert_eq!(per_second(10, -1.0), None);
}

#[test]
fn times_are_rfc_3339() {
    assert_eq!(
        timestamp_millis(1_795_000_000_123),
        "2026-11-18T11:06:40.123Z"
    );
    assert_eq!(timestamp_secs(0), "1970-01-01T00:00:00Z");
    assert_eq!(timestamp_secs(-1), "unknown");
    assert_eq!(timestamp_secs(i64::MAX), "unknown");
}

proptest! {
    #[test]
    fn a_printed_size_parses_back_within_its_precision(bytes in 0_u64..1 << 50) {
        let text = size(bytes);
        prop_assume!(!text.ends_with("PiB"));
        let back = parse_size(&text).unwrap();
        prop_assert!(back.abs_diff(bytes) <= bytes / 150, "{bytes} -> {text} -> {back}");
    }

    #[test]
    fn no_text_makes_the_parsers_fail_badly(text in ".{0,20}") {
        let _ = (parse_size(&text), parse_rate(&text), parse_range(&text), parse_duration(&text));
    }
}

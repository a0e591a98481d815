//! Sizes as claims and volumes write them.
//!
//! Owns: `10Gi`, `1e3`, `1500m` to bytes and back. Must not: round down: a volume that is too small cannot be filled.
//! The grammar is that of `k8s.io/apimachinery/pkg/api/resource`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Bytes of a quantity, rounded up; nothing for what is none, negative or larger than 2^63 - 1.
#[must_use]
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number
        .trim_start_matches('+')
        .split_once('.')
        .unwrap_or((number.trim_start_matches('+'), ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let below = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits
        .checked_mul(numerator)?
        .div_ceil(denominator.checked_mul(below)?);
    u64::try_from(value)
        .ok()
        .filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// What a suffix multiplies by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 1));
    let decimal = |power: u32| Some((1000_u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        exponent => {
            let power: i32 = exponent
                .strip_prefix(['e', 'E'])?
                .parse()
                .ok()
                .filter(|power| (-18..=18).contains(power))?;
            let factor = 10_u128.pow(power.unsigned_abs());
            Some(if power < 0 { (1, factor) } else { (factor, 1) })
        }
    }
}

/// A quantity of exactly this many bytes.
#[must_use]
pub fn of_bytes(bytes: u64) -> Quantity {
    Quantity(bytes.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9.eEkKMGiTPnum+-]{0,24}") {
            let _ = bytes(&Quantity(text));
        }

        #[test]
        fn plain_numbers_are_bytes(value in 0..=i64::MAX) {
            let value = u64::try_from(value).unwrap();
            prop_assert_eq!(bytes(&of_bytes(value)), Some(value));
        }
    }

    #[test]
    fn every_form_is_read_and_rounded_up() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("10Gi", Some(10 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1.0001Ki", Some(1025)),
            ("5G", Some(5_000_000_000)),
            ("1e3", Some(1000)),
            ("1E3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("1500m", Some(2)),
            ("8Ei", None),
            ("-1Gi", None),
            ("", None),
            ("Gi", None),
            ("1Xi", None),
            ("1e99", None),
            (".5Gi", Some(1 << 29)),
            ("1.0001k", Some(1001)),
            ("9999999999999999999", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text}");
        }
        assert_eq!(bytes(&of_bytes(u64::MAX >> 1)), Some(u64::MAX >> 1));
    }
}

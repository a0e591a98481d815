//! What a point keeps of the Kubernetes object that it was made for.
//!
//! ```text
//!   order.recorded (JSON) ──► tags snaphaul.dev/recorded.000, .001, … ──► manifest ──► the same JSON
//! ```
//!
//! Owns: the names of these tags, and cutting the text so that it fits. Must not: know what the text says.
//!
//! A tag holds 2,048 bytes and a manifest 256 tags (FORMAT.md, manifest): a claim with long annotations needs several.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// Tag: UID of the backup that the point was made for.
pub const OWNER: &str = "snaphaul.dev/owner-uid";
/// What the tags of the text begin with; a number of three digits follows.
const PART: &str = "snaphaul.dev/recorded.";
/// Bytes of one part.
const PART_BYTES: usize = 2048;
/// Parts at most; the rest of the 256 tags is for people.
const PARTS: usize = 200;

/// The tags of a point for the backup of this UID.
///
/// # Errors
/// `InvalidRequest` where the text does not fit.
pub fn tags(owner: &str, recorded: Option<&str>) -> Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::from([(OWNER.to_owned(), owner.to_owned())]);
    let mut rest = recorded.unwrap_or_default();
    let mut part = 0;
    while !rest.is_empty() {
        if part == PARTS {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "record what the claim was: it is larger than 400 KiB",
            )
            .hint("the labels and annotations of the claim are too long"));
        }
        let (now, later) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        tags.insert(format!("{PART}{part:03}"), now.to_owned());
        (rest, part) = (later, part + 1);
    }
    Ok(tags)
}

/// The text that [`tags`] were made of; `None` where a point has none, or not all of it.
#[must_use]
pub fn text(tags: &BTreeMap<String, String>) -> Option<String> {
    let mut text = String::new();
    let mut parts = 0;
    for (name, value) in tags.range(PART.to_owned()..) {
        let Some(number) = name.strip_prefix(PART) else {
            break;
        };
        if number != format!("{parts:03}") {
            return None;
        }
        text.push_str(value);
        parts += 1;
    }
    (parts > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(text_in in "\\PC{1,3000}") {
            let tags = tags("u", Some(&text_in)).unwrap();
            prop_assert!(tags.values().all(|value| value.len() <= PART_BYTES));
            prop_assert_eq!(text(&tags), Some(text_in));
        }
    }

    #[test]
    fn a_lost_part_is_noticed() {
        let mut all = tags("u", Some(&"x".repeat(5000))).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[OWNER], "u");
        all.remove("snaphaul.dev/recorded.001");
        assert_eq!(text(&all), None);
        assert_eq!(text(&tags("u", None).unwrap()), None);
        assert!(tags("u", Some(&"x".repeat(PARTS * PART_BYTES + 1))).is_err());
    }
}

//! How a text may be read: as it stands, or with an escaping undone.
//!
//! Owns: which bytes of the text each letter came from. Must not: know what is looked for.

use std::ops::Range;

/// One way to read a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// What is read; each run of blanks is one, or none at all in a dense view.
    pub(super) letters: Vec<u8>,
    /// Without blanks.
    pub(super) is_dense: bool,
    /// Where in the text each letter stands.
    places: Vec<Range<usize>>,
}

/// Undoes one escaping at the beginning of the rest of a text: what it stands for, and how many bytes it has.
type Unescape = fn(&[u8]) -> Option<(Vec<u8>, usize)>;

impl View {
    /// Every view of a text.
    pub(super) fn all(text: &str) -> Vec<Self> {
        let escapings: [Unescape; 4] = [|_| None, percent, form, backslash];
        let mut views = Vec::new();
        for unescape in escapings {
            for is_dense in [false, true] {
                let view = Self::new(text.as_bytes(), is_dense, unescape);
                if !views.contains(&view) {
                    views.push(view);
                }
            }
        }
        views
    }

    fn new(text: &[u8], is_dense: bool, unescape: Unescape) -> Self {
        let mut view = Self {
            is_dense,
            ..Self::default()
        };
        let mut at = 0;
        while at < text.len() {
            let (letters, len) = unescape(&text[at..]).unwrap_or_else(|| (vec![text[at]], 1));
            for letter in letters {
                view.push(letter, at..at + len);
            }
            at += len;
        }
        view
    }

    fn push(&mut self, letter: u8, place: Range<usize>) {
        if !is_blank(letter) {
            self.letters.push(letter);
            self.places.push(place);
        } else if !self.is_dense {
            match (self.letters.last(), self.places.last_mut()) {
                (Some(b' '), Some(last)) => last.end = place.end,
                _ => {
                    self.letters.push(b' ');
                    self.places.push(place);
                }
            }
        }
    }

    /// Where in the text these letters stand.
    pub(super) fn range(&self, at: usize, len: usize) -> Range<usize> {
        self.places[at].start..self.places[at + len - 1].end
    }

    /// Whether these letters are no part of a longer word.
    pub(super) fn stands_alone(&self, at: usize, len: usize) -> bool {
        let is_word = |at: Option<usize>| {
            let letter = at.and_then(|at| self.letters.get(at));
            letter.is_some_and(|letter| letter.is_ascii_alphanumeric() || !letter.is_ascii())
        };
        // A dense view has lost the blanks that end a word: only the places tell.
        let touches =
            |one: usize, other: usize| match (self.places.get(one), self.places.get(other)) {
                (Some(one), Some(other)) => one.end >= other.start,
                _ => false,
            };
        let before = at.checked_sub(1).filter(|before| touches(*before, at));
        let after = Some(at + len).filter(|after| touches(at + len - 1, *after));
        !is_word(before) && !is_word(after)
    }
}

pub(super) fn is_blank(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// `%41` as in addresses.
fn percent(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let digits = rest.strip_prefix(b"%")?.get(..2)?;
    let byte = u8::try_from(hex(digits)?).ok()?;
    Some((vec![byte], 3))
}

/// The same with `+` for a blank, as in the answers of forms.
fn form(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    match rest.first() {
        Some(b'+') => Some((vec![b' '], 1)),
        _ => percent(rest),
    }
}

/// As languages and JSON quote a text.
fn backslash(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let rest = rest.strip_prefix(b"\\")?;
    let letter = |number: u32, len: usize| {
        let mut bytes = [0; 4];
        let letter = char::from_u32(number)?.encode_utf8(&mut bytes);
        Some((letter.as_bytes().to_vec(), len))
    };
    match rest.first()? {
        b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'a' => Some((vec![b' '], 2)),
        b'x' => {
            let byte = u8::try_from(hex(rest.get(1..3)?)?).ok()?;
            Some((vec![byte], 4))
        }
        b'u' if rest.get(1) == Some(&b'{') => {
            let end = rest.iter().take(9).position(|byte| *byte == b'}')?;
            letter(hex(&rest[2..end])?, end + 2)
        }
        b'u' => letter(hex(rest.get(1..5)?)?, 6),
        other if other.is_ascii_punctuation() => Some((vec![*other], 2)),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    // A sign is no digit.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, unescape: Unescape) -> String {
        let view = View::new(text.as_bytes(), false, unescape);
        String::from_utf8_lossy(&view.letters).into_owned()
    }

    #[test]
    fn escapings_are_undone() {
        assert_eq!(read("a%2Fb%2f%zz%", percent), "a/b/%zz%");
        assert_eq!(read("a+b%2B", form), "a b+");
        assert_eq!(
            read(r#"a\n\t\"b\\\/\x41\u00fc\u{1F600}\u12\q\"#, backslash),
            "a \"b\\/Aü😀\\u12\\q\\"
        );
    }

    #[test]
    fn letters_know_their_place() {
        let view = View::new(b"x%41 \n B", false, percent);
        assert_eq!(view.letters, b"xA B");
        assert_eq!(view.range(1, 1), 1..4);
        assert_eq!(view.range(1, 3), 1..8);
        let dense = View::new(b"x%41 \n B", true, percent);
        assert_eq!(dense.letters, b"xAB");
        assert!(dense.stands_alone(2, 1) && !dense.stands_alone(1, 1));
    }
}

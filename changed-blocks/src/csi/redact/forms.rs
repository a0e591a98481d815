//! How a secret may stand in a text.
//!
//! Owns: the forms, as bytes. Must not: look at a text.

use super::view::is_blank;

/// What is shorter is cut out only where it stands alone.
const SHORTEST: usize = 6;
/// What is shorter is not cut out at all.
const SHORTEST_ALONE: usize = 4;
/// A word of a longer secret that is a secret itself: the key in a keyring.
const LONG_WORD: usize = 16;
/// The shortest beginning of a form by which it is known.
const SHORTEST_BEGINNING: usize = 8;
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// One way in which a secret may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// What is written, each run of blanks as one blank.
    pub(super) letters: Vec<u8>,
    /// Whether it is one of those without blanks, which may be broken into lines.
    pub(super) is_dense: bool,
    /// Whether it is too short to be cut out of a word.
    pub(super) stands_alone: bool,
}

impl Form {
    /// Of its beginning so much is known as the form.
    pub(super) fn least(&self) -> usize {
        let len = self.letters.len();
        len.div_ceil(2).max(SHORTEST_BEGINNING).min(len)
    }
}

/// Every form of a secret.
pub(super) fn of(secret: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let value = secret.trim();
    if value.len() < SHORTEST_ALONE {
        return forms;
    }
    push(&mut forms, collapsed(value), false);
    if value.contains(['\n', '\r']) {
        for line in value.split(['\n', '\r']).map(collapsed) {
            push_fragment(&mut forms, line, SHORTEST);
        }
    }
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'=:,;{}[]<>".contains(c);
    for word in value.split(ends) {
        if word.len() < value.len() {
            push_fragment(&mut forms, word.as_bytes().to_vec(), LONG_WORD);
        }
    }
    for bytes in [secret.as_bytes(), value.as_bytes()] {
        push_encoded(&mut forms, bytes);
    }
    forms
}

fn push_fragment(forms: &mut Vec<Form>, letters: Vec<u8>, shortest: usize) {
    if letters.len() >= shortest {
        push(forms, letters, false);
    }
}

fn push_encoded(forms: &mut Vec<Form>, bytes: &[u8]) {
    for alphabet in [STANDARD, URL_SAFE] {
        push(forms, base64(bytes, alphabet), true);
        // Behind something else, such as the name of a user: what all of these have in common.
        for before in 0..3 {
            let mut shifted = vec![0; before];
            shifted.extend(bytes);
            let encoded = base64(&shifted, alphabet);
            let (first, end) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            if end - first >= SHORTEST_BEGINNING {
                push(forms, encoded[first..end].to_vec(), true);
            }
        }
    }
    let digits = |upper: bool| -> Vec<u8> {
        let digit = |byte: &u8| match upper {
            true => format!("{byte:02X}"),
            false => format!("{byte:02x}"),
        };
        bytes.iter().map(digit).collect::<String>().into_bytes()
    };
    push(forms, digits(false), true);
    push(forms, digits(true), true);
}

fn push(forms: &mut Vec<Form>, letters: Vec<u8>, is_dense: bool) {
    let len = letters.len();
    if len < SHORTEST_ALONE {
        return;
    }
    let shortest = if is_dense {
        SHORTEST_BEGINNING
    } else {
        SHORTEST
    };
    let form = Form {
        letters,
        is_dense,
        stands_alone: len < shortest,
    };
    if !forms.contains(&form) {
        forms.push(form);
    }
}

/// Each run of blanks as one.
fn collapsed(text: &str) -> Vec<u8> {
    let mut letters: Vec<u8> = Vec::new();
    for byte in text.trim().bytes() {
        match (is_blank(byte), letters.last()) {
            (true, Some(b' ')) => {}
            (true, _) => letters.push(b' '),
            (false, _) => letters.push(byte),
        }
    }
    letters
}

/// Without padding.
pub(super) fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| {
            number << 8 | usize::from(three.get(at).copied().unwrap_or(0))
        });
        for place in 0..=three.len() {
            out.push(alphabet[number >> (18 - 6 * place) & 63]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_everybody_does() {
        for (plain, encoded) in [
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("???>>>", "Pz8/Pj4+"),
        ] {
            assert_eq!(base64(plain.as_bytes(), STANDARD), encoded.as_bytes());
        }
        assert_eq!(base64(b"???>>>", URL_SAFE), b"Pz8_Pj4-");
    }

    #[test]
    fn a_short_secret_has_no_form() {
        for secret in ["", "a", "abc", "  a\n\n", "\n"] {
            assert_eq!(of(secret).len(), 0, "{secret:?}");
        }
    }
}

//! Secrets in texts of others.
//!
//! Owns: what is cut out of a text. Must not: know whose secrets they are. `forms` knows how a secret may stand in a text, `view`
//! how a text may be read.
//!
//! ```text
//!   secret ─► itself, its lines, its long words ─┐               ┌─ as it stands, %XX, + for blanks, \n \" \uXXXX
//!          ─► base64, hexadecimal digits ────────┴─► looked for ─┤
//!                                                                └─ the same without any blanks
//! ```

mod forms;
mod view;

use std::ops::Range;

use forms::Form;
use view::View;

/// What stands in place of a secret.
const MARK: &str = "(redacted)";

/// Cuts out of a text whatever is a secret, or the greater part of one, as it is or in an encoding of drivers and their libraries.
///
/// What is shorter than six bytes stands in too many words to be cut out of them: of such secrets only those with four or five go,
/// and only where they stand alone.
#[must_use]
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a String>) -> String {
    let forms: Vec<Form> = secrets
        .into_iter()
        .flat_map(|secret| forms::of(secret))
        .collect();
    if forms.is_empty() {
        return text.to_owned();
    }
    let mut found = Vec::new();
    for view in View::all(text) {
        for form in forms.iter().filter(|form| form.is_dense == view.is_dense) {
            look(&view, form, &mut found);
        }
    }
    cut(text, found)
}

/// Looks for a form from its beginning on, as far as it goes: drivers shorten what they tell.
fn look(view: &View, form: &Form, found: &mut Vec<Range<usize>>) {
    let (letters, wanted) = (&view.letters, &form.letters);
    let least = form.least();
    let mut at = 0;
    while at + least <= letters.len() {
        let same = letters[at..].iter().zip(wanted).take_while(|(a, b)| a == b);
        let len = same.count();
        if len < least || (form.stands_alone && !view.stands_alone(at, len)) {
            at += 1;
        } else {
            found.push(view.range(at, len));
            at += len;
        }
    }
}

fn cut(text: &str, mut found: Vec<Range<usize>>) -> String {
    found.sort_by_key(|range| range.start);
    let (mut out, mut done) = (String::new(), 0);
    let mut found = found.into_iter().peekable();
    while let Some(mut range) = found.next() {
        while let Some(next) = found.next_if(|next| next.start <= range.end) {
            range.end = range.end.max(next.end);
        }
        // A form may end amid a letter of several bytes: all of it goes.
        let start = text.floor_char_boundary(range.start).max(done);
        let end = text.ceil_char_boundary(range.end);
        out.push_str(&text[done..start]);
        out.push_str(MARK);
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests;

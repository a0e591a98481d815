//! Whatever a driver does to a secret before it tells it, and what must stay readable.

use proptest::prelude::*;

use super::forms::base64;
use super::*;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn without(text: &str, secret: &str) -> String {
    redact(text, &[secret.to_owned()])
}

#[test]
fn nothing_of_a_longer_secret_stays() {
    let secrets = ["hunter", "hunter22", "a"].map(str::to_owned);
    assert_eq!(
        redact("keys hunter22, hunter of a", &secrets),
        "keys (redacted), (redacted) of a"
    );
}

#[test]
fn what_drivers_do_to_a_secret() {
    let secret = "  pass/word: \"+ö\"\n";
    for told in [
        "pass/word: \"+ö\"",
        r#"pass/word: \"+ö\""#,
        r#"pass\/word:\t\"+\u00f6\""#,
        "pass%2Fword%3A%20%22%2B%C3%B6%22",
        "pass%2fword%3a+%22%2b%c3%b6%22",
        "pass/word:\r\n \"+ö\"",
    ] {
        assert_eq!(
            without(&format!("got <{told}>"), secret),
            "got <(redacted)>",
            "{told}"
        );
    }
    // Behind a name, as HTTP has it: admin:hunter22-of-it.
    let told = without("Basic YWRtaW46aHVudGVyMjItb2YtaXQ=", "hunter22-of-it");
    assert!(
        !told.contains("aHVudGVy") && told.starts_with("Basic YWRtaW"),
        "{told}"
    );
    assert_eq!(
        without("key 68756e7465723232!", "hunter22"),
        "key (redacted)!"
    );
    // Cut short by the driver.
    let told = without("invalid key AQBlongsecretk…", "AQBlongsecretkey0123");
    assert_eq!(told, "invalid key (redacted)…");
    // Base64 in lines.
    let secret = "a long secret that fills more than a line of what is told";
    let encoded = String::from_utf8(base64(secret.as_bytes(), STANDARD)).unwrap();
    let (one, other) = encoded.split_at(40);
    assert_eq!(
        without(&format!("{one}\n  {other}."), secret),
        "(redacted)."
    );
}

#[test]
fn a_line_or_the_key_of_a_keyring() {
    let keyring =
        "[client.admin]\n\tkey = AQBx3mZkAAAAABAAbase64base64==\n\tcaps mon = \"allow *\"\n";
    assert_eq!(
        without("bad line: key = AQBx3mZkAAAAABAAbase64base64==", keyring),
        "bad line: (redacted)"
    );
    assert_eq!(
        without("no user has AQBx3mZkAAAAABAAbase64base64", keyring),
        "no user has (redacted)"
    );
    assert_eq!(
        without("key: not allowed, admin", keyring),
        "key: not allowed, admin"
    );
}

#[test]
fn short_secrets_stay_readable_texts() {
    let text = "the volume is in use by node-1 on a port of 22, user admins: administrator";
    for secret in [
        "a",
        "on",
        "in",
        "22",
        "the",
        "1\nin\nuse\nby\n",
        "\n\n",
        "admin",
    ] {
        assert_eq!(without(text, secret), text, "{secret:?}");
    }
    assert_eq!(without("user admin: no", "admin"), "user (redacted): no");
    assert_eq!(without("user administrator", "admin"), "user administrator");
}

/// How a driver tells a secret.
#[derive(Clone, Copy, Debug)]
enum Told {
    Whole,
    Trimmed,
    Line(usize),
    Joined,
    Quoted,
    Json,
    Percent,
    PercentLower,
    PercentAll,
    Form,
    Base64,
    Padded,
    UrlSafe,
    Wrapped,
    Behind(usize),
    Hex,
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        Just(Told::Whole),
        Just(Told::Trimmed),
        (0..4_usize).prop_map(Told::Line),
        Just(Told::Joined),
        Just(Told::Quoted),
        Just(Told::Json),
        Just(Told::Percent),
        Just(Told::PercentLower),
        Just(Told::PercentAll),
        Just(Told::Form),
        Just(Told::Base64),
        Just(Told::Padded),
        Just(Told::UrlSafe),
        Just(Told::Wrapped),
        (1..4_usize).prop_map(Told::Behind),
        Just(Told::Hex),
    ]
}

fn escaped(secret: &str, all: bool, lower: bool) -> String {
    let one = |byte: u8| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        match (plain && !all, lower) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02x}"),
            (false, false) => format!("%{byte:02X}"),
        }
    };
    secret.bytes().map(one).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

impl Told {
    fn of(self, secret: &str) -> String {
        let encoded = |secret: &str| text(base64(secret.as_bytes(), STANDARD));
        match self {
            Self::Whole => secret.to_owned(),
            Self::Trimmed => secret.trim().to_owned(),
            Self::Line(number) => {
                let mut lines = secret.trim().split('\n').cycle();
                lines.nth(number).unwrap().trim().to_owned()
            }
            Self::Joined => secret.split_whitespace().collect::<Vec<_>>().join(" "),
            Self::Quoted => format!("{secret:?}"),
            Self::Json => {
                let quoted = secret.replace('\\', "\\\\").replace('"', "\\\"");
                let quoted = quoted.replace('\n', "\\n").replace('/', "\\/");
                quoted.replace('+', "\\u002b")
            }
            Self::Percent => escaped(secret, false, false),
            Self::PercentLower => escaped(secret, false, true),
            Self::PercentAll => escaped(secret, true, false),
            Self::Form => escaped(secret, false, false).replace("%20", "+"),
            Self::Base64 => encoded(secret),
            Self::Padded => {
                let mut encoded = encoded(secret);
                while !encoded.len().is_multiple_of(4) {
                    encoded.push('=');
                }
                encoded
            }
            Self::UrlSafe => text(base64(secret.as_bytes(), URL_SAFE)),
            Self::Wrapped => {
                let lines = encoded(secret).into_bytes();
                let lines: Vec<_> = lines.chunks(16).map(|line| text(line.to_vec())).collect();
                lines.join("\n")
            }
            Self::Behind(before) => encoded(&format!("{}{secret}", "u".repeat(before))),
            Self::Hex => secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// The longest part of `told` that stays in `text`, in bytes.
fn longest_left(text: &str, told: &str) -> usize {
    let letters: Vec<char> = told.chars().collect();
    let mut longest = 0;
    for start in 0..letters.len() {
        while start + longest < letters.len()
            && text.contains(&letters[start..=start + longest].iter().collect::<String>())
        {
            longest += 1;
        }
    }
    longest
}

proptest! {
    #[test]
    fn a_secret_is_cut_out_however_it_is_told(
        lines in prop::collection::vec("[A-Z0-9é+/=%\"\\\\ ]{0,3}[A-Z0-9+/=%\"\\\\]{12,30}", 1..4),
        blank in prop::sample::select(vec!["", "\n", "  ", "\r\n"]),
        told in told(),
        (before, after) in ("[äöü ]{0,10}", "[äöü ]{0,10}"),
    ) {
        let secret = format!("{blank}{}{blank}", lines.join("\n"));
        let echo = told.of(&secret);
        let shown = without(&format!("{before}<{echo}>{after}"), &secret);
        // What stands for blanks around the secret may stay; a letter or two of an encoding tells nothing.
        let is_encoded = matches!(
            told,
            Told::Base64 | Told::Padded | Told::UrlSafe | Told::Wrapped | Told::Behind(_) | Told::Hex
        );
        let wanted = if is_encoded { echo.clone() } else { told.of(secret.trim()) };
        let left = longest_left(&shown, &wanted);
        prop_assert!(left <= 6, "{told:?} of {secret:?}: {echo:?} became {shown:?}");
        let (head, tail) = (format!("{before}<"), format!(">{after}"));
        prop_assert!(shown.starts_with(&head) && shown.ends_with(&tail), "{shown:?}");
    }

    #[test]
    fn texts_without_a_secret_stay(
        words in prop::collection::vec("[a-z]{1,9}", 0..20),
        secrets in prop::collection::vec("[A-Z0-9\n ]{0,40}|[a-z]{0,3}|([a-z]{1,3}\n){1,5}", 0..5),
    ) {
        let text = words.join(" ");
        // Of lines that are too short all of them together are a secret, and only that.
        let is_told = secrets.iter().any(|secret| {
            let joined = secret.split_whitespace().collect::<Vec<_>>().join(" ");
            joined.len() >= 4 && text.contains(&joined)
        });
        prop_assume!(!is_told);
        prop_assert_eq!(redact(&text, &secrets), text);
    }

    #[test]
    fn no_text_breaks_it(text in any::<String>(), secrets in prop::collection::vec(any::<String>(), 0..4)) {
        let shown = redact(&text, &secrets);
        for secret in secrets.iter().filter(|secret| secret.trim().len() >= 6) {
            let told = redact(&format!("{text}{secret}"), std::slice::from_ref(secret));
            prop_assert!(secret.contains("redacted") || !told.contains(secret.trim()), "{shown}");
        }
    }
}

//! Secrets in texts of others.
//!
//! Owns: what is cut out. Must not: know whose secrets they are.

/// What is shorter stands in too many words to be cut out of them.
const SHORTEST_CUT: usize = 4;

/// Cuts out of a text whatever is a secret. The longest go first: one secret may be a part of another, the rest of which would
/// stay.
#[must_use]
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a String>) -> String {
    let mut secrets: Vec<&String> = secrets
        .into_iter()
        .filter(|secret| secret.len() >= SHORTEST_CUT)
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| {
        text.replace(secret.as_str(), "(redacted)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_longer_secret_stays() {
        let secrets = ["hunter", "hunter22", "a"].map(str::to_owned);
        assert_eq!(
            redact("keys hunter22, hunter of a", &secrets),
            "keys (redacted), (redacted) of a"
        );
    }
}

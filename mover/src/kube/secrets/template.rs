//! Names of secrets with `${…}` in them, as classes have them.
//!
//! Owns: what is filled in, and what the result must look like. Must not: know which parameter the text is of.

use std::collections::BTreeMap;

/// Why a text names no secret. Nothing in it is secret: a class is public.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Only one of name and namespace is there.
    #[error("`{key}` and its namespace belong together")]
    HalfAName {
        /// The parameter of the name.
        key: String,
    },
    /// Nobody fills this in here.
    #[error("`{template}`: nothing is known here for ${{{token}}}")]
    Unknown {
        /// The whole text.
        template: String,
        /// What stands between the braces.
        token: String,
    },
    /// A `${` without its end.
    #[error("`{template}`: a `${{` does not end")]
    Unended {
        /// The whole text.
        template: String,
    },
    /// The result is no name of an object.
    #[error("`{template}` becomes `{text}`, which is no name of an object")]
    NoName {
        /// The whole text.
        template: String,
        /// What it became.
        text: String,
    },
}

/// What a template may speak of; what is absent is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `${pvc.name}`.
    pub claim: Option<String>,
    /// `${pvc.namespace}`.
    pub claim_namespace: Option<String>,
    /// `${pvc.annotations['KEY']}`; in names only, as the sidecars have it.
    pub claim_annotations: BTreeMap<String, String>,
    /// `${pv.name}`.
    pub volume: Option<String>,
    /// `${volumesnapshot.name}`.
    pub snapshot: Option<String>,
    /// `${volumesnapshot.namespace}`.
    pub snapshot_namespace: Option<String>,
    /// `${volumesnapshotcontent.name}`.
    pub content: Option<String>,
}

/// Names of objects have at most so many letters, those of namespaces fewer.
const MAX_NAME: usize = 253;
const MAX_NAMESPACE: usize = 63;
/// A claim, however it is spoken of.
const CLAIM: &str = "pvc.";

/// Fills in the name of a secret.
///
/// # Errors
/// What of [`TemplateError`] holds.
pub fn name(template: &str, names: &Names) -> Result<String, TemplateError> {
    let text = fill(template, |token| {
        names.of(token).or_else(|| names.annotation(token))
    })?;
    checked(template, text, |text| {
        text.len() <= MAX_NAME && text.split('.').all(is_label)
    })
}

/// Fills in the namespace of a secret. A namespace cannot come from an annotation, or from the name of a claim or snapshot: whoever
/// writes those would choose it.
///
/// # Errors
/// What of [`TemplateError`] holds.
pub fn namespace(template: &str, names: &Names) -> Result<String, TemplateError> {
    let may = |token: &str| {
        matches!(
            token,
            "pv.name" | "pvc.namespace" | "volumesnapshot.namespace" | "volumesnapshotcontent.name"
        )
    };
    let text = fill(template, |token| names.of(token).filter(|_| may(token)))?;
    checked(template, text, |text| {
        text.len() <= MAX_NAMESPACE && is_label(text)
    })
}

/// Whether the text has anything of a claim in it.
#[must_use]
pub fn speaks_of_claim(template: &str) -> bool {
    let mut parts = template.split("${");
    parts.next();
    parts.any(|part| part.trim_start().starts_with(CLAIM))
}

impl Names {
    fn of(&self, token: &str) -> Option<&str> {
        match token {
            "pvc.name" => self.claim.as_deref(),
            "pvc.namespace" => self.claim_namespace.as_deref(),
            "pv.name" => self.volume.as_deref(),
            "volumesnapshot.name" => self.snapshot.as_deref(),
            "volumesnapshot.namespace" => self.snapshot_namespace.as_deref(),
            "volumesnapshotcontent.name" => self.content.as_deref(),
            _ => None,
        }
    }

    fn annotation(&self, token: &str) -> Option<&str> {
        let key = token
            .strip_prefix("pvc.annotations['")?
            .strip_suffix("']")?;
        self.claim_annotations.get(key).map(String::as_str)
    }
}

/// Puts values in place of `${…}`. What is put in is not looked at again.
fn fill<'a>(
    template: &str,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, TemplateError> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("${") {
        text.push_str(before);
        let Some((token, behind)) = after.split_once('}') else {
            return Err(TemplateError::Unended {
                template: template.to_owned(),
            });
        };
        let known = value(token).ok_or_else(|| TemplateError::Unknown {
            template: template.to_owned(),
            token: token.to_owned(),
        })?;
        text.push_str(known);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

fn checked(
    template: &str,
    text: String,
    is_name: impl Fn(&str) -> bool,
) -> Result<String, TemplateError> {
    if is_name(&text) {
        return Ok(text);
    }
    Err(TemplateError::NoName {
        template: template.to_owned(),
        text,
    })
}

/// As RFC 1123 has it: lower-case letters and digits, `-` between them.
fn is_label(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.len() <= MAX_NAME
        && text.starts_with(fits)
        && text.ends_with(fits)
        && text.chars().all(|letter| fits(letter) || letter == '-')
}

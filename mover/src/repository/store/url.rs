//! Repository addresses: `file:///path`, a plain path, `s3://bucket/prefix`.
//!
//! Owns: their grammar. Must not: look at the file system or the network.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::object_name;
use crate::error::{Error, ErrorKind, Result};

/// A parsed repository address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory, as given: relative paths stay relative.
    Directory(PathBuf),
    /// A bucket.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// What every key begins with: empty, or ending with `/`.
        prefix: String,
    },
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("file://") {
            let path = rest
                .strip_prefix("localhost")
                .filter(|path| path.starts_with('/'))
                .unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(invalid(text, "a file URL has an absolute path"));
            }
            return Ok(Self::Directory(decode_percent(path, text)?));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return parse_bucket(text, rest);
        }
        if text.split_once("://").is_some() {
            return Err(invalid(text, "the scheme is neither file nor s3"));
        }
        if text.is_empty() || text.contains('\0') {
            return Err(invalid(text, "no path is given"));
        }
        Ok(Self::Directory(PathBuf::from(text)))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.write_str(&file_url(path)),
            Self::S3 { bucket, prefix } => {
                write!(f, "s3://{bucket}/{}", prefix.trim_end_matches('/'))
            }
        }
    }
}

/// The `file://` form of a path; relative paths and such that are no text are shown as they are.
pub(super) fn file_url(path: &Path) -> String {
    let text = path.display().to_string();
    if !path.is_absolute() {
        return text;
    }
    format!("file://{}", text.replace('%', "%25"))
}

fn parse_bucket(text: &str, rest: &str) -> Result<StoreUrl> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    // Buckets of other stores than AWS may have upper case letters and underscores.
    let bucket_fits = (3..=255).contains(&bucket.len()) && object_name::is_part(bucket);
    if !bucket_fits {
        return Err(invalid(
            text,
            "a bucket name has 3 to 255 letters, digits, `.`, `-` and `_`",
        ));
    }
    if prefix.is_empty() {
        return Ok(StoreUrl::S3 {
            bucket: bucket.to_owned(),
            prefix: String::new(),
        });
    }
    if prefix.len() > 200 || !prefix.split('/').all(object_name::is_part) {
        return Err(invalid(
            text,
            "a prefix has letters, digits, `.`, `-`, `_` and single slashes, 200 at most",
        ));
    }
    Ok(StoreUrl::S3 {
        bucket: bucket.to_owned(),
        prefix: format!("{prefix}/"),
    })
}

fn decode_percent(path: &str, text: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| tail.get(..2)).flatten();
        let digits = escaped.and_then(|pair| std::str::from_utf8(pair).ok());
        match (
            first,
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()),
        ) {
            (b'%', Some(byte)) if byte != 0 => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'%', _) => return Err(invalid(text, "a `%` is followed by two hex digits")),
            (0, _) => return Err(invalid(text, "a path has no zero byte")),
            (byte, _) => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

fn invalid(text: &str, why: &str) -> Error {
    // Some tools take credentials in front of an `@`; they are not repeated.
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    Error::new(
        ErrorKind::InvalidRequest,
        format!(
            "read the repository address `{}`: {why}",
            text.escape_debug()
        ),
    )
    .hint("use a path, file:///PATH or s3://BUCKET/PREFIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreUrl> {
        text.parse()
    }

    fn s3(bucket: &str, prefix: &str) -> StoreUrl {
        StoreUrl::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn directories_come_as_urls_and_as_paths() {
        for (text, path) in [
            ("file:///var/repo", "/var/repo"),
            ("file://localhost/var/repo", "/var/repo"),
            ("file:///with%20space%25", "/with space%"),
            ("/var/with space%", "/var/with space%"),
            ("relative/repo", "relative/repo"),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                StoreUrl::Directory(PathBuf::from(path)),
                "{text}"
            );
        }
    }

    #[test]
    fn buckets_have_an_optional_prefix() {
        assert_eq!(parse("s3://backups").unwrap(), s3("backups", ""));
        assert_eq!(parse("s3://backups/").unwrap(), s3("backups", ""));
        assert_eq!(parse("s3://backups/a/b").unwrap(), s3("backups", "a/b/"));
        assert_eq!(parse("s3://backups/a/b/").unwrap(), s3("backups", "a/b/"));
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "file://",
            "file://host/x",
            "file://relative",
            "file:///%zz",
            "file:///%00",
            "s3://",
            "s3://a",
            "s3://../x",
            "s3://bucket/../x",
            "s3://bucket//x",
            "s3://key:secret@bucket/x",
            "http://host/x",
            "gs://bucket",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.hint_text().is_some(), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_displayed_address_parses_to_itself() {
        for text in ["/var/a%b", "relative", "s3://backups", "s3://backups/a/b"] {
            let url = parse(text).unwrap();
            assert_eq!(parse(&url.to_string()).unwrap(), url, "{text}");
        }
    }
}

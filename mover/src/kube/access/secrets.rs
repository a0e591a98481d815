//! What the secrets of a repository hold.
//!
//! Owns: their keys and forms. Must not: show any of it, in errors either.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::Secret;

/// Credentials of a bucket.
pub(super) struct Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl Credentials {
    #[cfg(feature = "s3")]
    pub(super) fn to_s3(&self) -> crate::repository::store::s3::S3Credentials {
        let keys =
            crate::repository::store::s3::S3Credentials::new(&self.access_key, &self.secret_key);
        match &self.session_token {
            Some(token) => keys.with_session_token(token),
            None => keys,
        }
    }
}

/// The values of a secret, wiped when dropped.
struct Values<'a> {
    object: SecretObject,
    name: &'a str,
}

impl Drop for Values<'_> {
    fn drop(&mut self) {
        for ByteString(bytes) in self
            .object
            .data
            .iter_mut()
            .flat_map(|data| data.values_mut())
        {
            bytes.zeroize();
        }
    }
}

impl Values<'_> {
    fn bytes(&self, key: &str) -> Option<&[u8]> {
        let data = self.object.data.as_ref()?;
        data.get(key).map(|ByteString(bytes)| bytes.as_slice())
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(key) else {
            return Ok(None);
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.refuse(format!(
                "use the key {key} of a secret: it is no UTF-8 text"
            ))),
        }
    }

    fn refuse(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidRequest, message).object(self.name)
    }
}

/// What opens the repository: `passphrase`, with one trailing newline dropped, or `key`.
pub(super) fn encryption(object: SecretObject, name: &str) -> Result<Secret> {
    let values = Values { object, name };
    let secret = match (values.text("passphrase"), values.bytes("key")) {
        (Ok(None), Some(key)) => Secret::KeyFile(Zeroizing::new(key.to_vec())),
        (Ok(Some(text)), None) => {
            let text = text
                .strip_suffix('\n')
                .map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
            Secret::Passphrase(Zeroizing::new(text.to_owned()))
        }
        (Err(error), _) => return Err(error),
        (Ok(_), _) => {
            return Err(values
                .refuse("use the secret of a repository: it must have exactly one of the keys passphrase and key"));
        }
    };
    secret.check().map_err(|error| error.object(name))?;
    Ok(secret)
}

/// The credentials of a bucket: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `cloud`, a file of AWS with a profile `default`.
pub(super) fn credentials(object: SecretObject, name: &str) -> Result<Credentials> {
    let values = Values { object, name };
    let (id, key) = (
        values.text("AWS_ACCESS_KEY_ID")?,
        values.text("AWS_SECRET_ACCESS_KEY")?,
    );
    let token = values.text("AWS_SESSION_TOKEN")?;
    let found = match (id, key, values.text("cloud")?) {
        (Some(id), Some(key), None) => Some((id, key, token)),
        (None, None, Some(file)) => of_file(file),
        _ => None,
    };
    let Some((id, key, token)) = found else {
        return Err(values.refuse("use the credentials of a repository").hint(
            "the secret has the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `cloud` in the form of AWS's credentials file, with a profile [default]",
        ));
    };
    Ok(Credentials {
        access_key: id.trim().to_owned(),
        secret_key: Zeroizing::new(key.trim().to_owned()),
        session_token: token.map(|token| Zeroizing::new(token.trim().to_owned())),
    })
}

/// The profile `default` of a credentials file.
fn of_file(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let mut in_default = false;
    let (mut id, mut key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_default = line == "[default]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| in_default) {
            match name.trim() {
                "aws_access_key_id" => id = Some(value.trim()),
                "aws_secret_access_key" => key = Some(value.trim()),
                "aws_session_token" => token = Some(value.trim()),
                _ => {}
            }
        }
    }
    Some((id?, key?, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(pairs: &[(&str, &str)]) -> SecretObject {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        SecretObject {
            data: Some(data.collect()),
            ..SecretObject::default()
        }
    }

    #[test]
    fn a_repository_has_one_key() {
        let secret = encryption(object(&[("passphrase", "p w\n")]), "s").unwrap();
        assert!(matches!(secret, Secret::Passphrase(text) if *text == "p w"));
        let long = "k".repeat(32);
        let secret = encryption(object(&[("key", &long)]), "s").unwrap();
        assert!(matches!(secret, Secret::KeyFile(bytes) if bytes.len() == 32));
        for pairs in [
            &[][..],
            &[("passphrase", "x"), ("key", &long)],
            &[("passphrase", "\n")],
            &[("key", "short")],
            &[("Passphrase", "x")],
        ] {
            let error = encryption(object(pairs), "s").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{pairs:?}");
        }
    }

    #[test]
    fn credentials_come_as_keys_or_as_a_file() {
        let keys = object(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key\n"),
        ]);
        let keys = credentials(keys, "s").unwrap();
        assert_eq!((&*keys.access_key, &**keys.secret_key), ("id", "key"));
        let file = "[other]\naws_access_key_id=no\n[default]\naws_access_key_id = id\naws_secret_access_key=a=b\n";
        let keys = credentials(object(&[("cloud", file)]), "s").unwrap();
        assert_eq!((&*keys.access_key, &**keys.secret_key), ("id", "a=b"));
        for pairs in [
            &[][..],
            &[("AWS_ACCESS_KEY_ID", "id")],
            &[("cloud", "[default]\naws_access_key_id=id\n")],
            &[(
                "cloud",
                "aws_access_key_id=id\naws_secret_access_key=secret\n",
            )],
        ] {
            let Err(error) = credentials(object(pairs), "s") else {
                panic!("{pairs:?}")
            };
            assert!(
                !format!("{error} {error:?}").contains("secret\n"),
                "{error:?}"
            );
        }
    }
}

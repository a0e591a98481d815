//! The certificates of one cluster: its authority, its servers, its users, and the key that signs service account tokens.
//!
//! Owns: making them with the `openssl` program. Must not: decide who may do what; a user's groups do (RBAC).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::part;

/// One authority signs everything; a cluster lives for minutes, its certificates for days.
const DAYS: &str = "7";
/// P-256: made in milliseconds, and every TLS library of the cluster takes it.
const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The folder of the certificates.
#[derive(Debug)]
pub(super) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes the authority and the key pair of service accounts in `folder`, which must exist.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let made = Self {
            folder: folder.to_owned(),
        };
        let mut args = vec![
            "req",
            "-x509",
            "-days",
            DAYS,
            "-subj",
            "/CN=cluster authority",
        ];
        args.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
        args.extend(KEY);
        made.openssl(&args)?;
        made.openssl(&["genrsa", "-out", "service-accounts.key", "2048"])?;
        let public = ["rsa", "-in", "service-accounts.key", "-pubout", "-out"];
        made.openssl(&[&public[..], &["service-accounts.pem"]].concat())?;
        Ok(made)
    }

    /// The authority's certificate.
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The authority's key, which the controller manager signs requests with.
    pub(super) fn authority_key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// The private key that signs service account tokens.
    pub(super) fn token_key(&self) -> PathBuf {
        self.folder.join("service-accounts.key")
    }

    /// The public half of [`Self::token_key`].
    pub(super) fn token_public_key(&self) -> PathBuf {
        self.folder.join("service-accounts.pem")
    }

    /// A certificate for a server on the loopback address that is also called `names`.
    pub(super) fn server(&self, file: &str, names: &[&str]) -> Result<Pair> {
        let mut san = "subjectAltName=IP:127.0.0.1,DNS:localhost".to_owned();
        for name in names {
            san.push_str(",DNS:");
            san.push_str(name);
        }
        self.sign(file, &format!("/CN={file}"), &["-addext", &san])
    }

    /// A certificate that says who a client is; the API server reads user and groups from its subject.
    pub(super) fn client(&self, user: &str, groups: &[&str]) -> Result<Pair> {
        let mut subject = String::new();
        for group in groups {
            subject.push_str("/O=");
            subject.push_str(group);
        }
        subject.push_str("/CN=");
        subject.push_str(user);
        let file = user.replace([':', '/'], "-");
        self.sign(&file, &subject, &["-addext", "extendedKeyUsage=clientAuth"])
    }

    fn sign(&self, file: &str, subject: &str, extensions: &[&str]) -> Result<Pair> {
        let (certificate, key) = (format!("{file}.pem"), format!("{file}.key"));
        let mut args = vec!["req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key"];
        args.extend(["-days", DAYS, "-subj", subject]);
        args.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        args.extend(extensions);
        args.extend(["-keyout", &key, "-out", &certificate]);
        args.extend(KEY);
        self.openssl(&args)?;
        Ok(Pair {
            certificate: self.folder.join(certificate),
            key: self.folder.join(key),
        })
    }

    fn openssl(&self, args: &[&str]) -> Result<()> {
        let program = part::program("openssl", "openssl")?;
        part::run(Command::new(program).current_dir(&self.folder).args(args)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn signs_for_servers_and_users() {
        let scratch = Scratch::new("certificates").unwrap();
        let made = Certificates::make(scratch.path()).unwrap();
        let server = made.server("api", &["kubernetes.default.svc"]).unwrap();
        let client = made.client("system:node:a", &["system:nodes"]).unwrap();
        for (pair, expected) in [
            (&server, "DNS:kubernetes.default.svc"),
            (&client, "O = system:nodes, CN = system:node:a"),
        ] {
            let openssl = |args: &[&str]| {
                let program = part::program("openssl", "openssl").unwrap();
                part::run(Command::new(program).args(args).arg(&pair.certificate)).unwrap()
            };
            let authority = made.authority();
            openssl(&["verify", "-CAfile", authority.to_str().unwrap()]);
            let text = openssl(&["x509", "-noout", "-text", "-in"]);
            assert!(text.contains(expected), "{text}");
            assert!(text.contains("CA:FALSE"), "{text}");
        }
    }
}

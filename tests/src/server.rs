//! What every S3 server of the tests has in common.
//!
//! Owns: the endpoint description and free ports. Must not: start servers.

use std::fmt;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Result;

use crate::bucket::Bucket;

/// Access and secret key of one S3 user.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Access key id.
    pub access: String,
    /// Secret key.
    pub secret: String,
    /// Session token of temporary credentials.
    pub token: Option<String>,
}

impl Login {
    /// A login of these two strings.
    #[must_use]
    pub fn new(access: &str, secret: &str) -> Self {
        Self {
            access: access.to_owned(),
            secret: secret.to_owned(),
            token: None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.access)
    }
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name in test output, e.g. `ceph-rgw`.
    pub name: String,
    /// `http://127.0.0.1:PORT` or `https://…`.
    pub url: String,
    /// Certificate of the private CA that signed the server's.
    pub ca_file: Option<PathBuf>,
    /// A user who may do everything.
    pub owner: Login,
    /// A user who may GET and LIST only, where the server knows such users.
    pub reader: Option<Login>,
    /// Whether that user sees only what a bucket's policy shows.
    pub reader_needs_policy: bool,
}

impl Endpoint {
    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.split("://").nth(1).unwrap_or(&self.url)
    }

    /// The same server through another address, e.g. a proxy's.
    #[must_use]
    pub fn through(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// Makes a bucket and gives it.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        let bucket = Bucket::new(self, name);
        bucket.create()?;
        Ok(bucket)
    }
}

/// A running server.
pub trait S3Server: Send + Sync + fmt::Debug {
    /// How it is reached.
    fn endpoint(&self) -> &Endpoint;
}

/// `N` free ports of the loopback address. All are held until all are chosen, so they differ.
///
/// # Errors
/// Where the machine has none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

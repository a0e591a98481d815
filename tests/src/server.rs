//! What every S3 server of the tests has in common.
//!
//! Owns: the endpoint description, free ports, and what becomes of a lost race for one. Must not: start servers of its own.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tokio::net::TcpSocket;

use crate::bucket::Bucket;
use crate::random::Random;

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

/// Where ports of servers are looked for: below those that the kernel gives to whoever connects, which may take one at any moment,
/// and above those that Ceph's daemons choose for themselves.
const PORTS: Range<u16> = 12_000..30_000;
/// More than a machine that has free ones left needs.
const DRAWS: usize = 10_000;

/// `N` free ports of the loopback address. All are held until all are chosen, so they differ.
///
/// They are drawn at random: programs that look at the same time seldom meet, and who loses starts again ([`start_again_once`]).
///
/// # Errors
/// Where the machine has none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let (found, socket) = reserve()?;
        *port = found;
        held.push(socket);
    }
    Ok(ports)
}

/// A port of the loopback address that nobody listens on, and nobody can as long as this lives: connections are refused.
#[derive(Debug)]
pub struct DeafPort {
    number: u16,
    _held: TcpSocket,
}

impl DeafPort {
    /// Takes a free one.
    ///
    /// # Errors
    /// Where the machine has none left.
    pub fn take() -> Result<Self> {
        let (number, held) = reserve()?;
        Ok(Self {
            number,
            _held: held,
        })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A random port, bound and not listened on.
fn reserve() -> Result<(u16, TcpSocket)> {
    // Every state of this kind has keys of its own, drawn from the machine's randomness.
    let mut random = Random::new(RandomState::new().hash_one(std::process::id()));
    for _ in 0..DRAWS {
        let port = PORTS.start + u16::try_from(random.below(PORTS.len() as u64))?;
        let socket = TcpSocket::new_v4()?;
        match socket.bind((Ipv4Addr::LOCALHOST, port).into()) {
            Ok(()) => return Ok((port, socket)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// Starts something; where that fails, which another program's taking one of its ports is enough for, once more and with new ports.
///
/// # Errors
/// Those of the second time.
pub fn start_again_once<T>(what: &str, start: impl Fn() -> Result<T>) -> Result<T> {
    start().or_else(|error| {
        eprintln!("{what} is started again: {error:#}");
        start()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let ports = free_ports::<50>().unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
        assert!(ports.iter().all(|port| PORTS.contains(port)));
        TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    }

    #[test]
    fn a_deaf_port_refuses_and_stays_taken() {
        let deaf = DeafPort::take().unwrap();
        let refused = TcpStream::connect(("127.0.0.1", deaf.number())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(("127.0.0.1", deaf.number())).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn starts_once_more_and_no_more() {
        let tries = std::cell::Cell::new(0);
        let start = |good: u32| {
            tries.set(0);
            start_again_once("it", || {
                tries.set(tries.get() + 1);
                anyhow::ensure!(tries.get() >= good, "taken");
                Ok(tries.get())
            })
        };
        assert_eq!(start(1).unwrap(), 1);
        assert_eq!(start(2).unwrap(), 2);
        assert!(start(3).is_err() && tries.get() == 2);
    }
}

//! A loopback proxy between `snaphaul` and a plain-HTTP S3 server that breaks requests on order.
//!
//! ```text
//!   snaphaul ──► Proxy ──(rules: 503, cut, lost answer, silence, delay, rate)──► S3 server
//! ```
//!
//! Owns: which request is broken and how, and the log of what was asked. Must not: change bytes it passes on (the `Host`
//! header is signed). One thread per connection, all joined when the proxy is dropped.

mod http;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::server::Endpoint;

/// How often waiting threads look whether the proxy was dropped.
const POLL: Duration = Duration::from_millis(20);

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and an S3 error body, never sent on.
    Status(u16),
    /// Sent on up to this many bytes of its body, then both connections are cut.
    CutRequest(u64),
    /// Sent on whole; its answer is thrown away and the connection cut. The server did it, the client cannot know.
    LostAnswer,
    /// Answered with this many bytes of the true body, then cut.
    CutAnswer(u64),
    /// Read and never answered.
    Silence,
    /// Held back for this long, then sent on.
    Delay(Duration),
}

/// Which requests are broken.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Method, e.g. `PUT`; empty for all.
    pub method: &'static str,
    /// Part of the path and query; empty for all.
    pub path: String,
    /// Fitting requests that pass before the first is broken.
    pub skip: u64,
    /// How many are broken after that.
    pub times: u64,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Breaks every request of `method` whose path holds `path`, for ever.
    #[must_use]
    pub fn every(method: &'static str, path: &str, fault: Fault) -> Self {
        Self {
            method,
            path: path.to_owned(),
            skip: 0,
            times: u64::MAX,
            fault,
        }
    }

    /// Breaks the first fitting request only.
    #[must_use]
    pub fn once(method: &'static str, path: &str, fault: Fault) -> Self {
        Self {
            times: 1,
            ..Self::every(method, path, fault)
        }
    }

    /// Lets `skip` requests pass first.
    #[must_use]
    pub fn after(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Breaks `times` requests.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<String>>,
    streams: Mutex<Vec<TcpStream>>,
    broken: AtomicU64,
    bytes_per_second: AtomicU64,
    stop: AtomicBool,
}

/// A running proxy; dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of a plain-HTTP server.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(server: &Endpoint) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let endpoint = server.through(&format!("http://{}", listener.local_addr()?));
        let server: SocketAddr = server
            .host()
            .parse()
            .context("the server has a numeric address")?;
        let shared = Arc::new(Shared {
            server,
            rules: Mutex::default(),
            requests: Mutex::default(),
            streams: Mutex::default(),
            broken: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &accepting));
        Ok(Self {
            endpoint,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// The server as reached through the proxy.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Adds a rule; the first that fits a request decides.
    pub fn add(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Takes every rule and the rate away.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
        self.shared
            .bytes_per_second
            .store(u64::MAX, Ordering::SeqCst);
    }

    /// Sets how many bytes of request bodies pass in a second, each connection by itself.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.shared
            .bytes_per_second
            .store(bytes_per_second, Ordering::SeqCst);
    }

    /// How many requests were broken so far.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// Every request so far, `METHOD /path?query`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    /// Logs the request and finds what happens to it.
    fn decide(&self, method: &str, target: &str) -> Option<Fault> {
        lock(&self.requests).push(format!("{method} {target}"));
        let mut rules = lock(&self.rules);
        for rule in rules.iter_mut() {
            let fits =
                (rule.method.is_empty() || rule.method == method) && target.contains(&rule.path);
            if !fits || rule.times == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            self.broken.fetch_add(1, Ordering::SeqCst);
            return Some(rule.fault);
        }
        None
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rate(&self) -> u64 {
        self.bytes_per_second.load(Ordering::SeqCst)
    }

    /// Remembers a connection, so that dropping the proxy can cut it.
    fn watch(&self, stream: &TcpStream) -> std::io::Result<()> {
        lock(&self.streams).push(stream.try_clone()?);
        if self.stopped() {
            stream.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stopped() {
        match listener.accept() {
            Ok((client, _)) => {
                let shared = Arc::clone(shared);
                // A connection ends with whatever ended it: cut on order, client gone, server gone.
                connections.push(std::thread::spawn(move || {
                    drop(http::serve(&client, &shared));
                }));
            }
            Err(_) => std::thread::sleep(POLL),
        }
        connections.retain(|connection| !connection.is_finished());
    }
    for connection in connections {
        let _ = connection.join();
    }
}

/// A thread that panicked while holding the lock left nothing half done: every critical section here is one statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! A loopback TCP proxy that breaks connections on order.
//!
//! Owns: which connection meets which fault. Must not: understand HTTP beyond where a head and its body end.
//! Adding a fault closes the connections there are, so that the next request opens a new one and meets it.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What happens to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionFault {
    /// The first request is read and answered with this status and S3 code; the server never sees it.
    Answer(u16, &'static str),
    /// Closed when this many bytes have gone to the server, who sees a cut request.
    CutRequest(usize),
    /// The server gets the whole request, its answer is thrown away and the connection closed.
    LoseAnswer,
    /// Closed when this many bytes of the answer have come back.
    CutAnswer(usize),
    /// Bytes are swallowed and nothing is ever answered.
    Hang,
    /// Closed at once.
    Refuse,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<ConnectionFault>,
    /// Met by every connection when the queue is empty.
    always: Option<ConnectionFault>,
    open: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    accepted: usize,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    stopping: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy; stops when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let inner = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("fault-proxy".to_owned())
            .spawn(move || accept(&listener, &inner))?;
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connections meet these faults, one each; the ones after them work.
    pub fn add(&self, faults: impl IntoIterator<Item = ConnectionFault>) {
        let mut state = self.shared.state();
        state.faults.extend(faults);
        close(&mut state);
    }

    /// Every connection from now on meets this, until told otherwise.
    pub fn set_always(&self, fault: Option<ConnectionFault>) {
        let mut state = self.shared.state();
        state.always = fault;
        close(&mut state);
    }

    /// Faults that no connection has met yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.state().faults.len()
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; if that fails it has died already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let threads = {
            let mut state = self.shared.state();
            close(&mut state);
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn close(state: &mut State) {
    for connection in state.open.drain(..) {
        // Closed by the other side already, most of the time.
        let _ = connection.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = connection else { continue };
        let fault = {
            let mut state = shared.state();
            state.accepted += 1;
            state.faults.pop_front().or_else(|| state.always.clone())
        };
        let inner = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("fault-proxy-connection".to_owned())
            .spawn(move || {
                // However it ends, the client sees a closed connection; that is the point of it.
                let _ = carry(&inner, &client, fault.as_ref());
                let _ = client.shutdown(Shutdown::Both);
            });
        if let Ok(thread) = spawned {
            shared.state().threads.push(thread);
        }
    }
}

/// Registers a stream for closing from outside.
fn register(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    shared.state().open.push(stream.try_clone()?);
    if shared.stopping.load(Ordering::SeqCst) {
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn carry(
    shared: &Arc<Shared>,
    client: &TcpStream,
    fault: Option<&ConnectionFault>,
) -> io::Result<()> {
    register(shared, client)?;
    match fault {
        Some(ConnectionFault::Refuse) => return Ok(()),
        Some(ConnectionFault::Hang) => return swallow(client),
        Some(ConnectionFault::Answer(status, code)) => return answer(client, *status, code),
        _ => {}
    }
    let server = TcpStream::connect(shared.target)?;
    register(shared, &server)?;
    let (up, down) = match fault {
        Some(ConnectionFault::CutRequest(bytes)) => (*bytes, usize::MAX),
        Some(ConnectionFault::LoseAnswer) => (usize::MAX, 0),
        Some(ConnectionFault::CutAnswer(bytes)) => (usize::MAX, *bytes),
        _ => (usize::MAX, usize::MAX),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = copy(client, &server, up);
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
        });
        let copied = copy(&server, client, down);
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
        copied
    })
}

/// Copies until the end or until `limit` bytes have passed; with nothing to pass it waits for the first byte all the same.
fn copy(mut from: &TcpStream, mut to: &TcpStream, limit: usize) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = limit;
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        let passed = got.min(left);
        to.write_all(&buffer[..passed])?;
        left -= passed;
        if left == 0 {
            return Ok(());
        }
    }
}

fn swallow(mut client: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while client.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Reads one request to its end, then answers it.
fn answer(mut client: &TcpStream, status: u16, code: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let body_start = loop {
        let got = client.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..got]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let mut left = content_length(&head[..body_start]).saturating_sub(head.len() - body_start);
    while left > 0 {
        let got = client.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        left = left.saturating_sub(got);
    }
    let body = format!("<Error><Code>{code}</Code><Message>made up by a proxy</Message></Error>");
    let body = if head.starts_with(b"HEAD ") {
        String::new()
    } else {
        body
    };
    let text = format!(
        "HTTP/1.1 {status} Made Up\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(text.as_bytes())
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_lowercase();
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

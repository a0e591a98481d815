//! The agent's side: asks a holder for its device.
//!
//! Owns: one connection, for as long as the device is used, and the word that the holder is gone. Must not: open the device.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::protocol::{self, Answer, DeviceLine, LINE_BYTES, Mode, Request};
use crate::device::received::{ReceivedDevice, receive};
use crate::error::{Error, ErrorKind, Result};

/// A holder answers at once, or after it has waited for a device that was busy.
const ANSWER: Duration = Duration::from_secs(30);

/// Which device is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Folder of the sockets.
    pub directory: &'a Path,
    /// UID of the backup or restore.
    pub owner: &'a str,
    /// Attempt of the order.
    pub attempt: i64,
    /// What for.
    pub mode: Mode,
}

/// A device that a holder passed on. Dropping it says that it is no longer used.
#[derive(Debug)]
pub struct Held {
    /// The device.
    pub device: ReceivedDevice,
    stream: UnixStream,
    lost: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Held {
    /// Asks for the device. `on_loss` is called once, from a thread, when the holder goes away while the device is held.
    ///
    /// # Errors
    /// `Unavailable` where no holder answers; `Io` where it has no device to give; `InvalidRequest` where it refuses, or what it gives
    /// is not what it says.
    pub fn ask(wanted: &Wanted<'_>, on_loss: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (stream, line, descriptors) = ask(wanted, false)?;
        let path = protocol::socket(wanted.directory, wanted.owner);
        let wrong = |why: String| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("take the device of the holder: {why}"),
            )
            .object(path.display())
        };
        let device = ReceivedDevice::new(descriptors).map_err(|error| wrong(error.to_string()))?;
        let (major, minor) = device.number();
        let (told, is) = (&line, (device.size(), format!("{major}:{minor}")));
        if (told.size_bytes, &told.device) != (is.0, &is.1) {
            return Err(wrong(format!(
                "it is {} with {} bytes, the holder said {} with {}",
                is.1, is.0, told.device, told.size_bytes
            )));
        }
        if device.is_writable() != (wanted.mode == Mode::Write) {
            return Err(wrong("it is open for the other direction".to_owned()));
        }
        let lost = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicBool::new(false));
        let states = (Arc::clone(&lost), Arc::clone(&done));
        let watcher = watch(&stream, states, on_loss).map_err(|error| {
            Error::new(ErrorKind::Io, "watch the holder")
                .object(path.display())
                .source(error)
        })?;
        Ok(Self {
            device,
            stream,
            lost,
            done,
            watcher: Some(watcher),
        })
    }

    /// Whether the holder went away.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        // Wakes the watcher.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Asks whether the holder listens and can open its device.
///
/// # Errors
/// As [`Held::ask`].
pub fn check(directory: &Path, owner: &str) -> Result<DeviceLine> {
    let wanted = Wanted {
        directory,
        owner,
        attempt: 0,
        mode: Mode::Read,
    };
    ask(&wanted, true).map(|(_, line, _)| line)
}

fn ask(wanted: &Wanted<'_>, probe: bool) -> Result<(UnixStream, DeviceLine, Vec<OwnedFd>)> {
    let path = protocol::socket(wanted.directory, wanted.owner);
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "reach the holder of the device")
            .object(path.display())
            .hint("the holder pod of this volume must run on this node, and share the folder of --holder-directory")
            .source(error)
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    let user = getsockopt(&stream, sockopt::PeerCredentials)
        .map_err(|error| failed(error.into()))?
        .uid();
    // Whoever may put a socket there in our place could make us read, or write to, any device of his.
    if user != nix::unistd::geteuid().as_raw() && user != 0 {
        return Err(Error::new(
            ErrorKind::AccessDenied,
            format!("trust a holder that runs as user {user}"),
        )
        .object(path.display()));
    }
    stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(failed)?;
    let request = Request {
        token: protocol::token(wanted.owner, wanted.attempt),
        attempt: wanted.attempt,
        mode: wanted.mode,
        probe,
    };
    let mut line = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let (answer, descriptors) = read_answer(&stream).map_err(failed)?;
    stream.set_read_timeout(None).map_err(failed)?;
    match answer {
        Answer::Device(line) => Ok((stream, line, descriptors)),
        Answer::Refused { error } => {
            let kind = if error.starts_with("open the device") {
                ErrorKind::Io
            } else {
                ErrorKind::InvalidRequest
            };
            Err(
                Error::new(kind, format!("get the device from its holder: {error}"))
                    .object(path.display()),
            )
        }
    }
}

fn read_answer(stream: &UnixStream) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let mut bytes = Vec::new();
    let mut descriptors = Vec::new();
    let mut part = [0; 1024];
    loop {
        let (read, mut came) = receive(stream, &mut part)?;
        descriptors.append(&mut came);
        bytes.extend_from_slice(&part[..read]);
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Ok((serde_json::from_slice(&bytes[..end])?, descriptors));
        }
        if read == 0 || bytes.len() > LINE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn watch(
    stream: &UnixStream,
    (lost, done): (Arc<AtomicBool>, Arc<AtomicBool>),
    on_loss: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut stream = stream.try_clone()?;
    std::thread::Builder::new()
        .name("holder".to_owned())
        .spawn(move || {
            let mut rest = [0; 64];
            while let Err(error) = stream.read(&mut rest) {
                if error.kind() != io::ErrorKind::Interrupted {
                    break;
                }
            }
            if !done.load(Ordering::SeqCst) {
                lost.store(true, Ordering::SeqCst);
                on_loss();
            }
        })
}

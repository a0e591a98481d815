//! `snaphaul hold`: listens, opens the device for whoever may have it, and passes it on.
//!
//! Owns: the socket, and who is served. Must not: read or write the device, or hold it open when nobody works with it.
//!
//! The newest attempt is right: it takes the connection away from the one before, whose agent sees that and stops. So an agent that
//! was killed and started again, or one that took over, never waits for one that hangs. For writing the kernel has the last word:
//! the device is opened exclusively, and whoever still has it keeps it.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::protocol::{self, Answer, DeviceLine, LINE_BYTES, Mode, Request};
use crate::device::received;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// Connections at once: the agent, its successor, probes.
const CONNECTIONS: usize = 8;
/// Whoever asks for nothing in this time is cut off.
const REQUEST: Duration = Duration::from_secs(10);
/// How often the stop flag is looked at, which a signal handler sets without waking anybody.
const TICK: Duration = Duration::from_millis(100);
/// How long a device is tried for that somebody else is about to let go of.
const BUSY: Duration = Duration::from_secs(5);

/// What is held, and where.
#[derive(Clone, Debug)]
pub struct HoldOptions {
    /// The device.
    pub device: PathBuf,
    /// Folder of the socket.
    pub directory: PathBuf,
    /// UID of the backup or restore.
    pub owner: String,
    /// What it is held for.
    pub mode: Mode,
    /// The only user that is served: 0, but in tests.
    pub user: u32,
}

impl HoldOptions {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check(&self) -> Result<()> {
        if protocol::is_uid(&self.owner) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidRequest,
            "hold a device for a name that is no UID",
        )
        .object(&self.owner)
        .hint("--owner is the UID of the backup or restore"))
    }
}

/// Who is served: the number of the newest attempt, and which of its connections.
#[derive(Debug)]
struct Turn {
    options: HoldOptions,
    newest: Mutex<i64>,
    current: watch::Sender<u64>,
}

/// Listens until a stop is asked for.
///
/// # Errors
/// `InvalidRequest` for options that cannot be; `Io` where there is no socket to be had.
pub fn run(options: HoldOptions, stop: &StopFlag) -> Result<()> {
    options.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Io, "start the holder").source(error))?;
    runtime.block_on(serve(options, stop))
}

async fn serve(options: HoldOptions, stop: &StopFlag) -> Result<()> {
    let path = protocol::socket(&options.directory, &options.owner);
    let (listener, number) = listen(&path).map_err(|error| {
        Error::new(ErrorKind::Io, "listen for the agent")
            .object(path.display())
            .hint("the folder of --directory must exist and belong to root")
            .source(error)
    })?;
    tracing::info!(socket = %path.display(), mode = options.mode.as_str(), "listen for the agent");
    let turn = Arc::new(Turn {
        options,
        newest: Mutex::new(0),
        current: watch::Sender::new(0),
    });
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    while !stop.is_stopped() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&turn)));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept no connection");
                    tokio::time::sleep(TICK).await;
                }
            },
        }
    }
    // A socket without a listener would look like a holder that died. One that came after this may have the name by now.
    if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == number) {
        let _ = fs::remove_file(&path);
    }
    tracing::info!("stop on request");
    Ok(())
}

/// Listens where a dead holder may have listened before; only root may connect from the first moment on. Also the inode of the socket.
fn listen(path: &Path) -> io::Result<(UnixListener, u64)> {
    let new = path.with_extension("new");
    for old in [&new, &path.to_owned()] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    let number = fs::symlink_metadata(&new)?.ino();
    fs::rename(&new, path)?;
    Ok((listener, number))
}

async fn connection(stream: UnixStream, turn: Arc<Turn>) {
    let request = match tokio::time::timeout(REQUEST, read_request(&stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return refuse(&stream, &format!("no request: {error}")).await,
        Err(_) => return refuse(&stream, "no request came").await,
    };
    if let Err(why) = turn.admit(&stream, &request) {
        tracing::warn!(why, attempt = request.attempt, "refuse a connection");
        return refuse(&stream, why).await;
    }
    if request.probe {
        return match open(&turn.options.device, Mode::Read) {
            Ok(opened) => answer(&stream, &Answer::Device(opened.line), &[]).await,
            Err(error) => refuse(&stream, &format!("open the device: {error}")).await,
        };
    }
    let mut current = turn.current.subscribe();
    let mine = turn.take();
    match open_patiently(&turn.options.device, request.mode).await {
        Ok(opened) => {
            let numbers = [opened.direct.as_raw_fd(), opened.buffered.as_raw_fd()];
            answer(&stream, &Answer::Device(opened.line), &numbers).await;
            // From here on only the agent has the device open: when it is done or dies, it is free at once.
        }
        Err(error) => return refuse(&stream, &format!("open the device: {error}")).await,
    }
    tracing::info!(attempt = request.attempt, "the agent has the device");
    let mut rest = [0; 64];
    tokio::select! {
        _ = current.wait_for(|newest| *newest != mine) => {
            tracing::info!(attempt = request.attempt, "another attempt has the turn");
        }
        // Nothing more is said: any byte is as good as the end.
        _ = read(&stream, &mut rest) => tracing::info!(attempt = request.attempt, "the agent is done"),
    }
}

impl Turn {
    /// Why somebody is not served; nothing of the reason helps to be.
    fn admit(
        &self,
        stream: &UnixStream,
        request: &Request,
    ) -> std::result::Result<(), &'static str> {
        let user = stream.peer_cred().map(|peer| peer.uid());
        if !user.is_ok_and(|user| user == self.options.user) {
            return Err("only the agent of this node is served");
        }
        let wanted = protocol::token(&self.options.owner, request.attempt);
        if !protocol::is_same_token(&wanted, &request.token) {
            return Err("the token is not of this object and attempt");
        }
        if request.probe {
            return Ok(());
        }
        if request.mode != self.options.mode {
            return Err("the device is held for the other direction");
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if request.attempt < *newest {
            return Err("a newer attempt has the device");
        }
        *newest = request.attempt;
        Ok(())
    }

    /// Takes the turn from whoever has it.
    fn take(&self) -> u64 {
        let mut mine = 0;
        self.current.send_modify(|current| {
            *current += 1;
            mine = *current;
        });
        mine
    }
}

async fn read_request(stream: &UnixStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 512];
    loop {
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return serde_json::from_slice(&bytes[..end]).map_err(io::Error::from);
        }
        let read = read(stream, &mut part).await?;
        if read == 0 || bytes.len() + read > LINE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.extend_from_slice(&part[..read]);
    }
}

async fn read(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn refuse(stream: &UnixStream, why: &str) {
    let refused = Answer::Refused {
        error: why.to_owned(),
    };
    answer(stream, &refused, &[]).await;
}

/// Line and descriptors go in one message: whoever has the line has them.
async fn answer(stream: &UnixStream, answer: &Answer, numbers: &[i32]) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let rights = [ControlMessage::ScmRights(numbers)];
    let controls: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(&line)];
            sendmsg::<()>(
                stream.as_raw_fd(),
                &parts,
                controls,
                MsgFlags::MSG_NOSIGNAL,
                None,
            )
            .map_err(io::Error::from)
        })
        .await;
    match sent {
        Ok(bytes) if bytes == line.len() => {}
        // A line is far smaller than a socket's buffer: this peer reads nothing, or is gone.
        Ok(_) => tracing::warn!("an answer went out in part"),
        Err(error) => tracing::warn!(%error, "send an answer"),
    }
}

/// A device that was opened twice: for the data, and for what is not aligned.
struct Opened {
    direct: File,
    buffered: File,
    line: DeviceLine,
}

async fn open_patiently(device: &Path, mode: Mode) -> io::Result<Opened> {
    let started = tokio::time::Instant::now();
    loop {
        match open(device, mode) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < BUSY => {
                tokio::time::sleep(TICK).await;
            }
            other => return other,
        }
    }
}

fn open(device: &Path, mode: Mode) -> io::Result<Opened> {
    let (write, exclusive) = match mode {
        Mode::Read => (false, 0),
        Mode::Write => (true, libc::O_EXCL),
    };
    let open = |flags| {
        File::options()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(device)
    };
    let kind = fs::metadata(device)?.file_type();
    if !kind.is_block_device() {
        // To open a FIFO would wait for its writer, and O_EXCL means nothing for files.
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no block device",
        ));
    }
    let direct = open(libc::O_DIRECT | exclusive)?;
    let buffered = open(0)?;
    let number = buffered.metadata()?.rdev();
    let line = DeviceLine {
        size_bytes: received::size_of(&buffered)?,
        device: format!("{}:{}", libc::major(number), libc::minor(number)),
        holder: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(Opened {
        direct,
        buffered,
        line,
    })
}

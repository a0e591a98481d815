//! The protocol between real processes' ends: real sockets, real loop devices.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{self, Held, Wanted};
use super::protocol::{Mode, Request, socket, token};
use super::server::{self, HoldOptions};
use crate::device::loop_device::LoopDevice;
use crate::device::queue::{EngineChoice, QueueOptions};
use crate::device::source::{Source, SourceDevice as _};
use crate::device::target::{Target, TargetOptions};
use crate::error::{ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

const OWNER: &str = "5e7c0d5e-0000-4000-8000-0123456789ab";
const SIZE: u64 = 4 << 20;

/// A device and the holder that listens for it.
struct Rig {
    folder: TempDir,
    image: PathBuf,
    _device: LoopDevice,
    stop: StopFlag,
    holder: Option<JoinHandle<Result<()>>>,
}

impl Rig {
    fn start(mode: Mode) -> Self {
        Self::start_for(mode, nix::unistd::geteuid().as_raw())
    }

    fn start_for(mode: Mode, user: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 512 % 251) as u8).collect();
        std::fs::write(&image, bytes).unwrap();
        let device = LoopDevice::attach(&image, 512).unwrap();
        let options = HoldOptions {
            device: device.path().to_owned(),
            directory: folder.path().to_owned(),
            owner: OWNER.to_owned(),
            mode,
            user,
        };
        let stop = StopFlag::default();
        let holder = std::thread::spawn({
            let stop = stop.clone();
            move || server::run(options, &stop)
        });
        let rig = Self {
            folder,
            image,
            _device: device,
            stop,
            holder: Some(holder),
        };
        let started = Instant::now();
        while !rig.path().exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        rig
    }

    fn path(&self) -> PathBuf {
        socket(self.folder.path(), OWNER)
    }

    fn ask(&self, attempt: i64, mode: Mode) -> Result<Held> {
        self.ask_with(attempt, mode, || {})
    }

    fn ask_with(
        &self,
        attempt: i64,
        mode: Mode,
        on_loss: impl FnOnce() + Send + 'static,
    ) -> Result<Held> {
        let wanted = Wanted {
            directory: self.folder.path(),
            owner: OWNER,
            attempt,
            mode,
        };
        Held::ask(&wanted, on_loss)
    }

    /// What the holder says to a line.
    fn says(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Who says too much is hung up on: what was answered before is kept all the same.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn end(&mut self) {
        self.stop.stop();
        if let Some(holder) = self.holder.take() {
            holder.join().unwrap().unwrap();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end();
    }
}

fn options() -> QueueOptions {
    QueueOptions {
        depth: 4,
        buffer_len: 1 << 20,
        engine: EngineChoice::Auto,
    }
}

#[test]
fn a_passed_device_is_read_directly() {
    let mut rig = Rig::start(Mode::Read);
    assert_eq!(
        std::fs::metadata(rig.path()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let held = rig.ask(1, Mode::Read).unwrap();
    assert_eq!(
        (held.device.size(), held.device.is_writable()),
        (SIZE, false)
    );
    let source = Source::received(&held.device, Path::new("csi:v")).unwrap();
    assert_eq!((source.size(), source.block_size()), (SIZE, 512));
    assert_eq!(source.name(), "csi:v");
    let mut queue = source.queue(&options()).unwrap();
    let mut read = vec![0; usize::try_from(SIZE).unwrap()];
    for (index, buffer) in queue.take_buffers().into_iter().enumerate() {
        queue.read(0, (index as u64) << 20, 1 << 20, buffer);
    }
    while let Some(done) = queue.wait() {
        done.result.unwrap();
        let start = usize::try_from(done.offset).unwrap();
        read[start..start + done.len].copy_from_slice(&done.buffer[..done.len]);
    }
    assert_eq!(read, std::fs::read(&rig.image).unwrap());
    assert!(source.check_unchanged().unwrap());
    assert_eq!(source.warnings(), Vec::<String>::new());
    drop((queue, source, held));
    rig.end();
    assert!(!rig.path().exists(), "the socket goes with the holder");
}

#[test]
fn a_passed_device_is_written_directly_and_by_nobody_else() {
    let rig = Rig::start(Mode::Write);
    let held = rig.ask(1, Mode::Write).unwrap();
    let target = TargetOptions {
        force: true,
        delta: false,
        size: SIZE,
        chunk_size: 128 << 10,
        repository_path: None,
    };
    let target = Target::received(&held.device, Path::new("csi:v"), &target).unwrap();
    target.protect().unwrap();
    target.zero(1 << 20, 1 << 20).unwrap();
    target.settle(Some(&vec![7; 128 << 10])).unwrap();
    assert_eq!(target.read_back(0, 512).unwrap(), vec![7; 512]);
    // Exclusive: the same holder cannot give it away a second time while the first one has it.
    let busy = rig.ask(2, Mode::Write).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Io, "{busy}");
    assert!(held.is_lost(), "the newer attempt took the turn");
    drop((target, held));
    drop(rig.ask(3, Mode::Write).unwrap());
    let mut start = vec![1; 1 << 20];
    let image = File::open(&rig.image).unwrap();
    image.read_exact_at(&mut start, 1 << 20).unwrap();
    assert!(start.iter().all(|byte| *byte == 0));
}

#[test]
fn who_is_not_meant_gets_nothing() {
    let rig = Rig::start(Mode::Read);
    let other = Request {
        token: token("another", 1),
        attempt: 1,
        mode: Mode::Read,
        probe: false,
    };
    let line = serde_json::to_string(&other).unwrap();
    assert!(rig.says(&format!("{line}\n")).contains("token"));
    let shifted = Request {
        token: token(OWNER, 1),
        attempt: 2,
        ..other
    };
    let line = serde_json::to_string(&shifted).unwrap();
    assert!(rig.says(&format!("{line}\n")).contains("token"));
    assert!(rig.says("nonsense\n").contains("no request"));
    assert!(rig.says(&"x".repeat(10_000)).contains("no request"));
    let wrong_way = rig.ask(1, Mode::Write).unwrap_err();
    assert!(
        wrong_way.to_string().contains("other direction"),
        "{wrong_way}"
    );
    // The one who is meant is served all the same.
    rig.ask(1, Mode::Read).unwrap();
}

#[test]
fn the_kernel_says_who_asks() {
    let rig = Rig::start_for(Mode::Read, 54_321);
    let refused = rig.ask(1, Mode::Read).unwrap_err();
    assert!(refused.to_string().contains("only the agent"), "{refused}");
    assert!(client::check(rig.folder.path(), OWNER).is_err());
}

#[test]
fn the_newest_attempt_has_the_device() {
    let rig = Rig::start(Mode::Read);
    let (lost, losses) = mpsc::sync_channel(8);
    let first = rig
        .ask_with(1, Mode::Read, move || lost.send(()).unwrap())
        .unwrap();
    let second = rig.ask(2, Mode::Read).unwrap();
    losses.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(first.is_lost() && !second.is_lost());
    let late = rig.ask(1, Mode::Read).unwrap_err();
    assert!(late.to_string().contains("newer attempt"), "{late}");
    // An agent that was started again asks for the same attempt.
    let third = rig.ask(2, Mode::Read).unwrap();
    let started = Instant::now();
    while !second.is_lost() {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!third.is_lost());
}

#[test]
fn a_holder_that_ends_is_noticed_and_what_is_open_stays_open() {
    let mut rig = Rig::start(Mode::Read);
    let (lost, losses) = mpsc::sync_channel(8);
    let held = rig
        .ask_with(1, Mode::Read, move || lost.send(()).unwrap())
        .unwrap();
    rig.end();
    losses.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(held.is_lost());
    let source = Source::received(&held.device, Path::new("csi:v")).unwrap();
    assert_eq!(source.size(), SIZE);
    let gone = rig.ask(1, Mode::Read).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable);
}

#[test]
fn done_is_no_loss() {
    let rig = Rig::start(Mode::Read);
    let (lost, losses) = mpsc::sync_channel(8);
    drop(
        rig.ask_with(1, Mode::Read, move || lost.send(()).unwrap())
            .unwrap(),
    );
    assert_eq!(losses.recv(), Err(mpsc::RecvError), "nobody was called");
    assert_eq!(
        client::check(rig.folder.path(), OWNER).unwrap().size_bytes,
        SIZE
    );
}

#[test]
fn a_socket_that_a_dead_holder_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(folder.path(), OWNER);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let options = HoldOptions {
        device: "/dev/none".into(),
        directory: folder.path().to_owned(),
        owner: OWNER.to_owned(),
        mode: Mode::Read,
        user: 0,
    };
    let stop = StopFlag::default();
    let holder = std::thread::spawn({
        let stop = stop.clone();
        move || server::run(options, &stop)
    });
    let started = Instant::now();
    let refused = loop {
        let asked = client::check(folder.path(), OWNER).unwrap_err();
        if asked.kind() != ErrorKind::Unavailable {
            break asked;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{asked}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(
        refused.kind(),
        ErrorKind::Io,
        "the holder answers, the device is not there: {refused}"
    );
    stop.stop();
    holder.join().unwrap().unwrap();
}

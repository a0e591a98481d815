//! Reading through a descriptor that a holder passed on, against the device opened here.
//!
//! Owns: both readers, which are one. Must not: use the data path: it would hide a difference behind its own work.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mover::device::received::receive;
use mover::kube::hold::protocol::{self, Mode, Request};
use nix::libc::O_DIRECT;
use serde_json::{Value, json};
use tests::image::{Image, MIB};
use tests::loop_device::LoopDevice;
use tests::process::Process;
use tests::random::Random;
use tests::snaphaul;

const OWNER: &str = "5f4c2d0e-0000-4000-8000-000000000001";
const START_LIMIT: Duration = Duration::from_secs(20);
const READERS: usize = 8;
const STEP: usize = 1 << 20;
/// Direct reads want memory at a multiple of the sector size.
const ALIGN: usize = 4096;
const ROUNDS: usize = 7;

/// A device in memory, so that nothing but the way to it is measured.
pub(crate) fn figures(small: bool) -> Result<Value> {
    let size = if small { 64 } else { 1024 } * MIB;
    let memory = tempfile::Builder::new()
        .prefix("snaphaul-holder-")
        .tempdir_in("/dev/shm")?;
    let file = memory.path().join("disk.img");
    let mut random = Random::from_environment("holder");
    Image::noise(&file, size, &mut random)?;
    let device = LoopDevice::attach(&file, 4096)?;
    let words = [
        "hold",
        "--device",
        &device.path().display().to_string(),
        "--directory",
        &memory.path().display().to_string(),
        "--owner",
        OWNER,
        "--mode",
        "read",
    ]
    .map(str::to_owned);
    let log = memory.path().join("holder.log");
    let holder = Process::start(&snaphaul::binary()?, &words, &[], &log)?;
    let socket = protocol::socket(memory.path(), OWNER);
    holder.wait_until(START_LIMIT, || socket.exists())?;
    let mut ratios = Vec::new();
    let (mut bare, mut held) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let direct = || seconds(&open(device.path())?, size);
        let passed = || {
            let (_stream, file) = ask(&socket)?;
            seconds(&file, size)
        };
        // Each goes first in turn.
        let (one, other) = if round % 2 == 0 {
            let one = direct()?;
            (one, passed()?)
        } else {
            let other = passed()?;
            (direct()?, other)
        };
        ratios.push(one / other);
        bare.push(one);
        held.push(other);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(
        json!({"size_bytes": size, "bare_seconds": bare, "held_seconds": held, "speed_of_bare": ratios[ROUNDS / 2]}),
    )
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    Ok(options.read(true).custom_flags(O_DIRECT).open(path)?)
}

/// The descriptor for data, and the connection that keeps it lent.
fn ask(socket: &Path) -> Result<(UnixStream, File)> {
    let mut stream = UnixStream::connect(socket)?;
    let request = Request {
        token: protocol::token(OWNER, 1),
        attempt: 1,
        mode: Mode::Read,
        probe: false,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = [0; protocol::LINE_BYTES];
    let (_, descriptors) = receive(&stream, &mut answer)?;
    let file = descriptors.into_iter().map(File::from).find(is_direct);
    Ok((
        stream,
        file.context("a descriptor past the page cache came")?,
    ))
}

fn is_direct(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_GETFL).is_ok_and(|flags| flags & OFlag::O_DIRECT.bits() != 0)
}

/// Reads everything once, from several threads.
fn seconds(file: &File, size: u64) -> Result<f64> {
    let next = AtomicU64::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read(file, size, &next)))
            .collect();
        readers.into_iter().try_for_each(|reader| {
            let read = reader.join();
            ensure!(read.is_ok(), "a reader panicked");
            read.unwrap_or(Ok(()))
        })
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

fn read(file: &File, size: u64, next: &AtomicU64) -> Result<()> {
    let mut room = vec![0_u8; STEP + ALIGN];
    let begin = room.as_ptr().align_offset(ALIGN);
    let buffer = &mut room[begin..begin + STEP];
    loop {
        let at = next.fetch_add(STEP as u64, Ordering::Relaxed);
        if at >= size {
            return Ok(());
        }
        file.read_exact_at(buffer, at)?;
    }
}

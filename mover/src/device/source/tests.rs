use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::device::AlignedBuffer;
use crate::device::loop_device::LoopDevice;

const MIB: u64 = 1 << 20;

fn image(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

fn refusal(path: &Path) -> Error {
    let error = Source::open(path, &SourceOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    error
}

/// A mounted file system, unmounted on drop.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(device: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(device)
            .status();
        assert!(made.unwrap().success());
        let mounted = Command::new("mount")
            .arg(device)
            .arg(directory.path())
            .status();
        assert!(mounted.unwrap().success());
        Self(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A process that holds its standard input open on something, ended on drop.
struct Holder(Child);

impl Holder {
    fn new(device: File) -> Self {
        let child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(device))
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_is_read_with_its_holes_and_found_unchanged() {
    let file = image(4 * MIB + 5);
    file.as_file().write_all_at(b"tail", 4 * MIB).unwrap();
    let source = Source::open(file.path(), &SourceOptions::default()).unwrap();
    assert_eq!(
        (source.size(), source.is_block_device()),
        (4 * MIB + 5, false)
    );
    assert_eq!(source.path(), file.path());
    let mut data = Vec::new();
    let mut map = source.hole_map().unwrap();
    map.allocated(&mut |extent| {
        data.push(extent.offset.0);
        true
    })
    .unwrap();
    assert_eq!(data, [4 * MIB]);
    let mut queue = source.queue(&QueueOptions::default()).unwrap();
    queue.read(1, 4 * MIB, 5, AlignedBuffer::new(4096));
    assert_eq!(queue.wait().unwrap().buffer[..5], *b"tail\0");
    assert!(source.check_unchanged().unwrap());
    assert!(source.warnings().is_empty(), "{:?}", source.warnings());
    assert_eq!(source.identity().kind, "file");
}

#[test]
fn a_write_or_a_cut_during_the_read_is_noticed() {
    let file = image(MIB);
    let source = Source::open(file.path(), &SourceOptions::default()).unwrap();
    file.as_file().set_len(MIB / 2).unwrap();
    assert!(!source.check_unchanged().unwrap());
    let source = Source::open(file.path(), &SourceOptions::default()).unwrap();
    let before = file.as_file().metadata().unwrap().modified().unwrap();
    // Kernels before 6.13 stamp in steps of a timer tick: write until the stamp moves.
    while file.as_file().metadata().unwrap().modified().unwrap() == before {
        file.as_file().write_all_at(b"x", 7).unwrap();
    }
    assert!(!source.check_unchanged().unwrap());
}

#[test]
fn what_cannot_be_a_source_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    refusal(directory.path());
    refusal(Path::new("/dev/null"));
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    refusal(&fifo);
    let missing = Source::open(&directory.path().join("no"), &SourceOptions::default());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_quiet_block_device_is_read() {
    let file = image(2 * MIB);
    let device = LoopDevice::attach(file.path(), 4096).unwrap();
    let source = Source::open(device.path(), &SourceOptions::default()).unwrap();
    assert_eq!((source.size(), source.block_size()), (2 * MIB, 4096));
    assert!(source.is_block_device());
    assert!(source.check_unchanged().unwrap());
    assert_eq!(source.hole_map().unwrap().capabilities().name, "scan");
    assert_eq!(source.identity().kind, "block");
    // Reading holds nobody up.
    Source::open(device.path(), &SourceOptions::default()).unwrap();
}

#[test]
fn a_mounted_device_is_refused_or_counts_as_changed() {
    let file = image(16 * MIB);
    let device = LoopDevice::attach(file.path(), 512).unwrap();
    let quiet = Source::open(device.path(), &SourceOptions::default()).unwrap();
    let mounted = Mounted::new(device.path());
    let error = refusal(device.path());
    let place = mounted.0.path().display().to_string();
    assert!(
        error.to_string().contains(&format!("mounted at {place}")),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("--allow-live"));
    let live = Source::open(device.path(), &SourceOptions { allow_live: true }).unwrap();
    assert!(
        !quiet.check_unchanged().unwrap(),
        "mounted while it was read"
    );
    drop(mounted);
    assert!(
        !live.check_unchanged().unwrap(),
        "was mounted when it was opened"
    );
}

#[test]
fn a_device_that_others_hold_is_refused() {
    let file = image(2 * MIB);
    let device = LoopDevice::attach(file.path(), 512).unwrap();
    let exclusive =
        occupancy::open_exclusive(device.path(), OpenOptions::new().read(true)).unwrap();
    assert!(refusal(device.path()).to_string().contains("in use"));
    drop(exclusive);
    let writer = Holder::new(OpenOptions::new().write(true).open(device.path()).unwrap());
    let error = refusal(device.path()).to_string();
    assert!(
        error.contains(&format!("process {} (sleep)", writer.0.id())),
        "{error}"
    );
    drop(writer);
    let _reader = Holder::new(File::open(device.path()).unwrap());
    Source::open(device.path(), &SourceOptions::default()).unwrap();
}

#[test]
fn each_warning_is_said_once() {
    let warnings = Mutex::new(Vec::new());
    for warning in [Some("a"), None, Some("b"), Some("a")] {
        remember(&warnings, warning.map(str::to_owned));
    }
    assert_eq!(warnings.into_inner().unwrap(), ["a", "b"]);
}

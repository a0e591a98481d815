use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use nix::libc;

use super::*;
use crate::ErrorKind;
use crate::device::file::Direction;

fn file() -> (tempfile::NamedTempFile, Arc<DeviceFile>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device = DeviceFile::open(file.reopen().unwrap(), file.path(), Direction::Write).unwrap();
    (file, Arc::new(device))
}

fn forbidden(_file: Arc<DeviceFile>, _depth: usize) -> io::Result<Uring> {
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

#[test]
fn where_io_uring_is_forbidden_threads_run_and_say_so() {
    let (_file, device) = file();
    let (mut queue, warning) = open_with(&device, &QueueOptions::default(), forbidden).unwrap();
    assert_eq!(queue.engine(), "threads");
    assert!(warning.unwrap().contains("io_uring cannot be used"));
    queue.read(1, 0, 4096, AlignedBuffer::new(4096));
    assert!(queue.wait().unwrap().result.is_ok());
}

#[test]
fn who_insists_on_io_uring_gets_the_reason() {
    let (_file, device) = file();
    let options = QueueOptions {
        engine: EngineChoice::IoUring,
        ..QueueOptions::default()
    };
    let error = open_with(&device, &options, forbidden).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.hint_text().unwrap().contains("seccomp"));
}

#[test]
fn who_wants_threads_is_not_probed() {
    let (_file, device) = file();
    let options = QueueOptions {
        engine: EngineChoice::Threads,
        ..QueueOptions::default()
    };
    let probe = |_: Arc<DeviceFile>, _: usize| -> io::Result<Uring> { unreachable!("probed") };
    let (queue, warning) = open_with(&device, &options, probe).unwrap();
    assert_eq!((queue.engine(), warning), ("threads", None));
}

#[test]
fn a_depth_of_nothing_or_of_everything_is_bounded() {
    let (_file, device) = file();
    for (asked, given) in [(0, 1), (usize::MAX, MAX_DEPTH)] {
        let options = QueueOptions {
            depth: asked,
            buffer_len: 4096,
            engine: EngineChoice::IoUring,
        };
        let (mut queue, _) = open(&device, &options).unwrap();
        assert_eq!(queue.take_buffers().len(), given);
    }
}

#[test]
fn buffers_and_file_are_registered_where_nothing_forbids_it() {
    let (_file, device) = file();
    let options = QueueOptions {
        engine: EngineChoice::IoUring,
        ..QueueOptions::default()
    };
    let (mut queue, warning) = open(&device, &options).unwrap();
    assert_eq!((queue.take_buffers().len(), warning), (DEFAULT_DEPTH, None));
    let text = format!("{queue:?}");
    assert!(text.contains("buffers_registered: true"), "{text}");
    assert!(text.contains("file_registered: true"), "{text}");
}

/// A script that a queue may write to, and whose queue is gone: whether the kernel still refuses to run it for that reason.
fn is_held_after_its_queue(options: &QueueOptions) -> bool {
    let script = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&script, "#!/bin/true\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    let file = File::options().read(true).write(true).open(&script);
    let device = DeviceFile::open(file.unwrap(), &script, Direction::Write).unwrap();
    let device = Arc::new(device);
    let (mut queue, _) = open(&device, options).unwrap();
    queue.read(1, 0, 12, AlignedBuffer::new(4096));
    assert!(queue.wait().unwrap().result.is_ok());
    drop((queue, device));
    Command::new(&*script)
        .status()
        .is_err_and(|error| error.kind() == io::ErrorKind::ExecutableFileBusy)
}

#[test]
fn a_dropped_queue_holds_its_device_no_longer() {
    for engine in [EngineChoice::IoUring, EngineChoice::Threads] {
        let options = QueueOptions {
            engine,
            ..QueueOptions::default()
        };
        // A program that another test starts has our descriptors for its first moment, so that a few may be held.
        let held = (0..40).filter(|_| is_held_after_its_queue(&options));
        let held = held.count();
        assert!(held < 10, "{held} of 40 with {engine:?}");
    }
}

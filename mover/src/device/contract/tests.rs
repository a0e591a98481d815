//! The suite on every kind of device this machine can make; loop devices and ramfs need root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::device::loop_device::LoopDevice;
use crate::device::target::{Target, TargetOptions};

const ENGINES: [EngineChoice; 2] = [EngineChoice::IoUring, EngineChoice::Threads];
const MIB: u64 = 1 << 20;

fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn target(path: &Path, size: u64) -> Target {
    let options = TargetOptions {
        force: true,
        delta: false,
        size,
        chunk_size: 131_072,
        repository_path: None,
    };
    Target::open(path, &options).unwrap()
}

fn run_on(path: &Path, size: u64) -> Vec<String> {
    let target = target(path, size);
    for engine in ENGINES {
        let open = |options: &QueueOptions| target.queue(options).unwrap();
        run(
            &Subject {
                open: &open,
                size,
                engine,
            },
            seed(),
        );
    }
    target.warnings()
}

fn image(directory: &Path, size: u64) -> PathBuf {
    let path = directory.join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

#[test]
fn regular_and_sparse_files_of_odd_sizes() {
    for size in [
        4 * MIB,
        4 * MIB + 512,
        4 * MIB + 1,
        3 * MIB + 4095,
        2 * MIB - 513,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let warnings = run_on(&directory.path().join("new"), size);
        assert!(warnings.is_empty(), "{warnings:?}");
        run_on(&image(directory.path(), size), size);
    }
}

#[test]
fn block_devices_of_both_sector_sizes() {
    for sector in [512, 4096] {
        let directory = tempfile::tempdir().unwrap();
        let size = 4 * MIB + u64::from(sector);
        let device = LoopDevice::attach(&image(directory.path(), size), sector).unwrap();
        let warnings = run_on(device.path(), size);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(target(device.path(), size).block_size(), sector);
        // A point whose end is inside a block of the device.
        let mut queue = target(device.path(), 1)
            .queue(&QueueOptions::default())
            .unwrap();
        let offset = 4096 * 3;
        let mut buffer = AlignedBuffer::new(4096);
        buffer[..777].fill(9);
        queue.write(1, offset, 777, buffer);
        good(queue.wait());
        queue.read(2, offset, 777, AlignedBuffer::new(4096));
        assert_eq!(good(queue.wait()).buffer[..777], [9; 777]);
    }
}

#[test]
fn shared_memory() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    run_on(&image(directory.path(), 4 * MIB + 77), 4 * MIB + 77);
}

#[test]
fn where_little_memory_may_be_locked_buffers_work_unregistered() {
    // Root is exempt from the limit as long as it has the capability; this runs one test again without it. A megabyte is
    // room for every ring, which counts as well, and too little for 32 buffers.
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-ipc_lock",
            "prlimit",
            "--memlock=1048576:1048576",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "device::contract::tests::shared_memory",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
    assert!(text.contains("buffers_registered: false"), "{text}");
}

/// A file system that refuses direct I/O, unmounted on drop.
struct Ramfs(tempfile::TempDir);

impl Ramfs {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "ramfs", "ramfs"])
            .arg(directory.path())
            .status();
        assert!(mounted.unwrap().success());
        Self(directory)
    }
}

impl Drop for Ramfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_system_without_direct_io_is_read_through_the_page_cache_and_says_so_once() {
    let ramfs = Ramfs::mount();
    let warnings = run_on(&image(ramfs.0.path(), 2 * MIB + 3), 2 * MIB + 3);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("refuses direct I/O"), "{warnings:?}");
}

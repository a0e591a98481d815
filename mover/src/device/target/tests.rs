use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use super::*;
use crate::device::loop_device::LoopDevice;

const MIB: u64 = 1 << 20;
const CHUNK: usize = 131_072;

fn options(size: u64) -> TargetOptions {
    TargetOptions {
        force: false,
        delta: false,
        size,
        chunk_size: 131_072,
        repository_path: None,
    }
}

fn force(size: u64) -> TargetOptions {
    TargetOptions {
        force: true,
        ..options(size)
    }
}

fn delta(size: u64) -> TargetOptions {
    TargetOptions {
        delta: true,
        ..options(size)
    }
}

fn refusal(path: &Path, options: &TargetOptions) -> Error {
    let error = Target::open(path, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    error
}

fn write(target: &Target, offset: u64, bytes: &[u8]) {
    let mut queue = target.queue(&QueueOptions::default()).unwrap();
    let mut buffer = AlignedBuffer::new(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    queue.write(0, offset, bytes.len(), buffer);
    queue.wait().unwrap().result.unwrap();
}

/// A loop device over a file full of 0xFF.
fn full_device(size: u64, sector: u32) -> (tempfile::NamedTempFile, LoopDevice) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file()
        .write_all_at(&vec![0xFF; usize::try_from(size).unwrap()], 0)
        .unwrap();
    let device = LoopDevice::attach(file.path(), sector).unwrap();
    (file, device)
}

/// The same over a file system that cannot make holes, so that the device has no discard. To switch the discard of a loop device
/// off would outlive it: the next one of that number would have none either.
fn full_device_without_discard(size: u64, sector: u32) -> LoopDevice {
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let status = command.args(arguments).arg(folder.path()).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    run("mount", &["-t", "ramfs", "ramfs"]);
    let path = folder.path().join("disk");
    fs::write(&path, vec![0xFF; usize::try_from(size).unwrap()]).unwrap();
    let device = LoopDevice::attach(&path, sector);
    // The device holds on to its file.
    run("umount", &["--lazy"]);
    let device = device.unwrap();
    let name = device.path().file_name().unwrap().to_str().unwrap();
    let discard = fs::read_to_string(format!("/sys/block/{name}/queue/discard_max_bytes")).unwrap();
    assert_eq!(discard.trim(), "0", "{name} can discard");
    device
}

#[test]
fn a_new_file_is_partial_until_it_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let (path, partial) = (
        directory.path().join("disk"),
        directory.path().join("disk.partial"),
    );
    let size = 4 * MIB + 7;
    let target = Target::open(&path, &options(size)).unwrap();
    assert!(target.is_fresh() && !path.exists() && partial.exists());
    target.protect().unwrap();
    target.zero(MIB, MIB).unwrap();
    write(&target, 4 * MIB, b"the end");
    target.settle(Some(&vec![b'1'; CHUNK])).unwrap();
    assert_eq!(target.read_back(4 * MIB, 7).unwrap(), b"the end");
    assert_eq!(target.read_back(0, CHUNK).unwrap(), vec![b'1'; CHUNK]);
    target.finish(None).unwrap();
    assert!(!partial.exists());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), size);
    assert!(metadata.blocks() * 512 < 512 * 1024, "holes stay holes");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes[CHUNK..4 << 20].iter().all(|byte| *byte == 0));
}

#[test]
fn what_a_broken_run_left_is_replaced_or_continued_with_delta() {
    let directory = tempfile::tempdir().unwrap();
    let (path, partial) = (
        directory.path().join("disk"),
        directory.path().join("disk.partial"),
    );
    write(
        &Target::open(&path, &options(2 * MIB)).unwrap(),
        MIB,
        b"half",
    );
    let target = Target::open(&path, &delta(MIB + 100)).unwrap();
    assert!(!target.is_fresh());
    assert_eq!(target.read_back(MIB, 4).unwrap(), b"half");
    drop(target);
    let target = Target::open(&path, &options(2 * MIB)).unwrap();
    assert!(target.is_fresh());
    assert_eq!(target.read_back(MIB, 4).unwrap(), [0; 4]);
    // While one restore writes it, a second one stays away.
    assert!(
        refusal(&path, &options(2 * MIB))
            .to_string()
            .contains("locked")
    );
    target.finish(None).unwrap();
    assert!(path.exists() && !partial.exists());
}

#[test]
fn a_file_that_appears_meanwhile_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let target = Target::open(&path, &options(MIB)).unwrap();
    fs::write(&path, "mine").unwrap();
    let error = target.finish(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.hint_text().unwrap().contains("disk.partial"));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert!(directory.path().join("disk.partial").exists());
}

#[test]
fn an_existing_file_needs_leave_and_gets_the_exact_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    for old_size in [MIB, 5 * MIB] {
        fs::write(&path, vec![0xFF; usize::try_from(old_size).unwrap()]).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let error = refusal(&path, &options(3 * MIB + 5));
        assert!(error.hint_text().unwrap().contains("--force"), "{error}");
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            old_size,
            "a refusal changes nothing"
        );
        let target = Target::open(&path, &force(3 * MIB + 5)).unwrap();
        assert!(!target.is_fresh() && !target.is_block_device());
        target.protect().unwrap();
        assert_eq!(fs::read(&path).unwrap()[..CHUNK], [0; CHUNK]);
        target
            .zero(CHUNK as u64, 3 * MIB + 5 - CHUNK as u64)
            .unwrap();
        target.finish(Some(&[b'1'; CHUNK])).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, 3 * MIB + 5);
        assert!(bytes[..CHUNK].iter().all(|byte| *byte == b'1'));
        assert!(bytes[CHUNK..].iter().all(|byte| *byte == 0));
        assert_eq!(
            fs::metadata(&path).unwrap().ino(),
            inode,
            "written in place"
        );
    }
}

#[test]
fn an_empty_file_may_be_filled() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let target = Target::open(file.path(), &options(10)).unwrap();
    target.protect().unwrap();
    target.finish(Some(b"0123456789")).unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"0123456789");
}

#[test]
fn zeros_are_certain_on_devices_whose_discard_does_nothing() {
    for sector in [512, 4096] {
        let device = full_device_without_discard(4 * MIB, sector);
        let target = Target::open(device.path(), &options(3 * MIB + 100)).unwrap();
        assert!(target.is_block_device() && !target.is_fresh());
        target.protect().unwrap();
        target.zero(MIB, 2 * MIB + 100).unwrap();
        target.zero(CHUNK as u64 + 1, 5).unwrap();
        assert!(target.zero(4 * MIB - 1, 2).is_err());
        target.settle(Some(&[b'1'; CHUNK])).unwrap();
        let bytes = target.read_back(0, 4 << 20).unwrap();
        target.finish(None).unwrap();
        let runs = [
            (0, CHUNK, b'1'),
            (CHUNK, CHUNK + 1, 0xFF),
            (CHUNK + 1, CHUNK + 6, 0),
            (CHUNK + 6, 1 << 20, 0xFF),
            (1 << 20, (3 << 20) + 100, 0),
            ((3 << 20) + 100, 4 << 20, 0xFF),
        ];
        for (start, end, value) in runs {
            let wrong = bytes[start..end].iter().position(|byte| *byte != value);
            assert_eq!(
                wrong, None,
                "sector {sector}, {start}..{end} should be {value}"
            );
        }
    }
}

#[test]
fn a_file_system_without_holes_gets_zeros_written() {
    let (_file, device) = full_device(MIB, 512);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device.path())
        .unwrap();
    let file =
        DeviceFile::open(file, device.path(), crate::device::file::Direction::Write).unwrap();
    zero::write_zeros(&file, 4096 * 3 + 1, 300_000).unwrap();
    let (bytes, range) = file.read_now(0, 1 << 20).unwrap();
    for (position, byte) in bytes[range].iter().enumerate() {
        let inside = (4096 * 3 + 1..4096 * 3 + 1 + 300_000).contains(&position);
        assert_eq!(*byte, if inside { 0 } else { 0xFF }, "at {position}");
    }
}

#[test]
fn a_broken_restore_leaves_a_device_without_its_head() {
    let (_file, device) = full_device(2 * MIB, 512);
    let target = Target::open(device.path(), &options(2 * MIB)).unwrap();
    target.protect().unwrap();
    write(&target, MIB, &[b'2'; 4096]);
    drop(target);
    let target = Target::open(device.path(), &options(2 * MIB)).unwrap();
    assert_eq!(target.read_back(0, CHUNK).unwrap(), vec![0; CHUNK]);
}

#[test]
fn the_first_chunk_is_protected_and_given_or_neither() {
    let (_file, device) = full_device(2 * MIB, 512);
    let open = || Target::open(device.path(), &options(2 * MIB)).unwrap();
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(open().settle(Some(&[0; CHUNK]))), ErrorKind::Internal);
    open().finish(None).unwrap();
    assert_eq!(
        open().read_back(0, 1).unwrap(),
        [0xFF],
        "a range restore leaves the head alone"
    );
    let target = open();
    target.protect().unwrap();
    assert_eq!(kind(target.settle(None)), ErrorKind::Internal);
    assert_eq!(kind(target.settle(Some(&[0; 5]))), ErrorKind::Internal);
}

#[test]
fn a_device_that_is_small_or_read_only_is_refused() {
    let (file, device) = full_device(MIB, 512);
    let error = refusal(device.path(), &force(MIB + 1));
    assert!(error.to_string().contains("fewer than"), "{error}");
    let device = LoopDevice::attach_read_only(file.path()).unwrap();
    assert!(
        refusal(device.path(), &force(MIB))
            .to_string()
            .contains("read-only")
    );
}

#[test]
fn a_device_that_holds_something_needs_leave() {
    for (tool, content) in [
        ("mkfs.ext4", "ext4"),
        ("mkfs.xfs", "XFS"),
        ("mkfs.btrfs", "btrfs"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(512 * MIB).unwrap();
        let device = LoopDevice::attach(file.path(), 512).unwrap();
        let made = Command::new(tool)
            .arg("-q")
            .arg(device.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{tool}: {made:?}");
        let error = refusal(device.path(), &options(MIB));
        assert!(error.to_string().contains(content), "{error}");
        assert!(error.hint_text().unwrap().contains("--delta"));
        Target::open(device.path(), &force(MIB)).unwrap();
        Target::open(device.path(), &delta(MIB)).unwrap();
    }
}

#[test]
fn a_device_in_use_is_refused_even_with_force() {
    let (_file, device) = full_device(16 * MIB, 512);
    let held = Target::open(device.path(), &force(MIB)).unwrap();
    assert!(
        refusal(device.path(), &force(MIB))
            .to_string()
            .contains("in use")
    );
    drop(held);
    let directory = tempfile::tempdir().unwrap();
    for command in [
        Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(device.path()),
        Command::new("mount")
            .arg(device.path())
            .arg(directory.path()),
    ] {
        assert!(command.status().unwrap().success());
    }
    let error = Target::open(device.path(), &force(MIB)).map(drop);
    let unmounted = Command::new("umount")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert!(error.unwrap_err().to_string().contains("mounted at"));
}

#[test]
fn a_file_in_use_as_a_device_is_refused_even_with_force() {
    let (file, device) = full_device(MIB, 512);
    assert!(
        refusal(file.path(), &force(MIB))
            .to_string()
            .contains("held by loop")
    );
    drop(device);
    Target::open(file.path(), &force(MIB)).unwrap();
}

#[test]
fn nothing_in_the_repository_is_a_target() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    fs::create_dir_all(repository.join("seg")).unwrap();
    fs::write(repository.join("config"), "config").unwrap();
    std::os::unix::fs::symlink(&repository, directory.path().join("link")).unwrap();
    let options = TargetOptions {
        repository_path: Some(repository.clone()),
        ..force(MIB)
    };
    for inside in [
        "repository/config",
        "repository/seg/new",
        "link/new",
        "repository/../link/config",
    ] {
        let error = refusal(&directory.path().join(inside), &options);
        assert!(
            error.to_string().contains("in the repository"),
            "{inside}: {error}"
        );
    }
    Target::open(&directory.path().join("repository2"), &options).unwrap();
    assert_eq!(fs::read(repository.join("config")).unwrap(), b"config");
}

#[test]
fn what_cannot_be_a_target_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    refusal(directory.path(), &force(MIB));
    refusal(Path::new("/dev/null"), &force(MIB));
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    refusal(&dangling, &force(MIB));
    fs::create_dir(directory.path().join("disk.partial")).unwrap();
    assert!(Target::open(&directory.path().join("disk"), &force(MIB)).is_err());
    let missing = Target::open(&directory.path().join("no/disk"), &force(MIB));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

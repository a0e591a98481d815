//! Who else uses a file or block device: mounts, swap, holders in the kernel, loop devices, writing processes.
//!
//! Owns: the look-ups in `/proc` and `/sys`. Must not: refuse anything; sources and targets have different rules.
//!
//! Every look-up sees what this process is allowed to see, so a clean answer is no proof; opening a block device with
//! `O_EXCL` is, for everything but processes that merely have it open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;

use super::system::{FileKey, file_key};

/// What is busy for a moment (another program's probe, a child process between fork and exec) is asked again; a real user
/// stays longer than all tries.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Repeats `attempt` a few times while its answer is `busy`.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> T, busy: impl Fn(&T) -> bool) -> T {
    for _ in 1..BUSY_TRIES {
        let answer = attempt();
        if !busy(&answer) {
            return answer;
        }
        thread::sleep(BUSY_PAUSE);
    }
    attempt()
}

/// Who uses the file or device, in words for a message: "mounted at /data", "held by dm-0".
pub(super) fn user(key: FileKey) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut keys = vec![key];
    if let FileKey::Device { major, minor } = key {
        keys.extend(partitions(major, minor));
    }
    keys.iter()
        .find_map(|key| {
            mounted_at(*key, &mounts)
                .map(|place| format!("mounted at {place}"))
                .or_else(|| is_swap(*key, &swaps).then(|| "in use as swap".to_owned()))
                .or_else(|| holder(*key).map(|holder| format!("held by {holder}")))
        })
        .or_else(|| patiently(|| writer(key), Option::is_some))
}

/// Opens a block device for exclusive use, which the kernel refuses (EBUSY) while it is mounted, in use as swap, part of
/// another device, or exclusively open elsewhere, in any container.
pub(super) fn open_exclusive(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let mut options = options.clone();
    options.custom_flags(libc::O_EXCL | libc::O_CLOEXEC);
    let busy = |opened: &io::Result<File>| {
        opened
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    };
    patiently(|| options.open(path), busy)
}

/// The mount point of a device, from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn mounted_at(key: FileKey, mountinfo: &str) -> Option<String> {
    let FileKey::Device { major, minor } = key else {
        return None;
    };
    let number = format!("{major}:{minor}");
    mountinfo.lines().find_map(|line| {
        let (fields, source) = line.split_once(" - ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // btrfs shows a made-up number in the third field; the source after the type still names the device.
        let source = source.split(' ').nth(1).map(unescape);
        let by_source = || {
            source
                .filter(|source| source.starts_with("/dev/"))
                .is_some_and(|source| file_key(Path::new(&source)).is_ok_and(|found| found == key))
        };
        let mounted = fields.get(2) == Some(&number.as_str()) || by_source();
        mounted
            .then(|| fields.get(4).map(|place| unescape(place)))
            .flatten()
    })
}

/// Undoes the octal escapes of blanks, tabs, newlines and backslashes.
fn unescape(field: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .iter()
        .fold(field.to_owned(), |field, (escape, plain)| {
            field.replace(escape, plain)
        })
}

fn is_swap(key: FileKey, swaps: &str) -> bool {
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .any(|path| file_key(Path::new(&unescape(path))).is_ok_and(|found| found == key))
}

fn sysfs(major: u32, minor: u32) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn partitions(major: u32, minor: u32) -> Vec<FileKey> {
    let disk = sysfs(major, minor);
    let number = |name: String| {
        let directory = disk.join(name);
        directory.join("partition").exists().then_some(())?;
        let text = fs::read_to_string(directory.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(FileKey::Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    };
    names_in(&disk).into_iter().filter_map(number).collect()
}

/// The device in the kernel that is built on this one: dm, md or bcache on a device, loop on a file.
fn holder(key: FileKey) -> Option<String> {
    match key {
        FileKey::Device { major, minor } => names_in(&sysfs(major, minor).join("holders"))
            .into_iter()
            .next(),
        FileKey::File { .. } => names_in(Path::new("/sys/block")).into_iter().find(|name| {
            let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
            let path = fs::read_to_string(backing).ok();
            path.is_some_and(|path| {
                file_key(Path::new(path.trim_end_matches('\n'))).is_ok_and(|found| found == key)
            })
        }),
    }
}

/// A process other than this one that has the file or device open for writing.
fn writer(key: FileKey) -> Option<String> {
    let ours = std::process::id();
    let processes = names_in(Path::new("/proc"))
        .into_iter()
        .filter_map(|name| name.parse().ok());
    processes
        .filter(|process: &u32| *process != ours)
        .find_map(|process| {
            let directory = PathBuf::from(format!("/proc/{process}"));
            let writes = |descriptor: &String| {
                is_open_on(&directory.join("fd").join(descriptor), key)
                    && is_writable(&directory.join("fdinfo").join(descriptor))
            };
            names_in(&directory.join("fd")).iter().any(writes).then(|| {
                let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
                format!(
                    "open for writing in process {process} ({})",
                    name.trim_end()
                )
            })
        })
}

fn is_open_on(descriptor: &Path, key: FileKey) -> bool {
    // Sockets, pipes and the like have no absolute path, and are most of what is open.
    fs::read_link(descriptor).is_ok_and(|path| path.is_absolute())
        && file_key(descriptor).is_ok_and(|found| found == key)
}

fn is_writable(info: &Path) -> bool {
    fs::read_to_string(info).is_ok_and(|text| has_write_flag(&text))
}

/// Whether the `flags:` line of a `/proc/PID/fdinfo` file says `O_WRONLY` or `O_RDWR`.
fn has_write_flag(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let mode = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    mode.is_some_and(|mode| mode & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
mod tests;

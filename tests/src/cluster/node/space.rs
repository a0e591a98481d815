//! The namespaces of a node: its mounts and processes, which end with its first process.
//!
//! Owns: their start, their end, and what outlives namespaces: control groups and loop devices. Must not: know what runs in them.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::part;
use crate::process::Process;

/// Seen: 50 ms.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// The first process of a node. Mounts of the machine that come later are seen as well; none of its own is seen outside. A shell
/// and not `sleep`, because orphans of the node become its children and must be waited for.
const INIT: &str = r#"
set -e
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mount --bind "$1/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$1/containerd" /var/lib/containerd
touch "$1/ready"
while :; do sleep 3600; done
"#;

/// Running namespaces; dropping them kills all that is in them.
#[derive(Debug)]
pub(super) struct Space {
    init: Process,
    folder: PathBuf,
}

impl Space {
    /// Starts them over the disks in `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        // Empty mount points, as the packages of a node make them.
        for point in ["/var/lib/kubelet", "/var/lib/containerd"] {
            std::fs::create_dir_all(point)?;
        }
        make_cgroups(&cgroup(folder))?;
        let ready = folder.join("ready");
        let _ = std::fs::remove_file(&ready);
        let mut args: Vec<String> = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
            .iter()
            .map(ToString::to_string)
            .collect();
        args.extend(["--propagation=slave", "--", "sh", "-c", INIT, "init"].map(str::to_owned));
        args.push(folder.display().to_string());
        let log = folder.join("logs/init.log");
        let unshare = part::program("unshare", "util-linux")?;
        let init = Process::start(&unshare, &args, &[], &log)?.of_child()?;
        init.wait_until(START_LIMIT, || ready.exists())?;
        Ok(Self {
            init,
            folder: folder.to_owned(),
        })
    }

    /// Its first process, as this machine counts.
    pub(super) fn init(&self) -> i32 {
        self.init.pid()
    }

    /// Arguments of `nsenter`, up to the program.
    pub(super) fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.init());
        [&target, "--mount", "--pid", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// How this process reaches a path of the node.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.init()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The kubelet lays a loop device over every block volume. It is the machine's, and names a file by a path that means something
    /// in the node only: it is this node's where that path is a device here.
    fn detach_loops(&self) -> Result<()> {
        let mut list = Command::new("nsenter");
        list.args(self.enter());
        list.args([
            "losetup",
            "--list",
            "--noheadings",
            "--output=NAME,BACK-FILE",
        ]);
        for line in part::run(&mut list)?.lines() {
            let Some((device, file)) = line.split_once(char::is_whitespace) else {
                continue;
            };
            let file = Path::new(file.trim());
            let ours = file.starts_with("/var/lib/kubelet/")
                && std::fs::metadata(self.outside(file))
                    .is_ok_and(|file| file.file_type().is_block_device());
            if ours {
                part::run(Command::new("losetup").arg("--detach").arg(device))?;
            }
        }
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Nobody is left to hear of it; what is left shows in the next test that counts.
        let _ = self.detach_loops();
        let _ = end(self.init());
        let _ = remove_cgroups(&cgroup(&self.folder));
    }
}

/// The name of the node's control group: its folder's, which is unique on the machine.
pub(super) fn cgroup(folder: &Path) -> String {
    let mut name = String::from("/");
    for part in folder.iter().rev().take(2) {
        name.push_str(&part.to_string_lossy());
        name.push('-');
    }
    name.trim_end_matches('-').to_owned()
}

/// The kubelet makes groups below one that must exist; a new group of CPUs is empty and takes no process.
fn make_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name.trim_start_matches('/'));
        std::fs::create_dir_all(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                // A control group of version 2 takes its parent's without being told.
                let _ = std::fs::write(group.join(file), value);
            }
        }
    }
    Ok(())
}

fn remove_cgroups(name: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let mut left = false;
        for hierarchy in hierarchies()? {
            let group = hierarchy.join(name.trim_start_matches('/'));
            left |= group.exists() && remove_tree(&group).is_err();
        }
        if !left || begin.elapsed() > END_LIMIT {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// Removes groups from the innermost outwards; their files go with them.
fn remove_tree(group: &Path) -> Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(std::fs::remove_dir(group)?)
}

/// The mounted hierarchies, of version 1, or the single one of version 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        return Ok(vec![PathBuf::from(CGROUPS)]);
    }
    let entries = std::fs::read_dir(CGROUPS)?.collect::<std::io::Result<Vec<_>>>()?;
    Ok(entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| path.join("cgroup.procs").exists())
        .collect())
}

fn end(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid);
    kill(pid, Signal::SIGKILL)?;
    let begin = Instant::now();
    while kill(pid, None).is_ok() {
        if begin.elapsed() > END_LIMIT {
            bail!("process {pid} is there {END_LIMIT:?} after it was killed");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

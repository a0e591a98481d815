//! The namespaces of a node: its mounts and processes, which end with its first process.
//!
//! Owns: their start, their end, and what outlives namespaces: control groups and loop devices. Must not: know what runs in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::csi::leaks::loop_devices;
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
    init: i32,
    folder: PathBuf,
    // Ends once init has.
    _holder: Process,
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
        let holder = Process::start(&part::program("unshare", "util-linux")?, &args, &[], &log)?;
        holder.wait_until(START_LIMIT, || ready.exists())?;
        Ok(Self {
            init: child_of(holder.pid())?,
            folder: folder.to_owned(),
            _holder: holder,
        })
    }

    /// Its first process, as this machine counts.
    pub(super) fn init(&self) -> i32 {
        self.init
    }

    /// Arguments of `nsenter`, up to the program.
    pub(super) fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.init);
        [&target, "--mount", "--pid", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// How this process reaches a path of the node.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Kills what an `nsenter` with this pid runs, and waits for its end.
    pub(super) fn kill(&self, nsenter: i32) -> Result<()> {
        end(child_of(nsenter)?)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Nobody is left to hear of it; what is left shows in the next test that counts.
        let _ = end(self.init);
        let _ = remove_cgroups(&cgroup(&self.folder));
        detach_loops(&self.folder.join("kubelet"));
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

/// The kubelet lays a loop device over every block volume. It is the machine's and names a file of the node's folder, by the node's
/// name for it: it is this node's where the same file is in this node's folder.
fn detach_loops(kubelet: &Path) {
    let inside = Path::new("/var/lib/kubelet");
    for (device, file) in loop_devices(inside).unwrap_or_default() {
        let ours = file
            .strip_prefix(inside)
            .is_ok_and(|rest| kubelet.join(rest).exists());
        if ours {
            let _ = Command::new("losetup").arg("--detach").arg(device).status();
        }
    }
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

/// The only child of a process that forked once.
fn child_of(parent: i32) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // `PID (NAME) STATE PARENT …`; the name may hold anything.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        if after.split(' ').nth(1).and_then(|text| text.parse().ok()) == Some(parent) {
            return Ok(pid);
        }
    }
    None.with_context(|| format!("process {parent} has no child"))
}

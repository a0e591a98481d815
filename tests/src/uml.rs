//! A kernel of its own, as an ordinary process: User Mode Linux with this machine's files as its root.
//!
//! Owns: starting it with a script as its first process, and its end. Must not: know what the script does.
//!
//! The script may write to its folder only; `/run` and `/var/lib` are its own.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::part;

/// What takes minutes on two busy cores.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Where the package user-mode-linux keeps the modules of its kernels.
const MODULES: &str = "/usr/lib/uml/modules";
/// See there: without it the kernel does not start on machines with AMX.
const SHIM: &str = include_str!("../../changed-blocks/tests/thin/machine.c");

/// Runs the lines of `script` by `sh` in `folder`, as root of a machine with an empty disk `/dev/ubda` of `disk_bytes` and the
/// kernel modules `modules`, until they end.
///
/// # Errors
/// Where a part is missing, the machine does not come to the end of the script, or a line fails; with the end of its log.
pub fn run(folder: &Path, disk_bytes: u64, modules: &str, script: &str) -> Result<()> {
    part::root()?;
    let program = part::program("linux.uml", "user-mode-linux")?;
    prepare(folder, disk_bytes, modules, script)?;
    let mut machine = Machine::start(&program, folder)?;
    let waited = machine.wait(&folder.join("ended"));
    drop(machine);
    let log = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (ended, written) = (log("ended"), log("log"));
    waited.with_context(|| format!("{}\n{written}", log("console")))?;
    ensure!(
        ended.trim() == "0",
        "the script ended with {ended}\n{written}"
    );
    Ok(())
}

fn prepare(folder: &Path, disk_bytes: u64, modules: &str, script: &str) -> Result<()> {
    let shim = folder.join("machine.c");
    fs::write(&shim, SHIM)?;
    part::run(
        Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&folder.join("machine.so"), &shim]),
    )?;
    // modprobe looks under lib/modules of the folder that it is given.
    fs::create_dir_all(folder.join("lib"))?;
    symlink(MODULES, folder.join("lib/modules"))?;
    File::create(folder.join("disk"))?.set_len(disk_bytes)?;
    fs::write(folder.join("script"), script)?;
    let here = folder.display();
    let init = folder.join("init");
    // The first process never ends: that would be a panic of the kernel.
    fs::write(
        &init,
        format!(
            "#!/bin/sh
exec >'{here}/log' 2>&1 </dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR='{here}' HOME='{here}' RUST_BACKTRACE=1
cd '{here}'
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
modprobe -d '{here}' -a {modules}
sh -eux ./script
echo $? >ended.part
mv ended.part ended
while :; do sleep 1000; done
"
        ),
    )?;
    fs::set_permissions(&init, PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// A machine at work: each of its processes is one of the host's, in one group.
///
/// The guard kills the group once its input ends, which it does even where the test is killed.
struct Machine {
    kernel: Child,
    guard: Child,
}

impl Machine {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let console = File::create(folder.join("console"))?;
        let mut kernel = Command::new(program)
            .env("LD_PRELOAD", folder.join("machine.so"))
            // Its sockets and locks go there, not to the home folder.
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .args(["mem=512M", "root=/dev/root", "rootfstype=hostfs"])
            .args(["rootflags=/", "rw", "quiet", "con=null", "con0=null,fd:1"])
            .arg(format!("init={}", folder.join("init").display()))
            .arg(format!("ubd0={}", folder.join("disk").display()))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .spawn()?;
        let group = format!("-{}", kernel.id());
        let guard = Command::new("sh")
            .args(["-c", "read -r line; kill -9 \"$1\"", "sh", &group])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { kernel, guard }),
            Err(error) => {
                kernel.kill()?;
                kernel.wait()?;
                Err(error.into())
            }
        }
    }

    fn wait(&mut self, ended: &Path) -> Result<()> {
        let deadline = Instant::now() + TIME_LIMIT;
        while !ended.exists() {
            if let Some(status) = self.kernel.try_wait()? {
                bail!("the machine ended ({status})");
            }
            ensure!(
                Instant::now() < deadline,
                "the machine was not done after {TIME_LIMIT:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.kernel.wait();
    }
}

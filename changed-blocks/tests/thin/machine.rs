//! The machine in which the cases run, seen from outside.
//!
//! Owns: starting and ending it, its time limit, and the report. Must not: touch a device of this machine.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::inside::{Case, END, INSIDE, RESULTS, SEED};

/// All cases take some minutes on two cores that have nothing else to do.
const TIME_LIMIT: Duration = Duration::from_secs(1800);
const DISK_BYTES: u64 = 4 << 30;
/// Program or file, and the Debian package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("linux.uml", "user-mode-linux"),
    ("modprobe", "kmod"),
    ("dmsetup", "dmsetup"),
    ("thin_delta", "thin-provisioning-tools"),
    ("lvm", "lvm2"),
    ("blkdiscard", "util-linux"),
    ("cc", "build-essential"),
];
/// Where the package user-mode-linux keeps the modules of its kernels.
const MODULES: &str = "/usr/lib/uml/modules";

/// Runs the cases that the arguments choose, and reports them as the test harness does.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<_> = cases
        .iter()
        .filter(|case| is_chosen(case.0, &arguments))
        .map(|case| case.0)
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if chosen.is_empty() {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    let outcome = missing().map_or_else(|| in_machine(&chosen), Err);
    report(&chosen, outcome)
}

/// As the test harness chooses: a case is run if a free argument is part of its name, or there is none.
fn is_chosen(name: &str, arguments: &[String]) -> bool {
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let matches = |filter: &String| {
        if exact {
            name == filter
        } else {
            name.contains(filter.as_str())
        }
    };
    let (mut filters, mut skips) = (Vec::new(), Vec::new());
    let mut all = arguments.iter();
    while let Some(argument) = all.next() {
        match argument.as_str() {
            "--skip" => skips.extend(all.next()),
            "--test-threads" | "--color" | "--format" | "-Z" | "--logfile" => drop(all.next()),
            other if other.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    (filters.is_empty() || filters.into_iter().any(matches)) && !skips.into_iter().any(matches)
}

/// What to install; `None` where all is there.
fn missing() -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<_> = path.split(':').chain(["/usr/sbin", "/sbin"]).collect();
    let is_there = |name: &str| {
        folders
            .iter()
            .any(|folder| Path::new(folder).join(name).is_file())
    };
    let packages: Vec<_> = NEEDED
        .iter()
        .filter(|needed| !is_there(needed.0))
        .map(|needed| needed.1)
        .collect();
    (!packages.is_empty()).then(|| {
        format!(
            "run `tests/run`, which installs what is missing, or `apt-get install {}`",
            packages.join(" ")
        )
    })
}

/// Prints a line for each case, those without a result failed.
fn report(chosen: &[&str], outcome: Result<String, String>) -> ExitCode {
    let (results, trouble) = match outcome {
        Ok(results) => (results, None),
        Err(trouble) => (String::new(), Some(trouble)),
    };
    let (mut passed, mut failures) = (0, String::new());
    for name in chosen {
        let found = results
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        match found.and_then(|line| line.split_once('\t')) {
            Some(("ok", took)) => {
                println!("test {name} ... ok ({took})");
                passed += 1;
            }
            Some((_, why)) => {
                println!("test {name} ... FAILED");
                let _ = writeln!(failures, "---- {name} ----\n{}\n", why.replace("\\n", "\n"));
            }
            None => {
                println!("test {name} ... FAILED");
                let why = trouble.as_deref().unwrap_or("the machine ended before it");
                let _ = writeln!(failures, "---- {name} ----\n{why}\n");
            }
        }
    }
    let failed = chosen.len() - passed;
    if failed > 0 {
        println!("\nfailures:\n\n{failures}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

/// Starts the machine, waits for its results, and ends it.
fn in_machine(chosen: &[&str]) -> Result<String, String> {
    let folder = tempfile::Builder::new()
        .prefix("thin-machine-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let folder_path = folder.path();
    let started = prepare(folder_path, chosen).and_then(|()| start(folder_path));
    let machine = started.and_then(Machine::guarded);
    let mut machine = machine.map_err(|error| format!("start the machine: {error}"))?;
    let trouble = machine.wait_for_results(&folder_path.join(RESULTS));
    drop(machine);
    let results = fs::read_to_string(folder_path.join(RESULTS)).unwrap_or_default();
    if trouble.is_some() || results.contains("\tFAILED\t") {
        let [console, log] = ["console", "log"].map(|name| tail(&folder_path.join(name)));
        eprintln!("-- console\n{console}\n-- log\n{log}");
    }
    match trouble {
        Some(trouble) if results.is_empty() => Err(trouble),
        Some(trouble) => {
            eprintln!("{trouble}");
            Ok(results)
        }
        None => Ok(results),
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn prepare(folder: &Path, chosen: &[&str]) -> std::io::Result<()> {
    let shim = folder.join("machine.c");
    fs::write(&shim, include_str!("machine.c"))?;
    let library = folder.join("machine.so");
    let compiled = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &shim])
        .status()?;
    if !compiled.success() {
        return Err(std::io::Error::other(format!("cc: {compiled}")));
    }
    // modprobe looks under lib/modules of the folder that it is given.
    fs::create_dir_all(folder.join("lib"))?;
    std::os::unix::fs::symlink(MODULES, folder.join("lib/modules"))?;
    File::create(folder.join("disk"))?.set_len(DISK_BYTES)?;
    File::create(folder.join(RESULTS))?;
    let init = folder.join("init");
    fs::write(&init, init_script(folder, chosen)?)?;
    fs::set_permissions(&init, PermissionsExt::from_mode(0o755))
}

/// The machine's first process. It never ends: an end is a panic of the kernel. Nothing outside the folder is written.
fn init_script(folder: &Path, chosen: &[&str]) -> std::io::Result<String> {
    let (folder, binary) = (folder.display(), std::env::current_exe()?);
    let (binary, chosen) = (binary.display(), chosen.join(" "));
    let seed = std::env::var("SNAPHAUL_TEST_SEED").unwrap_or_default();
    Ok(format!(
        "#!/bin/sh
exec >'{folder}/log' 2>&1 </dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR='{folder}' HOME='{folder}' RUST_BACKTRACE=1
export {INSIDE}='{folder}' {SEED}='{seed}'
cd '{folder}'
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
modprobe -d '{folder}' -a dm-thin-pool dm-snapshot
'{binary}' {chosen}
echo '{END}' >>'{folder}/{RESULTS}'
while :; do sleep 1000; done
"
    ))
}

fn start(folder: &Path) -> std::io::Result<Child> {
    let console = File::create(folder.join("console"))?;
    let of_folder = |name: &str| -> PathBuf { folder.join(name) };
    Command::new("linux.uml")
        .env("LD_PRELOAD", of_folder("machine.so"))
        // Its sockets and locks go there, not to the home folder.
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .args([
            "mem=512M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            "quiet",
        ])
        .args(["con=null", "con0=null,fd:1"])
        .arg(format!("init={}", of_folder("init").display()))
        .arg(format!("ubd0={}", of_folder("disk").display()))
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .process_group(0)
        .spawn()
}

/// A machine at work: each of its processes is one of the host's, in one group.
///
/// The guard kills the group once its input ends, which it does even where this process is killed.
struct Machine {
    kernel: Child,
    guard: Child,
}

impl Machine {
    fn guarded(mut kernel: Child) -> std::io::Result<Self> {
        let group = format!("-{}", kernel.id());
        let guard = Command::new("sh")
            .args(["-c", "read -r line; kill -9 -- \"$1\"", "sh", &group])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { kernel, guard }),
            Err(error) => {
                let _ = kernel.kill();
                Err(error)
            }
        }
    }

    /// Waits until the results are complete; what went wrong where they never are.
    fn wait_for_results(&mut self, results: &Path) -> Option<String> {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let written = fs::read_to_string(results).unwrap_or_default();
            if written.lines().any(|line| line == END) {
                return None;
            }
            if let Ok(Some(status)) = self.kernel.try_wait() {
                return Some(format!("the machine ended ({status})"));
            }
            if Instant::now() > deadline {
                return Some(format!("the machine was not done after {TIME_LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.kernel.wait();
    }
}

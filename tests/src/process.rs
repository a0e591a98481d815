//! Servers as child processes that cannot outlive the tests.
//!
//! Owns: start, readiness, stop by pid. Must not: find processes by name.
//!
//! A keeper thread starts the child through `setpriv --pdeathsig KILL`: the kernel ends the child when that thread ends,
//! so even a test run that is killed leaves no server behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take from SIGTERM to its end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a program may take to fork.
const FORK_LIMIT: Duration = Duration::from_secs(20);
/// How often a keeper looks at its child and a waiter at its server.
const POLL: Duration = Duration::from_millis(50);

/// A running child; dropping it stops it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    /// The child that [`Self::of_child`] found.
    inner: Option<i32>,
    log: PathBuf,
    grace: Duration,
    /// Takes the grace of the end.
    stop: SyncSender<Duration>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program args…` with both outputs in `log` and `env` added to the environment.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start(
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let name = program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args);
        command.envs(env.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let (started, start) = mpsc::sync_channel(1);
        let (stop, stopped) = mpsc::sync_channel(1);
        let keeper = std::thread::Builder::new()
            .name(format!("keep {name}"))
            .spawn(move || {
                let child = command.spawn();
                let told = started.send(child.as_ref().map(Child::id).map_err(ToString::to_string));
                if let (Ok(mut child), Ok(())) = (child, told) {
                    keep(&mut child, &stopped);
                }
            })?;
        let pid = start
            .recv()?
            .map_err(|error| anyhow!("start {name}: {error}"))?;
        Ok(Self {
            name,
            pid: i32::try_from(pid)?,
            inner: None,
            log: log.to_owned(),
            grace: STOP_GRACE,
            stop,
            keeper: Some(keeper),
        })
    }

    /// For a program that forks once and waits, as `nsenter` and `unshare` do: from now on this is its child, which signals go to.
    /// The child is killed when this is dropped.
    ///
    /// # Errors
    /// Where it ends first or never forks.
    pub fn of_child(mut self) -> Result<Self> {
        let parent = self.pid;
        let mut found = None;
        self.wait_until(FORK_LIMIT, || {
            found = child_of(parent);
            found.is_some()
        })?;
        self.inner = found;
        Ok(self)
    }

    /// For a program with nothing to save or to take away: it is killed when this is dropped, which costs no time.
    #[must_use]
    pub fn without_grace(mut self) -> Self {
        self.grace = Duration::ZERO;
        self
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.inner.unwrap_or(self.pid)
    }

    /// Polls `ready` until it says yes.
    ///
    /// # Errors
    /// With the end of the log, where the child ends first or `limit` passes.
    pub fn wait_until(&self, limit: Duration, ready: impl FnMut() -> bool) -> Result<()> {
        self.wait_until_polling(POLL, limit, ready)
    }

    /// The same where a look is costly: one every `poll`.
    ///
    /// # Errors
    /// With the end of the log, where the child ends first or `limit` passes.
    pub fn wait_until_polling(
        &self,
        poll: Duration,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let begin = Instant::now();
        while !ready() {
            if self.has_ended() {
                bail!("{} ended while starting:\n{}", self.name, self.tail());
            }
            if begin.elapsed() > limit {
                bail!(
                    "{} is not ready after {limit:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(poll);
        }
        Ok(())
    }

    /// Freezes the server: connections stay open and nothing is answered.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn freeze(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), Signal::SIGSTOP)?)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn thaw(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), Signal::SIGCONT)?)
    }

    /// Ends it with SIGKILL, and waits for that.
    ///
    /// # Errors
    /// Where it is gone already.
    pub fn kill(self) -> Result<()> {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL)?;
        drop(self);
        Ok(())
    }

    /// Whether it has ended by itself, or was killed by somebody else.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.keeper.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(3000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The parent waits for it and would only end alone. Its number is its own while the parent waits.
        if let Some(inner) = self.inner
            && child_of(self.pid) == Some(inner)
        {
            let _ = kill(Pid::from_raw(inner), Signal::SIGKILL);
        }
        // The keeper may have gone with its child already; both outcomes end in the join.
        let _ = self.stop.try_send(self.grace);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The only child of a process that forked once; the kernel lists children only where it was built to.
fn child_of(parent: i32) -> Option<i32> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
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
            return Some(pid);
        }
    }
    None
}

/// Waits for the order to stop or for the child's own end, and leaves no zombie.
fn keep(child: &mut Child, stopped: &mpsc::Receiver<Duration>) {
    let grace = loop {
        match stopped.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) if matches!(child.try_wait(), Ok(None)) => {}
            Err(RecvTimeoutError::Timeout) => return,
            Ok(grace) => break grace,
            Err(RecvTimeoutError::Disconnected) => break STOP_GRACE,
        }
    };
    let Ok(pid) = i32::try_from(child.id()) else {
        return;
    };
    if !grace.is_zero() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let begin = Instant::now();
    while begin.elapsed() < grace {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

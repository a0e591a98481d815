//! Runs the binary `snaphaul` as users do: as a process, judged by exit code and output.
//!
//! Owns: finding the binary, a clean environment, reading JSON lines. Must not: call the library.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::part;

/// Longest a single command may take before the test calls it hung; kills included, nothing here needs a minute.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// Path of the binary: `SNAPHAUL_BIN`, else the one that cargo put beside this test.
///
/// # Errors
/// Where it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SNAPHAUL_BIN") {
        return Ok(PathBuf::from(path));
    }
    part::built("snaphaul")
}

/// A command line under construction.
#[derive(Debug)]
pub struct Snaphaul {
    command: Command,
}

impl Snaphaul {
    /// `snaphaul WORDS…` with nothing inherited from the user's environment but `PATH`.
    ///
    /// # Errors
    /// Where the binary was not built.
    pub fn new<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(words.iter().map(AsRef::as_ref)).env_clear();
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent");
        command
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("RUST_BACKTRACE", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Self { command })
    }

    /// Adds words.
    #[must_use]
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, words: &[S]) -> Self {
        self.command.args(words);
        self
    }

    /// Adds `FLAG VALUE`.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(flag).arg(value);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// Where it cannot be started or hangs.
    pub fn run(self) -> Result<Outcome> {
        self.start()?.wait()
    }

    /// Starts and returns at once.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(mut self) -> Result<Running> {
        let shown = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let child = self
            .command
            .spawn()
            .with_context(|| format!("start {shown}"))?;
        Ok(Running { child, shown })
    }
}

/// A run that has not ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
}

impl Running {
    /// Id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where it has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    /// The most memory that it had so far, in bytes; none once it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// From the system.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until `condition` holds; says whether it did before the run ended.
    ///
    /// # Errors
    /// Where nothing happens for the limit of a run.
    pub fn wait_for(&mut self, mut condition: impl FnMut() -> bool) -> Result<bool> {
        let begin = Instant::now();
        while begin.elapsed() < RUN_LIMIT {
            if condition() {
                return Ok(true);
            }
            if !self.is_running()? {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("nothing happened in {}", self.shown)
    }

    /// Waits until `condition` holds, which it has to while the run lives.
    ///
    /// # Errors
    /// Where the run ends first or `limit` passes: then with all that it said and what its threads were at, and it is killed.
    pub fn until(
        mut self,
        limit: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<Self> {
        let begin = Instant::now();
        while !condition()? {
            let running = self.is_running()?;
            if running && begin.elapsed() <= limit {
                std::thread::sleep(Duration::from_millis(5));
            } else if running || !condition()? {
                return Err(self.waited_in_vain(begin.elapsed()));
            }
        }
        Ok(self)
    }

    fn waited_in_vain(mut self, time: Duration) -> anyhow::Error {
        let threads = threads(self.child.id());
        let _ = self.child.kill();
        let shown = self.shown;
        match self.child.wait_with_output() {
            Ok(output) => {
                let outcome = Outcome::new(shown, &output);
                anyhow::anyhow!(
                    "what was waited for did not come within {time:?}; {} ended with {}\n{}\n{}\n{threads}",
                    outcome.shown,
                    outcome.status,
                    outcome.text(),
                    outcome.stderr
                )
            }
            Err(error) => anyhow::anyhow!("read what {shown} said: {error}"),
        }
    }

    /// Waits for its end. A run over the limit is killed and fails the test.
    ///
    /// # Errors
    /// Where it hangs.
    pub fn wait(self) -> Result<Outcome> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        let (ended, watch) = std::sync::mpsc::sync_channel::<()>(1);
        let guard = std::thread::spawn(move || {
            let hung = watch.recv_timeout(RUN_LIMIT).is_err();
            if hung {
                // The child was not waited for yet, so its id cannot belong to another process.
                let _ = kill(pid, Signal::SIGKILL);
            }
            hung
        });
        let output = self.child.wait_with_output()?;
        let _ = ended.send(());
        if guard.join().unwrap_or(false) {
            bail!("{} did not end within {RUN_LIMIT:?}", self.shown);
        }
        Ok(Outcome::new(self.shown, &output))
    }
}

/// What the threads of a process wait for, as far as the kernel tells.
fn threads(process: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let mut text = String::new();
    for task in tasks.into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        text.push_str(&format!("thread {}{}", read("comm"), read("stack")));
    }
    text
}

/// How a run ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub shown: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output, raw.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    fn new(shown: String, output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self {
            shown,
            status: output.status,
            stdout: output.stdout.clone(),
            stderr,
        }
    }

    /// Fails unless the run ended with this exit code, and shows all it said.
    ///
    /// # Errors
    /// On another code or a signal.
    pub fn expect(self, code: i32) -> Result<Self> {
        if self.status.code() == Some(code) {
            return Ok(self);
        }
        bail!(
            "{} ended with {}, not exit code {code}\n{}\n{}",
            self.shown,
            self.status,
            self.text(),
            self.stderr
        );
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Every line of standard output; all must be JSON.
    ///
    /// # Errors
    /// On anything else.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let text = self.text();
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("{}: read line {line:?}", self.shown))
            })
            .collect()
    }

    /// The last line, which must be of type `result` and agree with the exit code.
    ///
    /// # Errors
    /// Where it is missing or disagrees.
    pub fn json(&self) -> Result<Value> {
        let lines = self.lines()?;
        let results = lines.iter().filter(|line| line["type"] == "result").count();
        let Some(last) = lines
            .last()
            .filter(|last| last["type"] == "result" && results == 1)
        else {
            bail!(
                "{}: standard output does not end with the one result\n{}\n{}",
                self.shown,
                self.text(),
                self.stderr
            );
        };
        let code = self.status.code().context("ended by a signal")?;
        if last["exit_code"] != code || last["ok"] != (code == 0) {
            bail!(
                "{}: result disagrees with exit code {code}: {last}",
                self.shown
            );
        }
        if code != 0
            && last["error"].is_null()
            && last["errors"].as_array().is_none_or(Vec::is_empty)
        {
            bail!("{}: failed without saying why: {last}", self.shown);
        }
        Ok(last.clone())
    }

    /// A string field of the result.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn string(&self, field: &str) -> Result<String> {
        let result = self.json()?;
        result[field]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("{}: no string {field} in {result}", self.shown))
    }

    /// A number of the result.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn number(&self, field: &str) -> Result<u64> {
        let result = self.json()?;
        result[field]
            .as_u64()
            .with_context(|| format!("{}: no number {field} in {result}", self.shown))
    }

    /// All text a person can read about a failure: standard error and the error object of the result.
    ///
    /// # Errors
    /// Where standard output is not JSON.
    pub fn complaint(&self) -> Result<String> {
        let result = self.lines()?.pop().unwrap_or(Value::Null);
        Ok(format!(
            "{}\n{}\n{}",
            self.stderr, result["error"], result["errors"]
        ))
    }

    /// Fails unless the complaint holds `text`.
    ///
    /// # Errors
    /// Where it does not.
    pub fn names(&self, text: &str) -> Result<&Self> {
        let complaint = self.complaint()?;
        if complaint.contains(text) {
            return Ok(self);
        }
        bail!("{}: does not name {text:?}:\n{complaint}", self.shown)
    }
}

//! The programs that this source runs: dmsetup and the thin-provisioning tools, each a process of its own.
//!
//! Owns: finding them, running them, and what is said where they fail. Must not: understand their answers. They are never linked:
//! the tools are under the GPL.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::source::{SourceError, SourceErrorKind};

/// For everything that asks the kernel: a suspended pool does not answer for as long as it is suspended.
const KERNEL_TIME_LIMIT_SECS: &str = "60";
/// What `timeout` ends with when the time is over (man timeout).
const TIMED_OUT: i32 = 124;
/// Between the end of a tool's output and its own end.
const GRACE: Duration = Duration::from_secs(1);
/// Answers of dmsetup are lines; a pool's table is one.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Of a tool's complaint, what a message can hold.
const MAX_COMPLAINT_BYTES: u64 = 512;

/// A program and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    name: &'static str,
    package: &'static str,
}

pub(super) const DMSETUP: Tool = Tool {
    name: "dmsetup",
    package: "dmsetup",
};
pub(super) const THIN_DELTA: Tool = Tool {
    name: "thin_delta",
    package: "thin-provisioning-tools",
};
pub(super) const THIN_DUMP: Tool = Tool {
    name: "thin_dump",
    package: "thin-provisioning-tools",
};
const TIMEOUT: Tool = Tool {
    name: "timeout",
    package: "coreutils",
};
/// For steps that a kill of this process must not part.
pub(super) const SHELL: Tool = Tool {
    name: "sh",
    package: "dash",
};

impl Tool {
    /// Where the program is. System folders count even where `PATH` leaves them out, as it does for services.
    pub(super) fn path(self) -> Result<PathBuf, SourceError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let mut folders = std::env::split_paths(&path).chain(system);
        let found = folders.find_map(|folder| {
            let candidate = folder.join(self.name);
            candidate.is_file().then_some(candidate)
        });
        let Self { name, package } = self;
        found.ok_or_else(|| {
            SourceError::full(format!("{name} is missing: install the package {package}"))
        })
    }

    /// A command that cannot take longer than the kernel may, in a process group of its own.
    pub(super) fn limited(self) -> Result<Command, SourceError> {
        let mut command = Command::new(TIMEOUT.path()?);
        command
            .args(["--kill-after=5", KERNEL_TIME_LIMIT_SECS])
            .arg(self.path()?);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `dmsetup` to its end; what it wrote.
    pub(super) fn ask<A: AsRef<OsStr>>(self, arguments: &[A]) -> Result<String, SourceError> {
        let mut command = self.limited()?;
        command.args(arguments);
        let mut running = Running::start(self.name, &mut command)?;
        let mut answer = String::new();
        let read = running
            .answer()?
            .take(MAX_ANSWER_BYTES)
            .read_to_string(&mut answer);
        read.map_err(|error| failed(self.name, "wrote no text").because(error))?;
        running.finish()?;
        Ok(answer)
    }

    /// What the program says that it is, in one line.
    pub(super) fn version(self) -> Result<String, SourceError> {
        let answer = self.ask(&["-V"])?;
        let line = answer.lines().next().unwrap_or_default().trim();
        Ok(line.chars().take(64).collect())
    }

    /// Runs a thin-provisioning tool on a pool's metadata snapshot, and lets `understand` read its answer as it comes.
    ///
    /// The answer counts only if it was understood to its end and the tool ended well.
    pub(super) fn stream<T>(
        self,
        arguments: &[&str],
        metadata: &Path,
        understand: impl FnOnce(BufReader<ChildStdout>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut command = Command::new(self.path()?);
        command.args(arguments).arg(metadata);
        let mut running = Running::start(self.name, &mut command)?;
        let answer = running.answer()?;
        match understand(BufReader::with_capacity(64 << 10, answer)) {
            Ok(understood) => running.finish().map(|()| understood),
            // A tool that failed says more than the cut answer that it left. Nobody reads on, so it cannot wait for us.
            Err(fault) => Err(running.complaint_of_failure().unwrap_or(fault)),
        }
    }
}

/// A program at work. Dropped before its end, it is killed.
struct Running {
    name: &'static str,
    child: Child,
    complaint: Option<JoinHandle<String>>,
}

impl Running {
    fn start(name: &'static str, command: &mut Command) -> Result<Self, SourceError> {
        command.env("LC_ALL", "C").stdin(Stdio::null());
        let spawned = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| failed(name, "does not start").because(error))?;
        let errors = child.stderr.take();
        let complaint = errors.map(|errors| std::thread::spawn(move || first_lines(errors)));
        Ok(Self {
            name,
            child,
            complaint,
        })
    }

    fn answer(&mut self) -> Result<ChildStdout, SourceError> {
        let answer = self.child.stdout.take();
        answer.ok_or_else(|| failed(self.name, "has no output"))
    }

    fn finish(mut self) -> Result<(), SourceError> {
        let status = self.child.wait();
        let status = status.map_err(|error| failed(self.name, "is lost").because(error))?;
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(TIMED_OUT) {
            let message = format!(
                "{} did not answer within {KERNEL_TIME_LIMIT_SECS} s",
                self.name
            );
            return Err(SourceError::new(SourceErrorKind::Retry, message));
        }
        Err(failed(
            self.name,
            &format!("failed ({status}): {}", self.complaint()),
        ))
    }

    /// The error of a tool that ended badly; `None` where it goes on, or was only not listened to any more.
    fn complaint_of_failure(mut self) -> Option<SourceError> {
        let deadline = Instant::now() + GRACE;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(GRACE / 100),
                _ => return None,
            }
        };
        let complaint = self.complaint();
        let failed_itself =
            status.code().is_some_and(|code| code != 0) && !complaint.contains("Broken pipe");
        failed_itself.then(|| failed(self.name, &format!("failed ({status}): {complaint}")))
    }

    fn complaint(&mut self) -> String {
        let joined = self.complaint.take().and_then(|thread| thread.join().ok());
        joined.unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a process that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.complaint();
    }
}

/// What a tool says first, on one line; the rest is read, so that it never waits for a reader.
pub(super) fn first_lines(mut errors: impl Read) -> String {
    let mut start = Vec::new();
    let _ = errors
        .by_ref()
        .take(MAX_COMPLAINT_BYTES)
        .read_to_end(&mut start);
    let _ = io::copy(&mut errors, &mut io::sink());
    let text = String::from_utf8_lossy(&start);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // The usage that old tools print after an error explains nothing.
    let lines: Vec<_> = lines
        .take_while(|line| !line.starts_with("Usage:"))
        .collect();
    lines.join("; ")
}

fn failed(name: &str, how: &str) -> SourceError {
    SourceError::full(format!("{name} {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool {
        name: "sh",
        package: "dash",
    };

    #[test]
    fn a_missing_tool_names_its_package() {
        let tool = Tool {
            name: "thin_nothing",
            package: "thin-provisioning-tools",
        };
        let error = tool.ask(&["x"]).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::FullBackup);
        assert!(
            error
                .message
                .contains("install the package thin-provisioning-tools"),
            "{error}"
        );
    }

    #[test]
    fn a_failure_says_what_the_tool_said() {
        let error = SH
            .ask(&["-c", "echo no such pool >&2; echo Usage: >&2; exit 3"])
            .unwrap_err();
        assert!(
            error.message.contains("exit status: 3): no such pool"),
            "{error}"
        );
        assert!(!error.message.contains("Usage"), "{error}");
        assert_eq!(SH.ask(&["-c", "echo 1"]).unwrap(), "1\n");
    }

    #[test]
    fn a_tool_that_floods_its_errors_does_not_hang() {
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo complaint $i >&2; i=$((i+1)); done; echo done";
        assert_eq!(SH.ask(&["-c", script]).unwrap(), "done\n");
    }

    #[test]
    fn an_understood_answer_of_a_failed_tool_does_not_count() {
        let read_all = |mut answer: BufReader<ChildStdout>| {
            let mut text = String::new();
            answer.read_to_string(&mut text).unwrap();
            Ok(text)
        };
        let arguments = |script| ["-c", script, "sh"];
        let path = Path::new("metadata");
        assert_eq!(
            SH.stream(&arguments("echo $1"), path, read_all).unwrap(),
            "metadata\n"
        );
        assert!(
            SH.stream(&arguments("echo $1; exit 1"), path, read_all)
                .is_err()
        );
        let killed = SH.stream(&arguments("echo $1; kill -9 $$"), path, read_all);
        assert!(killed.unwrap_err().message.contains("signal: 9"));
    }

    #[test]
    fn an_answer_nobody_reads_on_is_ended() {
        let arguments = ["-c", "while :; do echo more; done", "sh"];
        let fault = SH.stream(&arguments, Path::new("x"), |_| -> Result<(), SourceError> {
            Err(SourceError::full("not understood"))
        });
        assert_eq!(fault.unwrap_err().message, "not understood");
    }
}

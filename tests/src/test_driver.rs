//! The CSI driver of our own, as a process with a folder of its own.
//!
//! Owns: its start and end, orders for faults, reading its record. Must not: know what the driver does; see [`crate::csi_driver`].

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::csi::Plugin;
use crate::csi::leaks::sweep;
use crate::csi_driver::NAME;
use crate::csi_driver::faults::{self, Order};
use crate::csi_driver::options::Options;
use crate::csi_driver::record::{self, Call};
use crate::mount::{FileSystem, Mounted};
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;

/// Seen: 20 ms.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The image of the file system that holds a driver's images; sparse.
const DISK_SIZE: u64 = 4 << 30;
/// Where the kubelet expects sockets of drivers, and where it looks for those that want to be known.
const PLUGINS: &str = "/var/lib/kubelet/plugins";
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";
/// Bytes of the log in the error of a test.
const LOG_SHOWN: usize = 3000;
/// How often waiting looks.
const POLL: Duration = Duration::from_millis(10);

/// A running driver; dropping it stops it and takes away what is still attached.
#[derive(Debug)]
pub struct TestDriver {
    // In the order in which they end.
    process: Option<Process>,
    options: Options,
    kubelet: PathBuf,
    disk: Option<Mounted>,
    /// The node whose mounts it has, by a process of it; none where it has this machine's.
    node: Option<i32>,
    /// Its socket as this process reaches it.
    socket: PathBuf,
    folder: Scratch,
}

impl TestDriver {
    /// Starts one with an empty state; `change` sets options. Snapshots are copies, which is quick for small volumes.
    ///
    /// # Errors
    /// Without root, or where it does not come up.
    pub fn start(change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::start_on(None, None, change)
    }

    /// The same on a node of a cluster, given by a process of it: the kubelet and pods see what it mounts. Its socket and its
    /// registration are those of a node's drivers, unless `change` says otherwise.
    ///
    /// # Errors
    /// Without root, or where it does not come up.
    pub fn start_on_node(node: i32, change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::start_on(None, Some(node), |options| {
            options.socket = Path::new(PLUGINS).join(NAME).join("csi.sock");
            // The kubelet names the path, percent-encoded, as the authority of its calls, and the HTTP library here takes percent
            // signs only before an `@`.
            options.registration = Some(Path::new(REGISTRY).join(format!("{NAME}@reg.sock")));
            change(options);
        })
    }

    /// The same with its images on an XFS of their own, where snapshots are reflinks.
    ///
    /// # Errors
    /// Without root, or where it does not come up.
    pub fn start_with_reflinks(change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::start_on(
            Some(Mounted::new(FileSystem::Xfs, DISK_SIZE)?),
            None,
            change,
        )
    }

    fn start_on(
        disk: Option<Mounted>,
        node: Option<i32>,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        part::root()?;
        let folder = Scratch::new("csi-driver")?;
        let kubelet = folder.join("kubelet");
        std::fs::create_dir(&kubelet)?;
        let state = disk
            .as_ref()
            .map_or_else(|| folder.join("state"), |disk| disk.join("state"));
        std::fs::create_dir(&state)?;
        let mut options = Options::new(&folder.join("csi.sock"), &state);
        change(&mut options);
        let socket = match node {
            None => options.socket.clone(),
            Some(pid) => in_node(pid, &options.socket),
        };
        let mut driver = Self {
            process: None,
            socket,
            options,
            kubelet,
            disk,
            node,
            folder,
        };
        driver.restart()?;
        Ok(driver)
    }

    /// Kills it, if it runs, and starts it again on the same state. It catches no signal: for its state every end is a kill -9.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let log = self.folder.join("log");
        let socket = self.socket.clone();
        if let Some(parent) = socket.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let process = match self.node {
            None => Process::start(&program()?, &self.options.args(), &[], &log)?,
            Some(pid) => {
                let mut args: Vec<String> = [&format!("--target={pid}"), "--mount", "--pid", "--"]
                    .map(str::to_owned)
                    .to_vec();
                args.push(program()?.display().to_string());
                args.extend(self.options.args());
                Process::start(&part::program("nsenter", "util-linux")?, &args, &[], &log)?
                    .of_child()?
            }
        };
        process.wait_until(START_LIMIT, || UnixStream::connect(&socket).is_ok())?;
        self.process = Some(process);
        Ok(())
    }

    /// The same with other options, as an update of a driver changes what it can do.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart_as(&mut self, change: impl FnOnce(&mut Options)) -> Result<()> {
        change(&mut self.options);
        self.restart()
    }

    /// Starts it again on a node that was restarted, which ended it; `node` is a process of the node as it is now.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart_on_node(&mut self, node: i32) -> Result<()> {
        self.node = Some(node);
        self.socket = in_node(node, &self.options.socket);
        self.restart()
    }

    /// Waits until it has ended by itself, as after [`faults::Fault::Die`], and starts it again.
    ///
    /// # Errors
    /// Where it goes on for `limit`.
    pub fn restart_when_dead(&mut self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.listens() {
            if begin.elapsed() > limit {
                bail!(
                    "the driver still listens after {limit:?}\n{}",
                    self.last_calls()
                );
            }
            std::thread::sleep(POLL);
        }
        self.restart()
    }

    /// Whether anybody answers on its socket.
    #[must_use]
    pub fn listens(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok()
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The process, to freeze it.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Puts these orders in place of all earlier ones. It sees them with its next call.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn order(&self, orders: &[Order]) -> Result<()> {
        let partial = self.options.state.join("faults.json.partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(orders)?)?;
        Ok(std::fs::rename(
            &partial,
            self.options.state.join(faults::FILE),
        )?)
    }

    /// Every call since the first start.
    ///
    /// # Errors
    /// Where the record cannot be understood.
    pub fn calls(&self) -> Result<Vec<Call>> {
        record::read(&self.options.state)
    }

    /// The last of them, and the end of the driver's log, for the error of a test.
    #[must_use]
    pub fn last_calls(&self) -> String {
        let calls = match self.calls() {
            Ok(calls) => record::last_lines(&calls),
            Err(error) => format!("the record cannot be read: {error:#}"),
        };
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN)..]).into_owned();
        format!("the last calls:\n{calls}\nthe log of the driver:\n{log}")
    }

    /// Polls the record until it holds what is asked for, e.g. that a stalled call has begun.
    ///
    /// # Errors
    /// Where `limit` passes.
    pub fn wait_for(&self, limit: Duration, mut seen: impl FnMut(&[Call]) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !seen(&self.calls()?) {
            if begin.elapsed() > limit {
                bail!("not recorded within {limit:?}\n{}", self.last_calls());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Plugin for TestDriver {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    fn state(&self) -> &Path {
        &self.options.state
    }
}

impl Drop for TestDriver {
    fn drop(&mut self) {
        self.process = None;
        sweep(&self.options.state, &self.kubelet);
        drop(self.disk.take());
    }
}

/// A path of a node as this process reaches it.
fn in_node(pid: i32, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The program: `CSI_TEST_DRIVER_BIN`, else the one that cargo put beside this test.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CSI_TEST_DRIVER_BIN") {
        return Ok(PathBuf::from(path));
    }
    part::built("csi-test-driver")
}

//! A whole cluster with one node and the driver of the tests on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::cluster::sidecars::{Sidecars, test_classes};
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin;
use tests::csi::leaks::loop_devices;
use tests::test_driver::TestDriver;

/// The kernel lets a loop device go a moment after its last user.
const SETTLE: Duration = Duration::from_secs(30);

/// In the order in which they end.
#[derive(Debug)]
pub(super) struct Site {
    sidecars: Sidecars,
    pub(super) driver: TestDriver,
    pub(super) cluster: Cluster,
}

impl Site {
    pub(super) fn start() -> Result<Self> {
        let cluster = Cluster::start(Parts::WHOLE)?;
        cluster.apply(&test_classes(true))?;
        let driver = TestDriver::start_on_node(cluster.node("node-1")?.pid()?, |options| {
            options.attach = true;
        })?;
        let sidecars = Sidecars::start(&cluster, driver.socket())?;
        Ok(Self {
            sidecars,
            driver,
            cluster,
        })
    }

    /// Starts the driver again after the node came up anew; its sidecars have ended with their connection to it.
    pub(super) fn restart_driver(&mut self) -> Result<()> {
        self.driver
            .restart_on_node(self.cluster.node("node-1")?.pid()?)?;
        self.sidecars = Sidecars::start(&self.cluster, self.driver.socket())?;
        Ok(())
    }

    /// Ends everything and says what is left of it on this machine.
    pub(super) fn end(self) -> Result<()> {
        let folder = self.cluster.folder().to_owned();
        let state = self.driver.state().to_owned();
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        drop(self);
        let begin = Instant::now();
        loop {
            let left = left_over(&folder, &state, &name)?;
            if left.is_empty() || begin.elapsed() > SETTLE {
                ensure!(left.is_empty(), "{left:#?}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One line for each thing of the cluster in `folder` that is still there.
fn left_over(folder: &Path, state: &Path, name: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let mut note = |what: &str, path: &Path| left.push(format!("{what} {}", path.display()));
    for (_, file) in [loop_devices(folder)?, loop_devices(state)?].concat() {
        note("loop device over", &file);
    }
    for path in cgroups(name)? {
        note("control group", &path);
    }
    for process in processes(name)? {
        note("process", &process);
    }
    if folder.exists() {
        note("folder", folder);
    }
    Ok(left)
}

/// Control groups whose name holds `name`.
fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for group in std::fs::read_dir(hierarchy.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if group.file_name().to_string_lossy().contains(name) {
                found.push(group.path());
            }
        }
    }
    Ok(found)
}

/// Processes whose command line or control group holds `name`.
fn processes(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let holds = |file: &str| {
            let text = std::fs::read(process.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(name)
        };
        if holds("cmdline") || holds("cgroup") {
            found.push(process.path());
        }
    }
    Ok(found)
}

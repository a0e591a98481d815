//! A node: containerd and kubelet in namespaces of their own, so that their folders are those of any node and nothing outlives them.
//!
//! ```text
//!   unshare (mounts, pids) ─► init: /run, /var/lib/kubelet (shared), /var/lib/containerd
//!        ▲ nsenter                 ├─ containerd ─► shims ─► containers
//!        │                         ├─ kubelet ─► API server on the loopback address
//!        └─ CSI driver             └─ everything ends with init, mounts included
//! ```
//!
//! What the kernel of a test machine may lack is left out: version 1 of control groups will do, the OOM score is not lowered. Pods
//! have no network: those that need one use the machine's (`hostNetwork`) and reach the API server on 127.0.0.1 by its port.
//!
//! Owns: the namespaces, both programs, the node object, images. Must not: know of pods.

mod settings;
mod space;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use self::space::Space;
use super::archive::Image;
use super::control_plane::{Site, program};
use super::kubectl::Kubectl;
use crate::part;
use crate::process::Process;
use crate::server::free_ports;

/// Seen: 2 s for containerd and 5 s for the kubelet on an idle 2-core machine.
const START_LIMIT: Duration = Duration::from_secs(180);
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// What the cloud's controller would take away once it has said where the node is.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized-";

/// A running node; dropping it ends every process and container of it and takes its mounts and control groups away.
#[derive(Debug)]
pub struct Node {
    // In the order in which they end; what is left of both ends with the space.
    kubelet: Option<Process>,
    containerd: Option<Process>,
    space: Option<Space>,
    name: String,
    folder: PathBuf,
    kubectl: Kubectl,
    kubelet_args: Vec<String>,
}

impl Node {
    /// Starts one and waits until it is Ready.
    pub(super) fn start(site: &Site, kubectl: &Kubectl, name: &str) -> Result<Self> {
        part::root()?;
        let folder = site.folder.join(name);
        for inner in ["", "kubelet", "containerd", "cni", "logs"] {
            std::fs::create_dir(folder.join(inner))?;
        }
        let [port, health] = free_ports::<2>()?;
        let pair = site.certificates.server(name, &[])?;
        let kubeconfig = site.user(&format!("system:node:{name}"), &["system:nodes"])?;
        let image = Image::busybox()?;
        image.write(&folder.join("sandbox.tar"))?;
        settings::containerd(&folder, &image.name)?;
        let files = [&site.certificates.authority(), &pair.certificate, &pair.key];
        settings::kubelet(&folder, [port, health], files, &space::cgroup(&folder))?;
        let mut node = Self {
            kubelet: None,
            containerd: None,
            space: None,
            name: name.to_owned(),
            kubectl: kubectl.clone(),
            kubelet_args: vec![
                format!("--config={}", folder.join("kubelet.yaml").display()),
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--hostname-override={name}"),
                // The kubelet refuses a loopback address of its own; one that it was given it keeps.
                "--cloud-provider=external".to_owned(),
            ],
            folder,
        };
        node.boot()?;
        Ok(node)
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything on it ends at once, and it comes up again with the same disks. Loop devices, which are the machine's, stay.
    ///
    /// # Errors
    /// Where it does not become Ready again.
    pub fn reboot(&mut self) -> Result<()> {
        self.halt();
        self.boot()
    }

    /// Kills the kubelet and starts it again; containers go on.
    ///
    /// # Errors
    /// Where it does not become Ready again.
    pub fn restart_kubelet(&mut self) -> Result<()> {
        self.kubelet = None;
        self.start_kubelet()?;
        self.wait_until_ready()
    }

    /// Makes an image known under its name; pods use it with `imagePullPolicy: Never`.
    ///
    /// # Errors
    /// Where it cannot be made or containerd refuses it.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = self.folder.join("image.tar");
        image.write(&archive)?;
        self.import_archive(&archive)?;
        Ok(std::fs::remove_file(&archive)?)
    }

    /// A path of the node as this process reaches it: sockets, folders, files.
    ///
    /// # Errors
    /// Where the node is down.
    pub fn outside(&self, path: &Path) -> Result<PathBuf> {
        Ok(self.space()?.outside(path))
    }

    /// A process of this machine whose mounts are the node's.
    ///
    /// # Errors
    /// Where the node is down.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.space()?.init())
    }

    /// Runs a program with the node's mounts and processes, and gives its standard output.
    ///
    /// # Errors
    /// With both outputs where it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(self.space()?.enter()).arg(program).args(args);
        part::run(&mut command)
    }

    /// Mount points below the kubelet's folder: what pods and drivers hold.
    ///
    /// # Errors
    /// Where the node is down.
    pub fn mounts(&self) -> Result<Vec<String>> {
        let table = self.run("cat", &["/proc/self/mountinfo"])?;
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        Ok(points
            .filter(|point| point.starts_with("/var/lib/kubelet/"))
            .map(ToOwned::to_owned)
            .collect())
    }

    fn space(&self) -> Result<&Space> {
        self.space.as_ref().context("the node is down")
    }

    fn boot(&mut self) -> Result<()> {
        self.space = Some(Space::start(&self.folder)?);
        let config = self.folder.join("containerd.toml").display().to_string();
        let containerd = part::program("containerd", "containerd")?;
        self.containerd =
            Some(self.start_inside("containerd", &containerd, &["--config".to_owned(), config])?);
        let socket = self.outside(Path::new(CONTAINERD_SOCKET))?;
        let process = self.containerd.as_ref().context("started above")?;
        process.wait_until(START_LIMIT, || UnixStream::connect(&socket).is_ok())?;
        self.import_archive(&self.folder.join("sandbox.tar"))?;
        self.start_kubelet()?;
        self.introduce()?;
        self.wait_until_ready()
    }

    fn start_kubelet(&mut self) -> Result<()> {
        // What was said of the time before must not be taken for an answer. At the first start there is no node yet.
        let unknown =
            r#"{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"Started"}]}}"#;
        let patch = [
            "patch",
            "node",
            &self.name,
            "--subresource=status",
            "--patch",
            unknown,
        ];
        let _ = self.kubectl.run(&patch);
        let args = self.kubelet_args.clone();
        self.kubelet = Some(self.start_inside("kubelet", &program("kubelet")?, &args)?);
        Ok(())
    }

    fn start_inside(&self, name: &str, program: &Path, args: &[String]) -> Result<Process> {
        let mut all = self.space()?.enter();
        all.push(program.display().to_string());
        all.extend_from_slice(args);
        let log = self.folder.join("logs").join(format!("{name}.log"));
        Process::start(&part::program("nsenter", "util-linux")?, &all, &[], &log)?.of_child()
    }

    /// The same for an archive that was made already.
    ///
    /// # Errors
    /// Where containerd refuses it.
    pub fn import_archive(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        let args = [
            "--address",
            CONTAINERD_SOCKET,
            "--namespace",
            "k8s.io",
            "images",
            "import",
            &archive,
        ];
        self.run("ctr", &args).map(drop)
    }

    /// Does what a cloud's controller does: says where the node is, and lets pods on it.
    fn introduce(&self) -> Result<()> {
        let kubelet = self.kubelet.as_ref().context("started before")?;
        let get = ["get", "node", &self.name, "--output=name"];
        kubelet.wait_until_polling(super::POLL, START_LIMIT, || self.kubectl.run(&get).is_ok())?;
        let addresses = format!(
            r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}},{{"type":"Hostname","address":"{}"}}]}}}}"#,
            self.name
        );
        let patch = [
            "patch",
            "node",
            &self.name,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &addresses,
        ];
        self.kubectl.run(&patch)?;
        // After a reboot it is not there any more.
        let _ = self
            .kubectl
            .run(&["taint", "nodes", &self.name, UNINITIALIZED]);
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<()> {
        let kubelet = self.kubelet.as_ref().context("started before")?;
        let path = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        kubelet.wait_until_polling(super::POLL, START_LIMIT, || {
            let answer = self.kubectl.run(&["get", "node", &self.name, path]);
            answer.is_ok_and(|answer| answer == "True")
        })
    }

    /// The log of `kubelet` or `containerd` since its last start.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{program}.log"))
    }

    fn halt(&mut self) {
        // The kubelet before its devices; what else runs there is gone with the space.
        self.kubelet = None;
        self.space = None;
        self.containerd = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.halt();
    }
}

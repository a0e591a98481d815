//! A node without a kubelet: what a kubelet does for pods with volumes, in the test process.
//!
//! ```text
//!   pods of this node ──► volumes: NodeStage, NodePublish ──► process of the container ──► readiness ──► status
//!        (each look)  ◄── removed ◄── NodeUnpublish, NodeUnstage ◄── stopped ◄── deletion
//! ```
//!
//! A container of the product runs as a process on this machine, with the paths of its volumes in place of those in the
//! container. Any other pod is an object that becomes Ready; its volumes are attached all the same.
//!
//! Owns: the Node, its Lease and CSINode, and what its pods hold. Must not: schedule, bind claims or attach: the real parts do.

mod container;
mod pod;
mod registration;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::pod::PodOnNode;
use super::api::Api;

/// How often it looks at its pods.
const POLL: Duration = Duration::from_millis(100);
/// How often the Lease is renewed; the controller manager gives a node up after 40 s.
const RENEWAL: Duration = Duration::from_secs(5);

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// A kubeconfig that may do what a kubelet may.
    pub kubeconfig: PathBuf,
    /// Name of the CSI driver on it.
    pub driver: String,
    /// The id that the driver knows the node by.
    pub driver_node: String,
    /// The driver's socket.
    pub socket: PathBuf,
    /// The kubelet's folder.
    pub kubelet: PathBuf,
    /// Where the logs of containers go.
    pub logs: PathBuf,
}

/// What the test may look at while the node works.
#[derive(Debug, Default)]
struct View {
    /// Processes of containers, by namespace and name of their pod.
    processes: BTreeMap<String, i32>,
    /// The last thing that went wrong, by pod. An entry goes when the pod goes on.
    trouble: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Shared {
    options: NodeOptions,
    stop: AtomicBool,
    /// Whether the node is cut off: it neither looks nor renews its Lease, and its processes go on.
    cut_off: AtomicBool,
    view: Mutex<View>,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A running node; dropping it stops the processes of its pods and takes their volumes away, as a reboot would.
#[derive(Debug)]
pub struct LightNode {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LightNode {
    /// Registers it and begins to run pods.
    ///
    /// # Errors
    /// Where the API server refuses the node.
    pub fn start(options: NodeOptions) -> Result<Self> {
        for folder in [&options.logs, &options.kubelet.join("volumes")] {
            std::fs::create_dir_all(folder)?;
        }
        let api = Api::connect(&options.kubeconfig)?;
        registration::register(&api, &options)?;
        let shared = Arc::new(Shared {
            options,
            stop: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            view: Mutex::default(),
        });
        let mut node = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        let (pods, beat) = (Arc::clone(&shared), shared);
        let own = Api::connect(&beat.options.kubeconfig)?;
        node.spawn("node pods", move || run_pods(&pods, &api))?;
        node.spawn("node lease", move || renew(&beat, &own))?;
        Ok(node)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(work)?);
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.options.name
    }

    /// The folder that stands for the kubelet's.
    #[must_use]
    pub fn kubelet(&self) -> &Path {
        &self.shared.options.kubelet
    }

    /// Process ids of the containers that run now, by `NAMESPACE/POD`.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<String, i32> {
        self.shared.view().processes.clone()
    }

    /// Kills the process of a pod with SIGKILL; it is started again, as by a kubelet. Says whether there was one.
    pub fn kill(&self, pod: &str) -> bool {
        let pid = self.shared.view().processes.get(pod).copied();
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
    }

    /// What goes wrong now, by pod.
    #[must_use]
    pub fn trouble(&self) -> BTreeMap<String, String> {
        self.shared.view().trouble.clone()
    }

    /// Cuts the node off from the API server, or lets it back.
    pub fn cut_off(&self, on: bool) {
        self.shared.cut_off.store(on, Ordering::Relaxed);
    }

    /// Waits until no process of a pod is left.
    ///
    /// # Errors
    /// Where `limit` passes.
    pub fn wait_until_idle(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while !self.processes().is_empty() {
            if begin.elapsed() > limit {
                bail!(
                    "pods still run: {:?}; {:?}",
                    self.processes(),
                    self.trouble()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for LightNode {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run_pods(shared: &Shared, api: &Api) {
    let mut pods = BTreeMap::new();
    while !shared.stopped() {
        if !shared.cut_off.load(Ordering::Relaxed) {
            // An API server that is away is asked again; its absence is what some tests are about.
            if let Err(error) = look(shared, api, &mut pods) {
                note(shared, "", Err(error));
            }
        }
        std::thread::sleep(POLL);
    }
    for pod in pods.values_mut() {
        let _ = pod.end();
    }
}

/// One look at every pod of the node, and at those that are gone.
fn look(shared: &Shared, api: &Api, pods: &mut BTreeMap<String, PodOnNode>) -> Result<()> {
    let selector = format!(
        "/api/v1/pods?fieldSelector=spec.nodeName%3D{}",
        shared.options.name
    );
    let listed = api.list(&selector)?;
    note(shared, "", Ok(()));
    let mut seen = Vec::new();
    for object in listed {
        let uid = object["metadata"]["uid"].as_str().context("a pod's uid")?;
        let pod = pods
            .entry(uid.to_owned())
            .or_insert_with(|| PodOnNode::new(&object));
        let done = pod.go_on(api, &shared.options, &object);
        shared.view().processes.remove(pod.name());
        if let Some(pid) = pod.pid() {
            shared.view().processes.insert(pod.name().to_owned(), pid);
        }
        note(shared, pod.name(), done);
        seen.push(uid.to_owned());
    }
    pods.retain(|uid, pod| {
        // Whatever deleted the object by force, the volumes and the process are the node's to take back.
        let keep = seen.contains(uid) || pod.end().is_err();
        if !keep {
            let mut view = shared.view();
            view.processes.remove(pod.name());
            view.trouble.remove(pod.name());
        }
        keep
    });
    Ok(())
}

fn note(shared: &Shared, pod: &str, outcome: Result<()>) {
    let mut view = shared.view();
    match outcome {
        Ok(()) => drop(view.trouble.remove(pod)),
        Err(error) => drop(view.trouble.insert(pod.to_owned(), format!("{error:#}"))),
    }
}

fn renew(shared: &Shared, api: &Api) {
    let mut last = Instant::now();
    while !shared.stopped() {
        if last.elapsed() > RENEWAL && !shared.cut_off.load(Ordering::Relaxed) {
            let _ = registration::renew(api, &shared.options);
            last = Instant::now();
        }
        std::thread::sleep(POLL);
    }
}

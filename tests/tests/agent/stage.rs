//! Cluster, repositories, devices, holders and agents of these tests, and what a controller would write.
//!
//! Owns: all of it, and its end. Must not: judge.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::{Cluster, Parts};
use tests::image::Image;
use tests::loop_device::LoopDevice;
use tests::process::Process;
use tests::random::Random;
use tests::repo::{Repo, Secret};
use tests::scratch::Scratch;
use tests::server::free_ports;
use tests::snaphaul::{Snaphaul, binary};

pub(crate) const SYSTEM: &str = "snaphaul-system";
pub(crate) const NODE: &str = "node-a";
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
pub(crate) const MIB: u64 = 1 << 20;

/// What the agent's manifest gives it.
const ROLES: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: snaphaul-agent, namespace: snaphaul-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: snaphaul-agent}
rules:
- {apiGroups: [snaphaul.dev], resources: [podvolumebackups, podvolumerestores], verbs: [get, list, watch]}
- {apiGroups: [snaphaul.dev], resources: [podvolumebackups/status, podvolumerestores/status], verbs: [patch]}
- {apiGroups: [snaphaul.dev], resources: [snapshotrepositories], verbs: [get]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: snaphaul-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: snaphaul-agent}
subjects: [{kind: ServiceAccount, name: snaphaul-agent, namespace: snaphaul-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: snaphaul-agent, namespace: snaphaul-system}
rules:
- {apiGroups: [\"\"], resources: [secrets], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: snaphaul-agent, namespace: snaphaul-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: snaphaul-agent}
subjects: [{kind: ServiceAccount, name: snaphaul-agent, namespace: snaphaul-system}]
";

/// The cluster, with definitions and roles.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// To look, which kubectl would take many times as long for.
    api: Api,
    kubeconfig: PathBuf,
    scenes: u32,
}

impl Stage {
    pub(crate) fn start() -> Result<Self> {
        tests::part::root()?;
        let cluster = Cluster::start(Parts::default())?;
        let crds = Snaphaul::new(&["crds"])?.run()?.expect(0)?;
        cluster.apply(&String::from_utf8(crds.stdout)?)?;
        for kind in [
            "podvolumebackups",
            "podvolumerestores",
            "snapshotrepositories",
        ] {
            let name = format!("crd/{kind}.snaphaul.dev");
            cluster.kubectl(&[
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                &name,
            ])?;
        }
        for namespace in [SYSTEM, "tenant-a", "tenant-b"] {
            cluster.namespace(namespace, &[])?;
        }
        cluster.apply(ROLES)?;
        let kubeconfig = cluster.service_account_kubeconfig(SYSTEM, "snaphaul-agent")?;
        Ok(Self {
            api: Api::connect(cluster.kubeconfig())?,
            cluster,
            kubeconfig,
            scenes: 0,
        })
    }

    /// A repository that is known to the cluster, and a place for devices.
    pub(crate) fn scene(&mut self, name: &str) -> Result<Scene<'_>> {
        self.scenes += 1;
        let scratch = Scratch::new(name)?;
        let repo = Repo::directory(&scratch.join("repo"))?;
        let id = repo.init()?.json()?["repository"]
            .as_str()
            .context("the id of the repository")?
            .to_owned();
        let holders = scratch.join("run");
        std::fs::create_dir(&holders)?;
        let scene = Scene {
            stage: self,
            name: name.replace('_', "-"),
            random: Random::from_environment(name),
            scratch,
            repo,
            id,
            holders,
            started: 0,
        };
        scene.put_secret()?;
        scene.put_repository(&scene.id)?;
        Ok(scene)
    }
}

/// One case's repository, devices and processes.
pub(crate) struct Scene<'a> {
    pub(crate) stage: &'a mut Stage,
    pub(crate) name: String,
    pub(crate) random: Random,
    pub(crate) scratch: Scratch,
    pub(crate) repo: Repo,
    pub(crate) id: String,
    pub(crate) holders: PathBuf,
    started: u32,
}

/// A resource that was made.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) plural: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    pub(crate) log: PathBuf,
    pub(crate) port: u16,
}

impl Scene<'_> {
    fn cluster(&self) -> &Cluster {
        &self.stage.cluster
    }

    /// The secret with the key of the repository.
    pub(crate) fn put_secret(&self) -> Result<()> {
        let Secret::KeyFile(key) = &self.repo.secret else {
            bail!("tests use key files");
        };
        let from = format!("--from-file=key={}", key.display());
        let namespace = format!("--namespace={SYSTEM}");
        self.cluster()
            .kubectl(&["create", "secret", "generic", &self.name, &namespace, &from])?;
        Ok(())
    }

    /// The resource of the repository; `id` is what it is said to be.
    pub(crate) fn put_repository(&self, id: &str) -> Result<()> {
        let path = self.scratch.join("repo");
        self.cluster().apply(&format!(
            "{{apiVersion: snaphaul.dev/v1alpha1, kind: SnapshotRepository, metadata: {{name: {name}}}, \
             spec: {{directory: {{path: '{path}'}}, encryptionSecretRef: {{name: {name}}}}}}}",
            name = self.name,
            path = path.display(),
        ))?;
        let patch = json!({ "status": { "repositoryID": id } }).to_string();
        self.cluster().kubectl(&[
            "patch",
            "snapshotrepositories.snaphaul.dev",
            &self.name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        Ok(())
    }

    /// A backup without an order.
    pub(crate) fn backup(&self, namespace: &str, name: &str) -> Result<Resource> {
        let name = format!("{}-{name}", self.name);
        self.cluster().apply(&format!(
            "{{apiVersion: snaphaul.dev/v1alpha1, kind: PodVolumeBackup, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{source: {{persistentVolumeClaim: {{name: db}}}}, repositoryRef: {{name: {}}}}}}}",
            self.name,
        ))?;
        self.resource("podvolumebackups.snaphaul.dev", namespace, name)
    }

    /// A restore of this point, without an order.
    pub(crate) fn restore(&self, namespace: &str, name: &str, point: &str) -> Result<Resource> {
        let name = format!("{}-{name}", self.name);
        let prefix = point.split('-').next().unwrap_or(point);
        self.cluster().apply(&format!(
            "{{apiVersion: snaphaul.dev/v1alpha1, kind: PodVolumeRestore, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{source: {{pointID: '{prefix}'}}, repositoryRef: {{name: {}}}, target: {{name: db}}}}}}",
            self.name,
        ))?;
        self.resource("podvolumerestores.snaphaul.dev", namespace, name)
    }

    fn resource(&self, plural: &'static str, namespace: &str, name: String) -> Result<Resource> {
        let mut resource = Resource {
            plural,
            namespace: namespace.to_owned(),
            name,
            uid: String::new(),
        };
        let uid = self.get(&resource)?["metadata"]["uid"].clone();
        resource.uid = uid.as_str().context("a UID")?.to_owned();
        Ok(resource)
    }

    pub(crate) fn get(&self, resource: &Resource) -> Result<Value> {
        let (kind, group) = resource.plural.split_once('.').context("KIND.GROUP")?;
        let group = format!("/apis/{group}/v1alpha1");
        let list = in_namespace(&group, &resource.namespace, kind);
        let object = self.stage.api.get(&format!("{list}/{}", resource.name))?;
        object.with_context(|| format!("{} does not exist", resource.name))
    }

    /// Writes a part of the status, as the controller would.
    pub(crate) fn patch(&self, resource: &Resource, status: &Value) -> Result<()> {
        let namespace = format!("--namespace={}", resource.namespace);
        let patch = json!({ "status": status }).to_string();
        self.cluster().kubectl(&[
            "patch",
            resource.plural,
            &resource.name,
            &namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        Ok(())
    }

    /// Gives the order of an attempt to the node.
    pub(crate) fn order(&self, resource: &Resource, attempt: i64, more: &Value) -> Result<()> {
        let mut order = json!({
            "attempt": attempt,
            "strategy": "Pod",
            "volume": format!("test/{}/{}", resource.namespace, self.name),
            "driver": "test.csi.snaphaul.dev",
            "volumeHandle": "vol-1",
            "snapshotHandle": format!("snap-{}", resource.name),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            order[key] = value.clone();
        }
        self.patch(resource, &json!({ "node": NODE, "order": order }))
    }

    /// Waits until the agent's answer to this attempt has this state; gives the status.
    pub(crate) fn wait(&self, resource: &Resource, attempt: i64, state: &str) -> Result<Value> {
        self.wait_for(resource, &format!("attempt {attempt} {state}"), |status| {
            let transfer = &status["transfer"];
            let is_other = ["Succeeded", "Failed", "Interrupted", "Stopped"]
                .iter()
                .any(|other| *other != state && transfer["state"] == *other);
            if transfer["attempt"] == attempt && is_other {
                bail!("it ended otherwise: {transfer}");
            }
            Ok(transfer["attempt"] == attempt && transfer["state"] == state)
        })
    }

    /// Waits until bytes of this attempt were moved.
    pub(crate) fn wait_for_bytes(&self, resource: &Resource) -> Result<Value> {
        self.wait_for(resource, "progress", |status| {
            ensure!(
                status["transfer"]["state"]
                    .as_str()
                    .is_none_or(|state| state == "Running"),
                "it ended before it was seen to run: {}",
                status["transfer"]
            );
            Ok(status["progress"]["bytesDone"].as_i64().unwrap_or(0) > 0)
        })
    }

    fn wait_for(
        &self,
        resource: &Resource,
        what: &str,
        enough: impl Fn(&Value) -> Result<bool>,
    ) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let status = self.get(resource)?["status"].clone();
            if enough(&status)? {
                return Ok(status);
            }
            if begin.elapsed() > LIMIT {
                bail!("{what} of {} does not come: {status:#}", resource.name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An image of noise and its device.
    pub(crate) fn device(&mut self, name: &str, size: u64) -> Result<(PathBuf, LoopDevice)> {
        let path = self.scratch.join(name);
        Image::noise(&path, size, &mut self.random)?;
        let device = LoopDevice::attach(&path, 512)?;
        Ok((path, device))
    }

    /// A holder for the resource's device, which listens when this returns.
    pub(crate) fn hold(
        &mut self,
        resource: &Resource,
        device: &Path,
        mode: &str,
    ) -> Result<Process> {
        self.started += 1;
        let words = [
            "hold",
            "--device",
            &device.display().to_string(),
            "--directory",
            &self.holders.display().to_string(),
            "--owner",
            &resource.uid,
            "--mode",
            mode,
            "--log",
            "info",
        ]
        .map(str::to_owned);
        let log = self.scratch.join(&format!("holder-{}.log", self.started));
        let socket = self.holders.join(format!("{}.sock", resource.uid));
        // One that a killed holder left says nothing about this one.
        if let Err(error) = std::fs::remove_file(&socket)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
        let holder = Process::start(&binary()?, &words, &[], &log)?;
        holder.wait_until(LIMIT, || socket.exists())?;
        Ok(holder)
    }

    /// An agent of the node, which is ready when this returns.
    pub(crate) fn agent(&mut self, flags: &[&str]) -> Result<Agent> {
        self.started += 1;
        // Free a moment ago; a loser of the race fails to listen, loudly.
        let [port] = free_ports()?;
        let mut words = [
            "agent",
            "--node-name",
            NODE,
            "--holder-directory",
            &self.holders.display().to_string(),
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--report-every",
            "200ms",
            "--grace",
            "20s",
            "--log",
            "info",
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = self.scratch.join(&format!("agent-{}.log", self.started));
        let kubeconfig = self.stage.kubeconfig.display().to_string();
        let process = Process::start(&binary()?, &words, &[("KUBECONFIG", &kubeconfig)], &log)?;
        let agent = Agent { process, log, port };
        agent.process.wait_until(LIMIT, || {
            agent
                .page("/readyz")
                .is_ok_and(|page| page.starts_with("HTTP/1.1 200"))
        })?;
        Ok(agent)
    }
}

impl Agent {
    /// What is served at a path, head and all.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }

    /// The value of a series.
    pub(crate) fn metric(&self, series: &str) -> Result<f64> {
        let page = self.page("/metrics")?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .with_context(|| format!("no {series} in\n{page}"))?;
        Ok(line.parse()?)
    }

    /// Ends it without a word.
    pub(crate) fn kill(self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.process.pid()), Signal::SIGKILL)?)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.process.pid()), Signal::SIGTERM)?)
    }
}

/// Ends a holder without a word.
pub(crate) fn kill_holder(holder: &Process) -> Result<()> {
    Ok(kill(Pid::from_raw(holder.pid()), Signal::SIGKILL)?)
}

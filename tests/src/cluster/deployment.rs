//! The product as a user runs it: the Deployment and the DaemonSet of `manifests/base`, as pods of a real kubelet, from the image that
//! `image/build` makes.
//!
//! ```text
//!   manifests/base ─► kustomize ─► fit (below) ─► API server ─► kubelet ─► controller · agent · holders
//!   snaphaul ─► image/build ─► archive ─► containerd ─────────────────────────┘
//! ```
//!
//! Only what a node of the tests lacks is changed: it has no network of pods, so they use the machine's, on ports that are free, and
//! are told the address of the API server. Image, users, capabilities, profiles, probes and accounts are those of the manifests.
//!
//! Owns: that change, and waiting. Must not: give rights, or say what the manifests say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::image;
use super::product::{SYSTEM, repository_root};
use crate::server::free_ports;

/// Seen: 12 s from the manifests to ready pods on an idle 2-core machine.
const READY_LIMIT: &str = "--timeout=240s";
/// How long a pod that was deleted may take to have a ready successor.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(240);
/// Lines of each log in the error of a test.
const TAIL: &str = "--tail=60";

/// One of the two programs of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The Deployment.
    Controller,
    /// The DaemonSet.
    Agent,
}

impl Component {
    const ALL: [Self; 2] = [Self::Controller, Self::Agent];

    /// The value of the label `app.kubernetes.io/component`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
        }
    }

    /// Kind and name of what makes its pods.
    #[must_use]
    pub fn workload(self) -> &'static str {
        match self {
            Self::Controller => "deployment/snaphaul-controller",
            Self::Agent => "daemonset/snaphaul-agent",
        }
    }

    fn selector(self) -> String {
        format!(
            "--selector=app.kubernetes.io/name=snaphaul,app.kubernetes.io/component={}",
            self.label()
        )
    }
}

/// Words behind those of the manifests.
#[derive(Clone, Debug, Default)]
pub struct DeploymentOptions {
    /// Of the controller.
    pub controller: Vec<String>,
    /// Of the agents.
    pub agent: Vec<String>,
}

/// Builds the image, brings it to the nodes, applies the base and waits until all of it is ready.
///
/// # Errors
/// Where anything is refused or does not become ready, with what the pods say.
pub fn install(cluster: &Cluster, nodes: &[&str], options: &DeploymentOptions) -> Result<()> {
    let archive = cluster.folder().join("snaphaul.tar");
    image::build(&archive)?;
    for node in nodes {
        cluster.node(node)?.import_archive(&archive)?;
    }
    std::fs::remove_file(&archive)?;
    let mut objects = base(cluster)?;
    let [controller, agent] = free_ports::<2>()?;
    for object in &mut objects {
        match object["kind"].as_str() {
            Some("Deployment") => fit(object, cluster.port(), controller, &options.controller)?,
            Some("DaemonSet") => fit(object, cluster.port(), agent, &options.agent)?,
            _ => {}
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    cluster.apply(&list.to_string())?;
    wait_until_ready(cluster)
}

/// Waits until both workloads run what was asked for last.
///
/// # Errors
/// With what the pods say, where they do not.
pub fn wait_until_ready(cluster: &Cluster) -> Result<()> {
    for component in Component::ALL {
        let words = [
            "rollout",
            "status",
            component.workload(),
            "--namespace",
            SYSTEM,
            READY_LIMIT,
        ];
        cluster
            .kubectl(&words)
            .with_context(|| diagnosis(cluster))?;
    }
    Ok(())
}

/// The name of the ready pod of a component, of which there must be one.
///
/// # Errors
/// Where there is another number.
pub fn pod(cluster: &Cluster, component: Component) -> Result<String> {
    let names = ready_pods(cluster, component)?;
    let [name] = names.as_slice() else {
        anyhow::bail!("ready pods of {}: {names:?}", component.label());
    };
    Ok(name.clone())
}

/// Deletes the pod of a component as `kubectl drain` does, and waits until another is ready in its place.
///
/// # Errors
/// Where none comes.
pub fn replace_pod(cluster: &Cluster, component: Component) -> Result<()> {
    let old = pod(cluster, component)?;
    let words = ["delete", "pod", &old, "--namespace", SYSTEM, "--wait=false"];
    cluster.kubectl(&words)?;
    let begin = std::time::Instant::now();
    loop {
        let now = ready_pods(cluster, component)?;
        if now.iter().any(|name| *name != old) && !now.contains(&old) {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < SUCCESSOR_LIMIT,
            "no successor of {old} after {SUCCESSOR_LIMIT:?}: {now:?}\n{}",
            diagnosis(cluster)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What all containers of a component have said since their last start.
///
/// # Errors
/// Where the kubelet gives no log.
pub fn log(cluster: &Cluster, component: Component) -> Result<String> {
    let pod = pod(cluster, component)?;
    cluster.kubectl(&["logs", &pod, "--namespace", SYSTEM])
}

/// Pods, events and ends of logs, for the message of a failure.
#[must_use]
pub fn diagnosis(cluster: &Cluster) -> String {
    let said = |words: &[&str]| {
        let answer = cluster.kubectl(words);
        answer.unwrap_or_else(|error| format!("{error:#}"))
    };
    let mut text = said(&[
        "get",
        "pods,pvc,volumesnapshots",
        "--all-namespaces",
        "--output=wide",
    ]);
    text.push_str(&said(&[
        "get",
        "events",
        "--all-namespaces",
        "--sort-by=.lastTimestamp",
    ]));
    for component in Component::ALL {
        for more in ["--previous=false", "--previous=true"] {
            let selector = component.selector();
            text.push_str(&format!("--- {} {more}\n", component.label()));
            let words = [
                "logs",
                "--namespace",
                SYSTEM,
                &selector,
                "--all-containers",
                TAIL,
                more,
            ];
            text.push_str(&said(&words));
        }
    }
    text
}

fn ready_pods(cluster: &Cluster, component: Component) -> Result<Vec<String>> {
    let answer = cluster.kubectl(&[
        "get",
        "pods",
        "--namespace",
        SYSTEM,
        &component.selector(),
        "--output=json",
    ])?;
    let list: Value = serde_json::from_str(&answer)?;
    let items = list["items"].as_array().context("a list of pods")?;
    let ready = items.iter().filter(|pod| {
        let conditions = pod["status"]["conditions"].as_array();
        let is_ready = conditions
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        is_ready && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let names = ready.filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(ToOwned::to_owned).collect())
}

/// The objects of the base, as kustomize makes them.
fn base(cluster: &Cluster) -> Result<Vec<Value>> {
    let folder = repository_root()?.join("manifests/base");
    let folder = folder.to_str().context("a plain path")?;
    let words = ["create", "--dry-run=client", "--output=json", "-k", folder];
    let text = cluster.kubectl(&words)?;
    let mut objects = Vec::new();
    for document in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let mut document = document?;
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ => objects.push(document),
        }
    }
    ensure!(!objects.is_empty(), "the base is empty");
    Ok(objects)
}

/// Lets a workload run where pods have no network of their own.
fn fit(workload: &mut Value, api: u16, port: u16, more: &[String]) -> Result<()> {
    let spec = &mut workload["spec"]["template"]["spec"];
    spec["hostNetwork"] = json!(true);
    let container = &mut spec["containers"][0];
    let words = container["args"].as_array_mut().context("arguments")?;
    let listen = words.iter_mut().find(|word| {
        word.as_str()
            .is_some_and(|word| word.starts_with("--listen="))
    });
    *listen.context("an address to listen on")? = json!(format!("--listen=127.0.0.1:{port}"));
    words.extend(more.iter().map(|word| json!(word)));
    container["ports"][0]["containerPort"] = json!(port);
    let env = container["env"].as_array_mut().context("an environment")?;
    for (name, value) in [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
        ("KUBERNETES_SERVICE_PORT", api.to_string()),
    ] {
        env.push(json!({"name": name, "value": value}));
    }
    Ok(())
}

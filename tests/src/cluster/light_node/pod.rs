//! One pod on the node, from its first look to its removal.
//!
//! Owns: the order of steps, each of which may fail and is tried again at the next look. Must not: wait.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::NodeOptions;
use super::container::Container;
use super::volume::PodVolume;
use crate::cluster::api::{Api, in_namespace};
use crate::process::Process;

/// What a pod holds on this machine.
#[derive(Debug)]
pub(super) struct PodOnNode {
    name: String,
    path: String,
    uid: String,
    /// By the name of the volume in the pod.
    volumes: Vec<(String, PodVolume)>,
    process: Option<Process>,
    restarts: u32,
    ready: bool,
    told: Value,
}

impl PodOnNode {
    pub(super) fn new(pod: &Value) -> Self {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or("").to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        Self {
            path: format!("{}/{name}", in_namespace("/api/v1", &namespace, "pods")),
            name: format!("{namespace}/{name}"),
            uid: text("uid"),
            volumes: Vec::new(),
            process: None,
            restarts: 0,
            ready: false,
            told: Value::Null,
        }
    }

    /// `NAMESPACE/NAME`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The process of its container.
    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, api: &Api, options: &NodeOptions, pod: &Value) -> Result<()> {
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            self.end()?;
            return api.remove(&self.path, &self.uid);
        }
        if matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        ) {
            return self.end();
        }
        self.attach(api, options, pod)?;
        self.run(options, pod)?;
        self.tell(api, pod)
    }

    /// Stops the process, then takes the volumes away. May be repeated.
    pub(super) fn end(&mut self) -> Result<()> {
        self.process = None;
        while let Some((_, volume)) = self.volumes.last() {
            volume.detach()?;
            self.volumes.pop();
        }
        Ok(())
    }

    fn attach(&mut self, api: &Api, options: &NodeOptions, pod: &Value) -> Result<()> {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("");
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let name = volume["name"].as_str().unwrap_or("");
            let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() else {
                continue;
            };
            if self.volumes.iter().any(|(known, _)| known == name) {
                continue;
            }
            let attached = PodVolume::attach(api, options, namespace, claim, &self.uid)?;
            self.volumes.push((name.to_owned(), attached));
        }
        Ok(())
    }

    /// Starts the process, again where it has ended, and asks whether it is ready.
    fn run(&mut self, options: &NodeOptions, pod: &Value) -> Result<()> {
        let paths: Vec<(String, PathBuf)> = self
            .volumes
            .iter()
            .map(|(name, volume)| (name.clone(), volume.path().to_owned()))
            .collect();
        let container = Container::new(pod, &paths);
        if !container.is_ours() {
            self.ready = true;
            return Ok(());
        }
        if self.process.as_ref().is_some_and(Process::has_ended) {
            self.process = None;
            self.ready = false;
            self.restarts += 1;
        }
        if self.process.is_none() {
            let log = format!("{}-{}.log", self.name.replace('/', "-"), self.restarts);
            self.process = Some(container.start(&options.logs.join(log))?);
        }
        if !self.ready {
            self.ready = container.is_ready()?;
        }
        Ok(())
    }

    fn tell(&mut self, api: &Api, pod: &Value) -> Result<()> {
        let ready = if self.ready { "True" } else { "False" };
        let conditions: Vec<Value> = [
            ("PodScheduled", "True"),
            ("Initialized", "True"),
            ("ContainersReady", ready),
            ("Ready", ready),
        ]
        .iter()
        .map(|(kind, status)| json!({"type": kind, "status": status}))
        .collect();
        let container = &pod["spec"]["containers"][0];
        let status = json!({
            "phase": "Running", "conditions": conditions, "hostIP": "127.0.0.1",
            // Of the range for documentation: services take no loopback address.
            "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}],
            "containerStatuses": [{
                "name": container["name"], "image": container["image"], "imageID": "", "ready": self.ready, "started": true,
                "restartCount": self.restarts, "state": {"running": {"startedAt": null}},
            }],
        });
        if status != self.told {
            api.set_status(&self.path, &status)?;
            self.told = status;
        }
        Ok(())
    }
}

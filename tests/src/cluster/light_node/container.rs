//! A container of the product as a process of this machine.
//!
//! Owns: its words and environment, with the paths of this machine. Must not: know what they mean.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::snaphaul;

/// What is run, and where the paths of the container really are.
#[derive(Debug)]
pub(super) struct Container<'a> {
    spec: &'a Value,
    pod: &'a Value,
    /// Path in the container, path on this machine.
    paths: Vec<(String, String)>,
}

impl<'a> Container<'a> {
    /// The first container of the pod. `claims` are the paths of its claims by the name of the volume.
    pub(super) fn new(pod: &'a Value, claims: &[(String, PathBuf)]) -> Self {
        let spec = &pod["spec"]["containers"][0];
        let host = |volume: &Value| {
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let named = volumes
                .filter(|entry| entry["name"] == *volume)
                .find_map(|entry| entry["hostPath"]["path"].as_str());
            let claim = || {
                let claim = claims.iter().find(|(name, _)| *volume == name.as_str());
                claim.map(|(_, path)| path.display().to_string())
            };
            named.map(str::to_owned).or_else(claim)
        };
        let mut paths = Vec::new();
        for (list, key) in [
            ("volumeDevices", "devicePath"),
            ("volumeMounts", "mountPath"),
        ] {
            for entry in spec[list].as_array().into_iter().flatten() {
                if let (Some(inside), Some(outside)) = (entry[key].as_str(), host(&entry["name"])) {
                    paths.push((inside.to_owned(), outside));
                }
            }
        }
        Self { spec, pod, paths }
    }

    /// Whether it runs the product, which is on this machine, and not some image, which is not.
    pub(super) fn is_ours(&self) -> bool {
        let words = self.words();
        let program = words.first().map_or("", String::as_str);
        program == "hold"
            || program.rsplit('/').next() == Some("snaphaul")
                && words.get(1).is_some_and(|word| word == "hold")
    }

    /// Starts it.
    pub(super) fn start(&self, log: &std::path::Path) -> Result<Process> {
        let mut words = self.with_device(self.words());
        if words.first().is_some_and(|word| word != "hold") {
            words.remove(0);
        }
        let env = self.environment();
        let env: Vec<(&str, &str)> = env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Process::start(&snaphaul::binary()?, &words, &env, log)
    }

    /// Whether its readiness probe likes it; without one it is ready once it runs.
    pub(super) fn is_ready(&self) -> Result<bool> {
        let probe = &self.spec["readinessProbe"];
        if probe.is_null() {
            return Ok(true);
        }
        let words = self.with_device(self.here(&probe["exec"]["command"]));
        let (program, args) = words.split_first().context("the probe runs a command")?;
        let program = match program.rsplit('/').next() {
            Some("snaphaul") => snaphaul::binary()?,
            _ => PathBuf::from(program),
        };
        let mut command = Command::new(program);
        command.args(args).envs(self.environment());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.status()?.success())
    }

    /// Names the device where the words rely on its usual place, which exists in containers only.
    fn with_device(&self, mut words: Vec<String>) -> Vec<String> {
        let named = words.iter().any(|word| word.starts_with("--device"));
        let device = self.spec["volumeDevices"][0]["devicePath"].as_str();
        if let (false, Some(device)) = (named, device) {
            words.extend(["--device".to_owned(), self.outside(device)]);
        }
        words
    }

    fn words(&self) -> Vec<String> {
        let mut words = self.here(&self.spec["command"]);
        words.extend(self.here(&self.spec["args"]));
        words
    }

    fn here(&self, words: &Value) -> Vec<String> {
        let words = words.as_array().into_iter().flatten();
        words
            .filter_map(Value::as_str)
            .map(|word| self.expand(word))
            .collect()
    }

    /// `$(NAME)` of the environment, then paths, as a word of their own or after the `=` of a flag.
    fn expand(&self, word: &str) -> String {
        let mut word = word.to_owned();
        for (name, value) in self.plain_environment() {
            word = word.replace(&format!("$({name})"), &value);
        }
        self.outside(&word)
    }

    fn outside(&self, word: &str) -> String {
        let (flag, path) = match word.split_once('=') {
            Some((flag, path)) if flag.starts_with("--") => (format!("{flag}="), path),
            _ => (String::new(), word),
        };
        for (inside, outside) in &self.paths {
            match path.strip_prefix(inside.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    return format!("{flag}{outside}{rest}");
                }
                _ => {}
            }
        }
        word.to_owned()
    }

    fn environment(&self) -> Vec<(String, String)> {
        let plain = self.plain_environment();
        plain
            .into_iter()
            .map(|(name, value)| (name, self.outside(&value)))
            .collect()
    }

    fn plain_environment(&self) -> Vec<(String, String)> {
        let entries = self.spec["env"].as_array().into_iter().flatten();
        entries
            .filter_map(|entry| {
                let value = match entry["value"].as_str() {
                    Some(value) => value.to_owned(),
                    None => self.field(entry["valueFrom"]["fieldRef"]["fieldPath"].as_str()?)?,
                };
                Some((entry["name"].as_str()?.to_owned(), value))
            })
            .collect()
    }

    /// The downward API, as far as paths of plain fields go.
    fn field(&self, path: &str) -> Option<String> {
        let pointer = format!("/{}", path.replace('.', "/"));
        Some(self.pod.pointer(&pointer)?.as_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_carry_the_paths_of_this_machine() {
        let pod = json!({
            "metadata": {"uid": "u1"},
            "spec": {
                "containers": [{
                    "command": ["/usr/bin/snaphaul"],
                    "args": ["hold", "--device", "/dev/snaphaul", "--directory=/run/snaphaul", "--name", "$(POD_UID)", "/run/snaphaulx"],
                    "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
                    "volumeDevices": [{"name": "data", "devicePath": "/dev/snaphaul"}],
                    "volumeMounts": [{"name": "run", "mountPath": "/run/snaphaul"}],
                }],
                "volumes": [{"name": "run", "hostPath": {"path": "/var/tmp/x"}}],
            },
        });
        let container = Container::new(&pod, &[("data".to_owned(), "/var/tmp/dev".into())]);
        assert!(container.is_ours());
        assert_eq!(
            container.words(),
            [
                "/usr/bin/snaphaul",
                "hold",
                "--device",
                "/var/tmp/dev",
                "--directory=/var/tmp/x",
                "--name",
                "u1",
                "/run/snaphaulx"
            ]
        );
        let other = json!({"spec": {"containers": [{"command": ["sleep", "1"]}]}});
        assert!(!Container::new(&other, &[]).is_ours());
    }
}

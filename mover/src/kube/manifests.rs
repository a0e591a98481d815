//! The manifests that a user applies agree with the program: its flags, its files, its ports.
//!
//! Owns: tests only. Must not: ask an API server (`tests/tests/custom_resources.rs` does).

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use super::seccomp;
use crate::cli::args::Cli;

fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests/base")
        .join(file);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Pod templates by the name of their workload.
fn templates() -> Vec<(String, Value)> {
    ["controller.yaml", "agent.yaml"]
        .into_iter()
        .flat_map(documents)
        .map(|workload| {
            let name = workload["metadata"]["name"].as_str().unwrap().to_owned();
            (name, workload["spec"]["template"].clone())
        })
        .collect()
}

fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|list| template["spec"][list].as_array());
    lists.into_iter().flatten().flatten()
}

/// The words that a container runs.
fn words(container: &Value) -> Vec<&str> {
    let lists = ["command", "args"].map(|list| container[list].as_array());
    let all = lists.into_iter().flatten().flatten();
    all.map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn every_container_runs_a_command_that_parses() {
    let known = Cli::command();
    let mut parsed = 0;
    for (workload, template) in templates() {
        for container in containers(&template) {
            let mut words = words(container);
            // What the downward API gives through the environment, which a test must not change.
            let environment = container["env"].as_array().into_iter().flatten();
            for variable in environment.filter(|variable| variable["name"] == "NODE_NAME") {
                assert_eq!(
                    variable["valueFrom"]["fieldRef"]["fieldPath"],
                    "spec.nodeName"
                );
                words.push("--node-name=one");
            }
            if known.find_subcommand(words[1]).is_some() {
                Cli::try_parse_from(&words)
                    .unwrap_or_else(|error| panic!("{workload}: {words:?}: {error}"));
                parsed += 1;
            }
        }
    }
    assert!(parsed > 0, "no container runs a command of this program");
}

#[test]
fn the_agent_runs_under_the_profile_that_is_laid_down() {
    let (_, template) = templates().pop().unwrap();
    let profile = &template["spec"]["containers"][0]["securityContext"]["seccompProfile"];
    assert_eq!(profile["type"], "Localhost");
    assert_eq!(profile["localhostProfile"], seccomp::FILE_NAME);
    let install = words(&template["spec"]["initContainers"][0]);
    let folder = install[install.len() - 1];
    let mounts = template["spec"]["initContainers"][0]["volumeMounts"]
        .as_array()
        .unwrap();
    assert!(
        mounts.iter().any(|mount| mount["mountPath"] == folder),
        "{folder}"
    );
}

/// Root or not, no container can gain anything, and none writes to its image.
#[test]
fn no_container_is_privileged() {
    for (workload, template) in templates() {
        for container in containers(&template) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{workload}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{workload}");
            assert_eq!(
                context["capabilities"]["drop"],
                serde_json::json!(["ALL"]),
                "{workload}"
            );
            assert!(context.get("privileged").is_none(), "{workload}");
            assert!(
                container["resources"]["limits"]["memory"].is_string(),
                "{workload}"
            );
        }
        assert!(template["spec"].get("hostNetwork").is_none(), "{workload}");
        assert!(template["spec"].get("hostPID").is_none(), "{workload}");
    }
}

#[test]
fn services_lead_to_ports_that_are_listened_on() {
    let services = documents("services.yaml");
    assert_eq!(services.len(), templates().len());
    for (service, (workload, template)) in services.iter().zip(templates()) {
        assert_eq!(
            service["spec"]["selector"], template["metadata"]["labels"],
            "{workload}"
        );
        let container = &template["spec"]["containers"][0];
        let port = &container["ports"][0];
        assert_eq!(
            service["spec"]["ports"][0]["targetPort"], port["name"],
            "{workload}"
        );
        let listen = format!("--listen=0.0.0.0:{}", port["containerPort"]);
        assert!(words(container).contains(&listen.as_str()), "{workload}");
    }
}

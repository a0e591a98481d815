//! The holder pod: makes the kubelet attach a volume, opens the device and hands it to the agent.
//!
//! Owns: its shape, and what it says of itself. Must not: choose a node: with `spec.nodeName` a claim that waits for its first consumer
//! would wait forever.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ExecAction, HostPathVolumeSource, NodeAffinity,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::nodes::{self, Nodes, selector};
use super::owner::Owner;

/// Where the device is inside the pod.
pub const DEVICE: &str = "/dev/snaphaul";
/// Where the sockets are inside the pod.
pub const DIRECTORY: &str = "/run/snaphaul";
/// Value of `app.kubernetes.io/component`.
pub const COMPONENT: &str = "holder";

/// What the device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldMode {
    /// Backup: never written.
    Read,
    /// Restore: written, by nobody else.
    Write,
}

impl HoldMode {
    /// The word of the flag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What is the same for all holders of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderSettings {
    /// The system namespace.
    pub namespace: String,
    /// Image of this program.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// The directory of the sockets on each node.
    pub host_path: String,
    /// Priority class, where one is wanted.
    pub priority_class: Option<String>,
}

/// The holder of `claim`, on one of `allowed` nodes.
#[must_use]
pub fn pod(
    owner: &Owner,
    settings: &HolderSettings,
    mode: HoldMode,
    (claim, read_only): (&str, bool),
    (allowed, nodes): (&BTreeSet<String>, &Nodes),
) -> Pod {
    let mut metadata = owner.metadata(Some(&settings.namespace));
    metadata.labels.get_or_insert_default().extend(
        [
            ("app.kubernetes.io/name", "snaphaul"),
            ("app.kubernetes.io/component", COMPONENT),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    metadata.annotations.get_or_insert_default().extend(
        [
            ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
            ("karpenter.sh/do-not-disrupt", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    Pod {
        metadata,
        spec: Some(PodSpec {
            containers: vec![container(owner, settings, mode)],
            volumes: Some(vec![
                Volume {
                    name: "device".to_owned(),
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: claim.to_owned(),
                        read_only: read_only.then_some(true),
                    }),
                    ..Volume::default()
                },
                Volume {
                    name: "sockets".to_owned(),
                    host_path: Some(HostPathVolumeSource {
                        path: settings.host_path.clone(),
                        type_: Some("DirectoryOrCreate".to_owned()),
                    }),
                    ..Volume::default()
                },
            ]),
            affinity: Some(Affinity {
                node_affinity: Some(NodeAffinity {
                    required_during_scheduling_ignored_during_execution: Some(selector(allowed)),
                    ..NodeAffinity::default()
                }),
                ..Affinity::default()
            }),
            // Agents run on every node, and the volume may be of one that is kept for others.
            tolerations: Some(nodes.tolerations(allowed)),
            restart_policy: Some("Always".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            priority_class_name: settings.priority_class.clone(),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            // It holds nothing that must be written: a descriptor that was handed over stays open.
            termination_grace_period_seconds: Some(10),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn container(owner: &Owner, settings: &HolderSettings, mode: HoldMode) -> Container {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let place = ["hold", "--owner", &owner.uid, "--directory", DIRECTORY];
    let run = [&place[..], &["--device", DEVICE, "--mode", mode.as_str()]].concat();
    let check = [&["snaphaul"], &place[..], &["--check"]].concat();
    let amounts = |list: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        list.iter()
            .map(|&(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .collect()
    };
    Container {
        name: "hold".to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        command: Some(vec!["snaphaul".to_owned()]),
        args: Some(words(&run)),
        volume_devices: Some(vec![VolumeDevice {
            name: "device".to_owned(),
            device_path: DEVICE.to_owned(),
        }]),
        volume_mounts: Some(vec![VolumeMount {
            name: "sockets".to_owned(),
            mount_path: DIRECTORY.to_owned(),
            ..VolumeMount::default()
        }]),
        readiness_probe: Some(Probe {
            exec: Some(ExecAction {
                command: Some(words(&check)),
            }),
            period_seconds: Some(2),
            timeout_seconds: Some(5),
            failure_threshold: Some(5),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(&[("cpu", "10m"), ("memory", "16Mi")])),
            limits: Some(amounts(&[("memory", "64Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Why a pod is not ready, as far as it says: unschedulable, image missing, container failing.
#[must_use]
pub fn complaint(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            (reason != "ContainerCreating").then(|| match &waiting.message {
                Some(message) => format!("{reason}: {message}"),
                None => reason.to_owned(),
            })
        })
        .next();
    let unscheduled = || {
        let conditions = status.conditions.as_ref()?;
        conditions
            .iter()
            .find(|is| is.type_ == "PodScheduled" && is.status == "False")
            .and_then(|is| is.message.clone())
    };
    waiting
        .or_else(unscheduled)
        .or_else(|| status.message.clone())
}

/// The nodes that a holder may land on, or the one that it is on.
#[must_use]
pub fn possible_nodes(pod: &Pod) -> BTreeSet<String> {
    if let Some(node) = nodes::node_of(pod) {
        return BTreeSet::from([node.to_owned()]);
    }
    pod.spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .map(nodes::named_by)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_can_do_nothing_but_open_its_device() {
        let owner = Owner {
            kind: "PodVolumeBackup".to_owned(),
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
            uid: "7b0e6c1e-2f6d-4f0e-9a58-5c1f1d2e3f40".to_owned(),
        };
        let settings = HolderSettings {
            namespace: "snaphaul-system".to_owned(),
            image: "snaphaul:dev".to_owned(),
            image_pull_policy: "Never".to_owned(),
            host_path: "/run/snaphaul".to_owned(),
            priority_class: None,
        };
        let allowed = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
        let pod = pod(
            &owner,
            &settings,
            HoldMode::Read,
            ("claim", false),
            (&allowed, &Nodes::default()),
        );
        assert_eq!(possible_nodes(&pod), allowed);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name, None);
        assert_eq!(spec.automount_service_account_token, Some(false));
        let container = &spec.containers[0];
        assert_eq!(
            container.args.as_ref().unwrap().join(" "),
            format!(
                "hold --owner {} --directory /run/snaphaul --device /dev/snaphaul --mode read",
                owner.uid
            )
        );
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(
            security.capabilities.as_ref().unwrap().drop,
            Some(vec!["ALL".to_owned()])
        );
        assert_eq!(security.privileged, Some(false));
    }
}

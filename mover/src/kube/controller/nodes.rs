//! Which nodes can serve a volume: those with a ready agent that the volume can be attached to.
//!
//! Owns: the node selector's meaning, and who is an agent. Must not: choose one.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, NodeSpec, Pod, Taint,
    Toleration, VolumeNodeAffinity,
};
use kube::ResourceExt as _;

/// Labels of every pod of an agent.
pub const AGENT_LABELS: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "snaphaul"),
    ("app.kubernetes.io/component", "agent"),
];

/// The taint of a node that was cordoned (node controller).
const CORDONED: &str = "node.kubernetes.io/unschedulable";
/// Taints that Kubernetes and autoscalers set because of the state of a node, not because of what it is for: such a node is no place for
/// a holder, though the agents of a DaemonSet stay there.
const STATES: [&str; 4] = [
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "karpenter.sh/",
    "ToBeDeletedByClusterAutoscaler",
];
/// The one such taint that a kubelet admits pods with requests under.
const SHORT_OF_MEMORY: &str = "node.kubernetes.io/memory-pressure";

/// What of the nodes matters here.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    labels: BTreeMap<String, BTreeMap<String, String>>,
    taints: BTreeMap<String, Vec<Taint>>,
    cordoned: BTreeSet<String>,
}

/// Nodes with an agent that a volume can be attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    /// Those that take pods.
    pub open: BTreeSet<String>,
    /// Those that were cordoned.
    pub cordoned: BTreeSet<String>,
}

impl Nodes {
    /// Of these nodes.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut all = Self::default();
        for node in nodes {
            let (name, spec) = (node.name_any(), node.spec.clone().unwrap_or_default());
            let taints = spec.taints.unwrap_or_default();
            if spec.unschedulable == Some(true) || taints.iter().any(|taint| taint.key == CORDONED)
            {
                all.cordoned.insert(name.clone());
            }
            all.labels.insert(name.clone(), node.labels().clone());
            all.taints.insert(name, taints);
        }
        all
    }

    /// Of `agents`, those nodes that a volume with this affinity can be attached to.
    #[must_use]
    pub fn eligible(
        &self,
        agents: &BTreeSet<String>,
        affinity: Option<&VolumeNodeAffinity>,
    ) -> Eligible {
        let all = eligible(agents, &self.labels, affinity);
        let (cordoned, open) = all
            .into_iter()
            .partition(|node| self.cordoned.contains(node));
        Eligible { open, cordoned }
    }

    /// What a pod must tolerate to run on any of `allowed`, where agents run already: what these nodes are kept for. A node that is
    /// cordoned, not ready or about to go is not tolerated.
    #[must_use]
    pub fn tolerations(&self, allowed: &BTreeSet<String>) -> Vec<Toleration> {
        let taints = allowed.iter().filter_map(|node| self.taints.get(node));
        let is_state = |key: &str| STATES.iter().any(|state| key.starts_with(state));
        let needed = taints
            .flatten()
            .filter(|taint| taint.effect != "PreferNoSchedule" && !is_state(&taint.key))
            .map(|taint| (taint.key.as_str(), taint.value.as_deref(), &*taint.effect));
        let always = [(SHORT_OF_MEMORY, None, "NoSchedule")];
        let all: BTreeSet<_> = needed.chain(always).collect();
        all.into_iter()
            .map(|(key, value, effect)| Toleration {
                key: Some(key.to_owned()),
                operator: Some(if value.is_some() { "Equal" } else { "Exists" }.to_owned()),
                value: value.map(str::to_owned),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            })
            .collect()
    }
}

/// Leaves of a node what [`Nodes`] reads.
pub fn strip(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    node.status = None;
    node.spec = node.spec.take().map(|spec| NodeSpec {
        taints: spec.taints,
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
}

/// Why no node can serve a volume, where only these could and were cordoned.
#[must_use]
pub fn unreachable(cordoned: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = cordoned.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the volume can be attached only where pods are not scheduled, for the node is cordoned: {}; uncordon it",
            names.join(", ")
        )
    })
}

/// Whether a pod is an agent's.
#[must_use]
pub fn is_agent(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    AGENT_LABELS.iter().all(|(key, value)| {
        labels
            .and_then(|labels| labels.get(*key))
            .is_some_and(|is| is == value)
    })
}

/// Whether a pod is up and not on its way out.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
}

/// The node of a pod, once it has one.
#[must_use]
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// Of `agents`, those nodes that a volume with this affinity can be attached to. `labels` are those of each node.
fn eligible(
    agents: &BTreeSet<String>,
    labels: &BTreeMap<String, BTreeMap<String, String>>,
    affinity: Option<&VolumeNodeAffinity>,
) -> BTreeSet<String> {
    let none = BTreeMap::new();
    agents
        .iter()
        .filter(|node| {
            affinity
                .and_then(|affinity| affinity.required.as_ref())
                .is_none_or(|selector| selects(selector, node, labels.get(*node).unwrap_or(&none)))
        })
        .cloned()
        .collect()
}

/// Whether a selector takes a node. As in Kubernetes a term without requirements takes none.
fn selects(selector: &NodeSelector, node: &str, labels: &BTreeMap<String, String>) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| term_selects(term, node, labels))
}

fn term_selects(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let mut requirements = 0;
    for requirement in expressions {
        requirements += 1;
        if !holds(
            requirement,
            labels.get(&requirement.key).map(String::as_str),
        ) {
            return false;
        }
    }
    for requirement in fields {
        requirements += 1;
        if requirement.key != "metadata.name" || !holds(requirement, Some(node)) {
            return false;
        }
    }
    requirements > 0
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let contains = |value: &str| values.iter().any(|known| known == value);
    let number = |text: &str| text.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(contains),
        "NotIn" => !value.is_some_and(contains),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let (Some(is), Some(bound)) = (
                value.and_then(number),
                values.first().and_then(|text| number(text)),
            ) else {
                return false;
            };
            if requirement.operator == "Gt" {
                is > bound
            } else {
                is < bound
            }
        }
        _ => false,
    }
}

/// A selector that takes exactly these nodes.
#[must_use]
pub fn selector(nodes: &BTreeSet<String>) -> NodeSelector {
    // A requirement on the name takes a single value, so that each node is a term of its own.
    let term = |node: &String| NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.clone()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    NodeSelector {
        node_selector_terms: nodes.iter().map(term).collect(),
    }
}

/// The nodes that a selector made by [`selector`] names.
#[must_use]
pub fn named_by(selector: &NodeSelector) -> BTreeSet<String> {
    selector
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten())
        .flat_map(|requirement| requirement.values.iter().flatten().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(operator: &str, values: &[&str]) -> VolumeNodeAffinity {
        VolumeNodeAffinity {
            required: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(vec![NodeSelectorRequirement {
                        key: "zone".to_owned(),
                        operator: operator.to_owned(),
                        values: Some(values.iter().map(|&value| value.to_owned()).collect()),
                    }]),
                    ..NodeSelectorTerm::default()
                }],
            }),
        }
    }

    #[test]
    fn a_volume_of_a_zone_is_served_by_agents_of_that_zone() {
        let agents: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        let labels = [("a", "1"), ("b", "2")]
            .map(|(node, zone)| {
                (
                    node.to_owned(),
                    BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
                )
            })
            .into();
        let of = |affinity: &VolumeNodeAffinity| -> Vec<String> {
            eligible(&agents, &labels, Some(affinity))
                .into_iter()
                .collect()
        };
        assert_eq!(of(&zone("In", &["1"])), ["a"]);
        assert_eq!(of(&zone("NotIn", &["1"])), ["b", "c"]);
        assert_eq!(of(&zone("Exists", &[])), ["a", "b"]);
        assert_eq!(of(&zone("Gt", &["1"])), ["b"]);
        assert_eq!(of(&zone("Near", &["1"])), [] as [&str; 0]);
        assert_eq!(eligible(&agents, &labels, None), agents);
    }

    fn node(name: &str, cordoned: bool, taints: &[(&str, Option<&str>, &str)]) -> Node {
        let taint = |(key, value, effect): &(&str, Option<&str>, &str)| Taint {
            key: (*key).to_owned(),
            value: value.map(str::to_owned),
            effect: (*effect).to_owned(),
            ..Taint::default()
        };
        let mut node = Node {
            spec: Some(NodeSpec {
                unschedulable: cordoned.then_some(true),
                taints: Some(taints.iter().map(taint).collect()),
                ..NodeSpec::default()
            }),
            ..Node::default()
        };
        node.metadata.name = Some(name.to_owned());
        strip(&mut node);
        node
    }

    #[test]
    fn a_cordoned_node_gets_no_holder_where_another_can() {
        let all = [
            node("a", false, &[]),
            node("b", true, &[(CORDONED, None, "NoSchedule")]),
        ];
        let nodes = Nodes::of(&all);
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let agents: BTreeSet<String> = set(&["a", "b"]);
        let found = nodes.eligible(&agents, None);
        assert_eq!(found.open, set(&["a"]));
        assert!(unreachable(&found.cordoned).is_some());
        // Only there: it is said which node it is.
        let found = nodes.eligible(&set(&["b"]), None);
        assert!(found.open.is_empty());
        assert!(unreachable(&found.cordoned).unwrap().contains(": b;"));
        assert_eq!(unreachable(&BTreeSet::new()), None);
    }

    #[test]
    fn a_holder_tolerates_what_nodes_are_for_and_not_how_they_are() {
        let all = [
            node(
                "a",
                false,
                &[
                    ("db", Some("yes"), "NoSchedule"),
                    ("soft", None, "PreferNoSchedule"),
                ],
            ),
            node(
                "b",
                true,
                &[(CORDONED, None, "NoSchedule"), ("gpu", None, "NoExecute")],
            ),
            node(
                "c",
                false,
                &[
                    ("node.kubernetes.io/not-ready", None, "NoSchedule"),
                    ("db", Some("yes"), "NoSchedule"),
                ],
            ),
            node(
                "d",
                false,
                &[
                    ("other", None, "NoSchedule"),
                    ("ToBeDeletedByClusterAutoscaler", Some("1"), "NoSchedule"),
                ],
            ),
        ];
        let allowed = ["a", "b", "c"].map(str::to_owned).into();
        let tolerated = Nodes::of(&all).tolerations(&allowed);
        let mut words: Vec<String> = tolerated
            .into_iter()
            .map(|one| {
                let [key, operator, value, effect] =
                    [one.key, one.operator, one.value, one.effect].map(Option::unwrap_or_default);
                format!("{key} {operator} {value} {effect}")
            })
            .collect();
        words.sort();
        assert_eq!(
            words,
            [
                "db Equal yes NoSchedule",
                "gpu Exists  NoExecute",
                "node.kubernetes.io/memory-pressure Exists  NoSchedule",
            ]
        );
    }

    #[test]
    fn a_selector_names_its_nodes() {
        let nodes: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(named_by(&selector(&nodes)), nodes);
    }
}

//! Which nodes can serve a volume: those with a ready agent that the volume can be attached to.
//!
//! Owns: the node selector's meaning, and who is an agent. Must not: choose one.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, VolumeNodeAffinity,
};

/// Labels of every pod of an agent.
pub const AGENT_LABELS: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "snaphaul"),
    ("app.kubernetes.io/component", "agent"),
];

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
#[must_use]
pub fn eligible(
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

    #[test]
    fn a_selector_names_its_nodes() {
        let nodes: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(named_by(&selector(&nodes)), nodes);
    }
}

//! The roles of controller and agent: all that is needed, and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::Cluster;

use super::text;

const SYSTEM: &str = "snaphaul-system";
/// A namespace of tenants, where roles of the system namespace mean nothing.
const ELSEWHERE: &str = "default";
/// Rules reach the authorizer after a moment.
const IN_FORCE: Duration = Duration::from_secs(60);

/// One question to the authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    account: &'static str,
    namespace: &'static str,
    verb: String,
    group: String,
    /// With its subresource, as in a rule.
    resource: String,
    name: Option<String>,
}

impl Request {
    fn review(&self) -> Value {
        let (resource, subresource) = self
            .resource
            .split_once('/')
            .unwrap_or((&self.resource, ""));
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{SYSTEM}:{}", self.account),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{SYSTEM}"), "system:authenticated"],
                "resourceAttributes": {
                    "namespace": self.namespace, "verb": self.verb, "group": self.group,
                    "resource": resource, "subresource": subresource, "name": self.name.as_deref().unwrap_or(""),
                },
            },
        })
    }
}

/// Whether each is allowed, in one call.
fn ask(cluster: &Cluster, requests: &[Request]) -> Result<Vec<bool>> {
    let reviews: Vec<Value> = requests.iter().map(Request::review).collect();
    let path = cluster.folder().join("reviews.json");
    std::fs::write(
        &path,
        json!({"apiVersion": "v1", "kind": "List", "items": reviews}).to_string(),
    )?;
    let output = r#"--output=jsonpath={.status.allowed}{"\n"}"#;
    let answer = cluster.kubectl(&["create", output, "--filename", text(&path)?])?;
    let answers: Vec<bool> = answer.lines().map(|line| line.trim() == "true").collect();
    ensure!(answers.len() == requests.len(), "{answer}");
    Ok(answers)
}

/// Asks until every answer is `expected`.
fn wait_for(cluster: &Cluster, requests: &[Request], expected: bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let answers = ask(cluster, requests)?;
        let Some(wrong) = answers.iter().position(|answer| *answer != expected) else {
            return Ok(());
        };
        if begin.elapsed() > IN_FORCE {
            bail!("allowed is not {expected}: {:?}", requests[wrong]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A role by what `kubectl` calls it, and where it is asked about.
struct Role {
    kind: &'static str,
    account: &'static str,
    namespace: &'static str,
}

const ROLES: [Role; 4] = [
    Role {
        kind: "clusterrole",
        account: "snaphaul-controller",
        namespace: ELSEWHERE,
    },
    Role {
        kind: "role",
        account: "snaphaul-controller",
        namespace: SYSTEM,
    },
    Role {
        kind: "clusterrole",
        account: "snaphaul-agent",
        namespace: ELSEWHERE,
    },
    Role {
        kind: "role",
        account: "snaphaul-agent",
        namespace: SYSTEM,
    },
];

impl Role {
    fn rules(&self, cluster: &Cluster) -> Result<Vec<Value>> {
        let place = format!("--namespace={SYSTEM}");
        let role = cluster.kubectl(&["get", self.kind, self.account, &place, "--output=json"])?;
        let role: Value = serde_json::from_str(&role)?;
        Ok(role["rules"]
            .as_array()
            .context("a role without rules")?
            .clone())
    }

    fn set(&self, cluster: &Cluster, rules: &[Value]) -> Result<()> {
        let patch = json!({ "rules": rules }).to_string();
        let place = format!("--namespace={SYSTEM}");
        let target = ["patch", self.kind, self.account, &place];
        cluster
            .kubectl(&[&target[..], &["--type=merge", "--patch", &patch]].concat())
            .map(drop)
    }

    /// Everything that a rule allows, one by one.
    fn requests(&self, rule: &Value) -> Vec<Request> {
        let words = |key: &str| -> Vec<String> {
            let list = rule[key].as_array().into_iter().flatten();
            list.filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect()
        };
        let mut names: Vec<Option<String>> = words("resourceNames").into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        let mut all = Vec::new();
        for group in words("apiGroups") {
            for resource in words("resources") {
                for verb in words("verbs") {
                    all.extend(names.iter().map(|name| Request {
                        account: self.account,
                        namespace: self.namespace,
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                    }));
                }
            }
        }
        all
    }
}

/// No rule is there twice, and none is a wildcard: without it what it is for is refused.
pub(super) fn every_rule_is_missed_when_it_is_gone(cluster: &Cluster) -> Result<()> {
    for role in &ROLES {
        let rules = role.rules(cluster)?;
        for (index, rule) in rules.iter().enumerate() {
            ensure!(
                !rule.to_string().contains('*'),
                "{} allows more than it says: {rule}",
                role.account
            );
            let requests = role.requests(rule);
            ensure!(
                !requests.is_empty(),
                "{} has a rule without effect: {rule}",
                role.account
            );
            wait_for(cluster, &requests, true)?;
            let mut fewer = rules.clone();
            fewer.remove(index);
            role.set(cluster, &fewer)?;
            let missed = wait_for(cluster, &requests, false)
                .with_context(|| format!("another rule allows the same as {rule}"));
            role.set(cluster, &rules)?;
            missed?;
        }
    }
    Ok(())
}

/// Who, what, and where: what a process that was taken over must not be able to do.
const REFUSED: &[(&str, &str, &str, &str, &str)] = &[
    ("snaphaul-agent", "create", "", "pods", SYSTEM),
    ("snaphaul-agent", "create", "", "pods/exec", SYSTEM),
    (
        "snaphaul-agent",
        "create",
        "",
        "persistentvolumeclaims",
        SYSTEM,
    ),
    ("snaphaul-agent", "get", "", "persistentvolumes", ""),
    ("snaphaul-agent", "patch", "", "nodes", ""),
    ("snaphaul-agent", "list", "", "secrets", SYSTEM),
    ("snaphaul-agent", "watch", "", "secrets", SYSTEM),
    ("snaphaul-agent", "get", "", "secrets", ELSEWHERE),
    (
        "snaphaul-agent",
        "create",
        "",
        "serviceaccounts/token",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "create",
        "snapshot.storage.k8s.io",
        "volumesnapshots",
        SYSTEM,
    ),
    (
        "snaphaul-agent",
        "delete",
        "snapshot.storage.k8s.io",
        "volumesnapshots",
        SYSTEM,
    ),
    (
        "snaphaul-agent",
        "get",
        "snapshot.storage.k8s.io",
        "volumesnapshots",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "get",
        "snapshot.storage.k8s.io",
        "volumesnapshotcontents",
        "",
    ),
    (
        "snaphaul-agent",
        "create",
        "snaphaul.dev",
        "podvolumebackups",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "patch",
        "snaphaul.dev",
        "podvolumebackups",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "delete",
        "snaphaul.dev",
        "podvolumebackups",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "patch",
        "snaphaul.dev",
        "snapshotrepositories",
        "",
    ),
    (
        "snaphaul-agent",
        "patch",
        "snaphaul.dev",
        "snapshotrepositories/status",
        "",
    ),
    (
        "snaphaul-agent",
        "use",
        "snaphaul.dev",
        "snapshotrepositories",
        ELSEWHERE,
    ),
    (
        "snaphaul-agent",
        "update",
        "coordination.k8s.io",
        "leases",
        SYSTEM,
    ),
    ("snaphaul-controller", "get", "", "secrets", ELSEWHERE),
    ("snaphaul-controller", "list", "", "secrets", SYSTEM),
    ("snaphaul-controller", "create", "", "pods", ELSEWHERE),
    ("snaphaul-controller", "delete", "", "pods", ELSEWHERE),
    ("snaphaul-controller", "create", "", "pods/exec", SYSTEM),
    (
        "snaphaul-controller",
        "create",
        "",
        "serviceaccounts/token",
        SYSTEM,
    ),
    ("snaphaul-controller", "patch", "", "nodes", ""),
    ("snaphaul-controller", "delete", "", "namespaces", ""),
    (
        "snaphaul-controller",
        "update",
        "coordination.k8s.io",
        "leases",
        ELSEWHERE,
    ),
    (
        "snaphaul-controller",
        "create",
        "storage.k8s.io",
        "volumeattachments",
        "",
    ),
    (
        "snaphaul-controller",
        "delete",
        "snaphaul.dev",
        "snapshotrepositories",
        "",
    ),
    (
        "snaphaul-controller",
        "patch",
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "",
    ),
    (
        "snaphaul-controller",
        "patch",
        "rbac.authorization.k8s.io",
        "clusterroles",
        "",
    ),
    (
        "snaphaul-controller",
        "patch",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "",
    ),
];

pub(super) fn no_role_allows_what_is_not_needed(cluster: &Cluster) -> Result<()> {
    let requests: Vec<Request> = REFUSED
        .iter()
        .map(|&(account, verb, group, resource, namespace)| Request {
            account,
            namespace,
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: None,
        })
        .collect();
    for (request, allowed) in requests.iter().zip(ask(cluster, &requests)?) {
        ensure!(!allowed, "allowed: {request:?}");
    }
    Ok(())
}

//! What somebody must not write whose roles would allow it: a tenant who may do anything in a namespace, an agent that was taken over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Cluster;
use tests::cluster::kubectl::Kubectl;

use super::objects::{BACKUP, RESTORE, backup, repository, restore};
use super::{refused, text};

const SYSTEM: &str = "snaphaul-system";
const AGENT: &str = "snaphaul-agent";
/// A role reaches the authorizer after a moment, and so does a policy.
const IN_FORCE: Duration = Duration::from_secs(60);

/// An account that may do everything in a namespace of its own, and read repositories: what a careless administrator grants.
fn lord(cluster: &Cluster, namespace: &str) -> Result<Kubectl> {
    cluster.namespace(namespace, &[])?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "all", "namespace": namespace},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    cluster.apply(&role.to_string())?;
    let account = format!("--serviceaccount={namespace}:default");
    let place = format!("--namespace={namespace}");
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "all",
        "--role=all",
        &account,
        &place,
    ])?;
    let who = format!("--as=system:serviceaccount:{namespace}:default");
    cluster.wait_for(
        IN_FORCE,
        &[
            "auth",
            "can-i",
            "coordinate",
            "snapshotrepositories.snaphaul.dev",
            &who,
            &place,
        ],
        |answer| answer.trim() == "yes",
    )?;
    Ok(cluster.kubectl_as(&cluster.service_account_kubeconfig(namespace, "default")?))
}

/// A change of a status, or of the object itself.
fn patch(kind: &str, name: &str, namespace: &str, status: bool, change: &str) -> Vec<String> {
    let mut words: Vec<String> = ["patch", kind, name, "--type=merge", "--patch", change]
        .map(str::to_owned)
        .into();
    words.push(format!("--namespace={namespace}"));
    if status {
        words.push("--subresource=status".to_owned());
    }
    words
}

fn run(who: &Kubectl, words: &[String]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    who.run(&words)
}

/// A status that a tenant wrote would name another tenant's point, or a volume of the storage's choice.
pub(super) fn a_tenant_forges_no_status(cluster: &Cluster) -> Result<()> {
    let tenant = lord(cluster, "forgers")?;
    cluster.apply(&backup("forgers", "mine", BACKUP))?;
    cluster.apply(&restore("forgers", "mine", RESTORE))?;
    let point =
        r#"{"status": {"phase": "Completed", "point": {"id": "0123", "repositoryID": "r"}}}"#;
    let volume = r#"{"status": {"volume": {"name": "a", "handle": "theirs", "reclaimPolicy": "Delete", "object": "{}"}}}"#;
    for (kind, status) in [
        ("podvolumebackups.snaphaul.dev", point),
        ("podvolumerestores.snaphaul.dev", volume),
    ] {
        let forgery = patch(kind, "mine", "forgers", true, status);
        let words = refused(kind, run(&tenant, &forgery))?;
        ensure!(
            words.contains("system:serviceaccount:forgers:default may not write a status"),
            "{words}"
        );
        // Administrators of the cluster mend what has to be mended.
        run(&cluster.kubectl_as(cluster.kubeconfig()), &forgery)?;
    }
    // Nor with the object: what is created has no status, and a change of the object changes none.
    let object = json!({
        "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeRestore", "metadata": {"name": "born", "namespace": "forgers"},
        "spec": {"source": {"backupName": "one"}, "target": {"name": "data"}},
        "status": {"phase": "Prepared", "volume": {"name": "a", "handle": "theirs", "reclaimPolicy": "Delete"}},
    });
    tenant.apply(&object.to_string())?;
    let born = cluster.kubectl(&[
        "get",
        "podvolumerestores.snaphaul.dev",
        "born",
        "--namespace=forgers",
        "--output=jsonpath={.status}",
    ])?;
    ensure!(born.trim().is_empty(), "{born}");
    a_repository_is_what_the_controller_says(cluster)
}

/// Also for somebody whom a ClusterRole lets write that status.
fn a_repository_is_what_the_controller_says(cluster: &Cluster) -> Result<()> {
    cluster.apply(&repository("believed", super::objects::REPOSITORY))?;
    cluster.kubectl(&[
        "create",
        "clusterrole",
        "statuses",
        "--verb=get,patch",
        "--resource=snapshotrepositories.snaphaul.dev,snapshotrepositories.snaphaul.dev/status",
    ])?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "statuses",
        "--clusterrole=statuses",
        "--serviceaccount=forgers:default",
    ])?;
    cluster.wait_for(
        IN_FORCE,
        &[
            "auth",
            "can-i",
            "patch",
            "snapshotrepositories.snaphaul.dev/believed",
            "--subresource=status",
            "--as=system:serviceaccount:forgers:default",
        ],
        |answer| answer.trim() == "yes",
    )?;
    let tenant = cluster.kubectl_as(&cluster.service_account_kubeconfig("forgers", "default")?);
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Done", "message": "", "lastTransitionTime": "2026-01-31T06:00:00Z"}]}}"#;
    let forgery = patch(
        "snapshotrepositories.snaphaul.dev",
        "believed",
        "forgers",
        true,
        ready,
    );
    let words = refused("a repository's status", run(&tenant, &forgery))?;
    ensure!(words.contains("may not write a status"), "{words}");
    Ok(())
}

/// Without it the work would be left to nobody: a volume that changes hands is named by the status alone for a moment.
pub(super) fn a_finalizer_is_the_controllers(cluster: &Cluster) -> Result<()> {
    let tenant = lord(cluster, "removers")?;
    let controller =
        cluster.kubectl_as(&cluster.service_account_kubeconfig(SYSTEM, "snaphaul-controller")?);
    let with = r#"{"metadata": {"finalizers": ["snaphaul.dev/cleanup", "example.com/theirs"]}}"#;
    let without = r#"{"metadata": {"finalizers": ["example.com/theirs"]}}"#;
    cluster.apply(&backup("removers", "mine", BACKUP))?;
    cluster.apply(&restore("removers", "mine", RESTORE))?;
    for kind in [
        "podvolumebackups.snaphaul.dev",
        "podvolumerestores.snaphaul.dev",
    ] {
        run(&controller, &patch(kind, "mine", "removers", false, with))?;
        for change in [without, r#"{"metadata": {"finalizers": null}}"#] {
            let words = refused(
                kind,
                run(&tenant, &patch(kind, "mine", "removers", false, change)),
            )?;
            ensure!(
                words.contains("may not remove the finalizer snaphaul.dev/cleanup"),
                "{words}"
            );
        }
        // Everything else of the object stays the tenant's.
        let cancel =
            r#"{"spec": {"cancel": true}, "metadata": {"finalizers": ["snaphaul.dev/cleanup"]}}"#;
        run(&tenant, &patch(kind, "mine", "removers", false, cancel))?;
        run(
            &controller,
            &patch(kind, "mine", "removers", false, without),
        )?;
        run(
            &tenant,
            &patch(
                kind,
                "mine",
                "removers",
                false,
                r#"{"metadata": {"finalizers": null}}"#,
            ),
        )?;
    }
    Ok(())
}

/// Asks for a token of the agents' account with somebody's token.
fn ask(cluster: &Cluster, token: &str, account: &str, spec: &serde_json::Value) -> Result<String> {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = cluster.folder().join("token-request.json");
    std::fs::write(&path, request.to_string())?;
    let authority = cluster.authority();
    let url = cluster.url();
    let who = [
        "--token",
        token,
        "--server",
        &url,
        "--certificate-authority",
        text(&authority)?,
    ];
    let target = format!("/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token");
    let create = ["create", "--raw", &target, "--filename", text(&path)?];
    let nobody = cluster.kubectl_as(std::path::Path::new("/dev/null"));
    nobody.run(&[&create[..], &who].concat())
}

/// A node that was taken over gets no token that speaks for another, for the API server, or for long.
pub(super) fn an_agent_makes_tokens_for_metadata_services_only(cluster: &Cluster) -> Result<()> {
    for node in ["mine", "theirs"] {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}"
        ))?;
    }
    let bound = ["--bound-object-kind=Node", "--bound-object-name=mine"];
    let place = ["create", "token", AGENT, "--namespace", SYSTEM];
    let own = cluster.kubectl(&[&place[..], &bound].concat())?;
    let own = own.trim();
    let service = json!({"audiences": ["snapshot-metadata.test"], "expirationSeconds": 600});
    let uid =
        |node: &str| cluster.kubectl(&["get", "node", node, "--output=jsonpath={.metadata.uid}"]);
    let of_node = |node: &str| -> Result<serde_json::Value> {
        Ok(json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid(node)?}))
    };
    let mut bad = Vec::new();
    for node in ["mine", "theirs"] {
        let mut spec = service.clone();
        spec["boundObjectRef"] = of_node(node)?;
        bad.push((spec, "bound to no object"));
    }
    for audiences in [
        json!([]),
        json!(["https://kubernetes.default.svc"]),
        json!(["snapshot-metadata.test", "https://kubernetes.default.svc"]),
        json!(["https://kubernetes.default.svc.cluster.local"]),
    ] {
        let spec = json!({"audiences": audiences, "expirationSeconds": 600});
        bad.push((spec, "one metadata service"));
    }
    bad.push((
        json!({"audiences": ["snapshot-metadata.test"], "expirationSeconds": 3600}),
        "at most 600 seconds",
    ));
    for (spec, why) in bad {
        let words = refused(&spec.to_string(), ask(cluster, own, AGENT, &spec))?;
        ensure!(words.contains(why), "{words}");
    }
    let words = refused(
        "another account",
        ask(cluster, own, "snaphaul-controller", &service),
    )?;
    ensure!(words.contains("cannot create resource"), "{words}");
    let made = ask(cluster, own, AGENT, &service)?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let token = made["status"]["token"].as_str().context("a token")?;
    // Only whoever serves the audience takes it.
    let answer = ask(
        cluster,
        token,
        AGENT,
        &json!({"audiences": ["a"], "expirationSeconds": 600}),
    );
    refused("the API server", answer).map(drop)
}

/// A pod with one volume.
fn pod(namespace: &str, name: &str, volume: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{containers: [{{name: a, image: a}}], \
         volumes: [{{name: data, {volume}}}]}}}}"
    )
}

/// Takes a pod away at once.
fn remove_pod(cluster: &Cluster, name: &str) -> Result<()> {
    let words = ["--namespace=overwritten", "--force", "--grace-period=0"];
    let all = [&["delete", "pod", name], &words[..]].concat();
    cluster.kubectl(&all).map(drop)
}

/// A claim that is written over gets no pod, until the restore has ended; other claims and other modes are not concerned.
pub(super) fn a_claim_that_is_written_over_gets_no_pod(cluster: &Cluster) -> Result<()> {
    cluster.namespace("overwritten", &[])?;
    cluster.namespace("bystanders", &[])?;
    let over = |name: &str, mode: &str, claim: &str| {
        let spec = format!("source: {{backupName: one}}, target: {{name: {claim}}}, mode: {mode}");
        restore("overwritten", name, &spec)
    };
    cluster.apply(&over("over", "InPlace", "data"))?;
    cluster.apply(&over("beside", "Replace", "other"))?;
    let claim = |name: &str| format!("persistentVolumeClaim: {{claimName: {name}}}");
    let begin = std::time::Instant::now();
    // The restore reaches the policy after a moment.
    let words = loop {
        let answer = cluster.apply(&pod("overwritten", "user", &claim("data")));
        match answer {
            Err(error) => break format!("{error:#}"),
            Ok(_) if begin.elapsed() < IN_FORCE => {
                remove_pod(cluster, "user")?;
            }
            Ok(_) => anyhow::bail!("a pod was admitted to a claim that is written over"),
        }
    };
    eprintln!("the policy knew the restore after {:?}", begin.elapsed());
    ensure!(
        words.contains("PersistentVolumeClaim data is being written over by PodVolumeRestore over"),
        "{words}"
    );
    let ephemeral = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}";
    cluster.apply(&over("ephemeral", "InPlace", "box-data"))?;
    let boxed = pod("overwritten", "box", ephemeral);
    let begin = std::time::Instant::now();
    while cluster.apply(&boxed).is_ok() {
        ensure!(begin.elapsed() < IN_FORCE, "an ephemeral claim is not seen");
        remove_pod(cluster, "box")?;
    }
    for (name, volume) in [
        ("replaced", claim("other")),
        ("third", claim("third")),
        ("empty", "emptyDir: {}".to_owned()),
    ] {
        cluster.apply(&pod("overwritten", name, &volume))?;
    }
    cluster.apply(&pod("bystanders", "user", &claim("data")))?;
    let ended = patch(
        "podvolumerestores.snaphaul.dev",
        "over",
        "overwritten",
        true,
        r#"{"status": {"phase": "Failed"}}"#,
    );
    run(&cluster.kubectl_as(cluster.kubeconfig()), &ended)?;
    let begin = std::time::Instant::now();
    while let Err(error) = cluster.apply(&pod("overwritten", "user", &claim("data"))) {
        ensure!(begin.elapsed() < IN_FORCE, "{error:#}");
    }
    Ok(())
}

/// A tenant passes no backup off as made elsewhere, hides none from the controller, and has none run that stands for a point.
pub(super) fn a_synced_backup_is_the_controllers(cluster: &Cluster) -> Result<()> {
    const KIND: &str = "podvolumebackups.snaphaul.dev";
    let tenant = lord(cluster, "syncers")?;
    let marked = |name: &str, label: &str, more: &str| {
        let plain = backup("syncers", name, &format!("{BACKUP}{more}"));
        let labels = format!("namespace: syncers, labels: {{{label}}}");
        plain.replacen("namespace: syncers", &labels, 1)
    };
    let own = "snaphaul.dev/synced: own, snaphaul.dev/repository-id: abc";
    let may_not = "system:serviceaccount:syncers:default may not set or change the labels";
    for label in [
        own,
        "snaphaul.dev/synced: ''",
        "snaphaul.dev/repository-id: abc",
    ] {
        let words = refused(label, tenant.apply(&marked("forged", label, "")))?;
        ensure!(words.contains(may_not), "{words}");
    }
    tenant.apply(&backup("syncers", "mine", BACKUP))?;
    cluster.apply(&marked("point-1", own, ""))?;
    for (name, label) in [
        ("mine", r#"{"snaphaul.dev/synced": "own"}"#),
        ("mine", r#"{"snaphaul.dev/synced": ""}"#),
        ("point-1", r#"{"snaphaul.dev/synced": null}"#),
        ("point-1", r#"{"snaphaul.dev/synced": "granted"}"#),
        ("point-1", r#"{"snaphaul.dev/repository-id": "other"}"#),
    ] {
        let change = format!(r#"{{"metadata": {{"labels": {label}}}}}"#);
        let forgery = patch(KIND, name, "syncers", false, &change);
        let words = refused(&change, run(&tenant, &forgery))?;
        ensure!(words.contains(may_not), "{words}");
    }
    // Their own labels are theirs, and so is the policy of their own points.
    for change in [
        r#"{"metadata": {"labels": {"team": "a"}}}"#,
        r#"{"spec": {"deletionPolicy": "Delete"}}"#,
    ] {
        run(&tenant, &patch(KIND, "point-1", "syncers", false, change))?;
    }
    // Those of others nobody deletes from here, whoever asks.
    let granted = "snaphaul.dev/synced: granted";
    let with_delete = marked("point-2", granted, ", deletionPolicy: Delete");
    let words = refused("a granted point", cluster.apply(&with_delete))?;
    ensure!(
        words.contains("a grant lets this one restore it"),
        "{words}"
    );
    cluster.apply(&marked("point-2", granted, ""))?;
    let forgery = patch(
        KIND,
        "point-2",
        "syncers",
        false,
        r#"{"spec": {"deletionPolicy": "Delete"}}"#,
    );
    let words = refused("a granted point", run(&tenant, &forgery))?;
    ensure!(
        words.contains("a grant lets this one restore it"),
        "{words}"
    );
    Ok(())
}

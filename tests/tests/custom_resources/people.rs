//! People: what they apply, and what the policies ask of them.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::cluster::kubectl::Kubectl;

use super::objects::{BACKUP, backup, restore};
use super::{manifests, refused, text};

/// Policies of the base.
const POLICIES: usize = 8;
/// A role reaches the authorizer after a moment, and so does a policy.
const IN_FORCE: Duration = Duration::from_secs(60);

pub(super) fn the_examples_apply_in_their_order(cluster: &Cluster) -> Result<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(manifests().join("examples"))? {
        paths.push(entry?.path());
    }
    paths.sort();
    ensure!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        cluster.kubectl(&["apply", "--server-side", "-f", text(&path)?])?;
    }
    let who = [
        "--as=somebody",
        "--as-group=shop-developers",
        "--namespace=shop",
    ];
    let question = [
        "auth",
        "can-i",
        "use",
        "snapshotrepositories.snaphaul.dev/backups",
    ];
    let answer = cluster.kubectl(&[&question[..], &who].concat())?;
    ensure!(answer.trim() == "yes", "{answer}");
    Ok(())
}

/// The API server checks expressions against the definitions, and notes what cannot be: a policy with a mistyped field would refuse all.
pub(super) fn policies_are_free_of_warnings(cluster: &Cluster) -> Result<()> {
    let list = ["get", "validatingadmissionpolicies", "--output=json"];
    let checked = |answer: &str| {
        let policies: Value = serde_json::from_str(answer).unwrap_or_default();
        let ours: Vec<&Value> = policies["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|policy| {
                policy["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("snaphaul-"))
            })
            .collect();
        ours.len() == POLICIES
            && ours
                .iter()
                .all(|policy| policy["status"]["typeChecking"].is_object())
    };
    let answer = cluster.wait_for(IN_FORCE, &list, checked)?;
    let policies: Value = serde_json::from_str(&answer)?;
    for policy in policies["items"].as_array().into_iter().flatten() {
        let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
        ensure!(
            warnings.is_null(),
            "{}: {warnings:#}",
            policy["metadata"]["name"]
        );
    }
    Ok(())
}

/// A namespace with a service account that has the role `edit` and what is bound besides.
fn tenant(cluster: &Cluster, namespace: &str) -> Result<Kubectl> {
    cluster.namespace(namespace, &[])?;
    bind(cluster, namespace, "clusterrole=edit")?;
    let can = ["auth", "can-i", "create", "podvolumebackups.snaphaul.dev"];
    let who = [
        format!("--as=system:serviceaccount:{namespace}:default"),
        format!("--namespace={namespace}"),
    ];
    cluster.wait_for(
        IN_FORCE,
        &[&can[..], &[&who[0], &who[1]]].concat(),
        |answer| answer.trim() == "yes",
    )?;
    Ok(cluster.kubectl_as(&cluster.service_account_kubeconfig(namespace, "default")?))
}

fn bind(cluster: &Cluster, namespace: &str, role: &str) -> Result<()> {
    let name = role.replace('=', "-");
    cluster.kubectl(&[
        "create",
        "rolebinding",
        &name,
        &format!("--{role}"),
        &format!("--serviceaccount={namespace}:default"),
        &format!("--namespace={namespace}"),
    ])?;
    Ok(())
}

/// A role of the namespace with this rule, as a flow mapping without its braces, bound to its tenant.
fn allow(cluster: &Cluster, namespace: &str, name: &str, rule: &str) -> Result<()> {
    let metadata = format!("{{name: {name}, namespace: {namespace}}}");
    cluster.apply(&format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {metadata}, rules: [{{{rule}}}]}}"
    ))?;
    bind(cluster, namespace, &format!("role={name}"))
}

/// Applies until the answer is no refusal with these words any more.
fn until_other_words(who: &Kubectl, yaml: &str, words: &str) -> Result<Result<String>> {
    let begin = std::time::Instant::now();
    loop {
        let answer = who.apply(yaml);
        match &answer {
            Err(error) if format!("{error:#}").contains(words) => {
                if begin.elapsed() > IN_FORCE {
                    bail!("still refused: {error:#}");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            _ => return Ok(answer),
        }
    }
}

pub(super) fn a_backup_needs_the_right_to_use_its_repository(cluster: &Cluster) -> Result<()> {
    let tenant = tenant(cluster, "savers")?;
    let mine = backup("savers", "mine", BACKUP);
    let words = refused("without `use`", tenant.apply(&mine))?;
    let expected = "system:serviceaccount:savers:default may not use the SnapshotRepository backups in namespace savers: \
         bind the ClusterRole snaphaul-repository-user there";
    ensure!(words.contains(expected), "{words}");

    let one = "apiGroups: [snaphaul.dev], resources: [snapshotrepositories], resourceNames: [backups], verbs: [use]";
    allow(cluster, "savers", "use-one", one)?;
    let answer = until_other_words(&tenant, &mine, "may not use the SnapshotRepository backups")?;
    let words = refused("without the right to take snapshots", answer)?;
    ensure!(
        words
            .contains("may not create volumesnapshots.snapshot.storage.k8s.io in namespace savers"),
        "{words}"
    );

    let snapshots =
        "apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots], verbs: [create]";
    allow(cluster, "savers", "snapshots", snapshots)?;
    until_other_words(&tenant, &mine, "may not create volumesnapshots")??;

    let other = backup(
        "savers",
        "other",
        "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: theirs}",
    );
    let words = refused("another repository", tenant.apply(&other))?;
    ensure!(
        words.contains("may not use the SnapshotRepository theirs"),
        "{words}"
    );
    // The right is one of this namespace: the same account has none elsewhere.
    cluster.namespace("savers-elsewhere", &[])?;
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "guest",
        "--clusterrole=edit",
        "--serviceaccount=savers:default",
        "--namespace=savers-elsewhere",
    ])?;
    let elsewhere = backup("savers-elsewhere", "mine", BACKUP);
    let answer = until_other_words(&tenant, &elsewhere, "cannot patch resource")?;
    let words = refused("another namespace", answer)?;
    ensure!(
        words.contains("may not use the SnapshotRepository backups in namespace savers-elsewhere"),
        "{words}"
    );

    bind(cluster, "savers", "clusterrole=snaphaul-repository-user")?;
    until_other_words(&tenant, &other, "may not use the SnapshotRepository theirs")??;
    // Whoever may cancel need not have been the one who may create.
    tenant.apply(&backup(
        "savers",
        "mine",
        &format!("{BACKUP}, cancel: true"),
    ))?;
    Ok(())
}

pub(super) fn a_restore_needs_the_rights_to_its_claim(cluster: &Cluster) -> Result<()> {
    let tenant = tenant(cluster, "restorers")?;
    let by_point = restore(
        "restorers",
        "point",
        "source: {pointID: 265bdaf5816b1871-4ff57596}, repositoryRef: {name: backups}, target: {name: data}",
    );
    let words = refused("without `use`", tenant.apply(&by_point))?;
    ensure!(
        words.contains("may not use the SnapshotRepository backups in namespace restorers"),
        "{words}"
    );
    // `edit` includes claims, and this names no repository.
    tenant.apply(&restore(
        "restorers",
        "backup",
        "source: {backupName: one}, target: {name: data}",
    ))?;

    cluster.namespace("bare", &[])?;
    let kinds =
        "apiGroups: [snaphaul.dev], resources: [podvolumerestores], verbs: [get, create, patch]";
    allow(cluster, "bare", "restores", kinds)?;
    let bare = cluster.kubectl_as(&cluster.service_account_kubeconfig("bare", "default")?);
    let made = |name: &str, mode: &str| {
        restore(
            "bare",
            name,
            &format!("source: {{backupName: one}}, target: {{name: data}}, mode: {mode}"),
        )
    };
    let answer = until_other_words(&bare, &made("new", "NewClaim"), "cannot patch resource")?;
    let words = refused("without the right to make claims", answer)?;
    ensure!(
        words.contains("may not create persistentvolumeclaims in namespace bare"),
        "{words}"
    );
    let claims = "apiGroups: [''], resources: [persistentvolumeclaims], verbs: [create]";
    allow(cluster, "bare", "claims", claims)?;
    until_other_words(
        &bare,
        &made("new", "NewClaim"),
        "may not create persistentvolumeclaims",
    )??;
    for mode in ["Replace", "InPlace"] {
        let words = refused(mode, bare.apply(&made("over", mode)))?;
        let expected = format!(
            "may not delete the PersistentVolumeClaim data in namespace bare, whose content mode {mode} gives up"
        );
        ensure!(words.contains(&expected), "{words}");
    }
    let one = "apiGroups: [''], resources: [persistentvolumeclaims], resourceNames: [data], verbs: [delete]";
    allow(cluster, "bare", "this-claim", one)?;
    until_other_words(
        &bare,
        &made("over", "Replace"),
        "may not delete the PersistentVolumeClaim",
    )??;
    Ok(())
}

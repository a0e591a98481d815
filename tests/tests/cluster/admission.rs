//! What the API server refuses by its content: pods by PodSecurity, anything by policies, snapshots by their definitions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tests::cluster::Cluster;

use super::refused;

/// How long a new policy may take to be in force; the API server promises no time.
const IN_FORCE: Duration = Duration::from_secs(60);

const PRIVILEGED_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: bold}
spec:
  containers: [{name: a, image: nothing, securityContext: {privileged: true}}]
";

/// A privileged pod is refused where the namespace says so, and taken elsewhere.
pub(super) fn pod_security_refuses(cluster: &mut Cluster) -> Result<()> {
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    cluster.namespace("restricted", &restricted)?;
    cluster.namespace("open", &[])?;
    let pod = |namespace: &str| {
        PRIVILEGED_POD.replace("name: bold", &format!("name: bold, namespace: {namespace}"))
    };
    let text = refused(cluster.apply(&pod("restricted")))?;
    ensure!(text.contains("violates PodSecurity \"restricted"), "{text}");
    cluster.apply(&pod("open")).map(drop)
}

/// A policy that asks the authorizer, as those of the product do: without the right the object is refused with the policy's words.
const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: rig-asks-authorizer}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {rig-policy: asks}}
    resourceRules:
      - {apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
    - expression: >-
        authorizer.group('snaphaul.dev').resource('snapshotrepositories').namespace(object.metadata.namespace)
        .name(object.data.repository).check('use').allowed()
      messageExpression: \"request.userInfo.username + ' may not use repository ' + object.data.repository\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: rig-asks-authorizer}
spec: {policyName: rig-asks-authorizer, validationActions: [Deny]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: writer, namespace: policies}
rules:
  - {apiGroups: [''], resources: [configmaps], verbs: [create, patch]}
  - {apiGroups: [snaphaul.dev], resources: [snapshotrepositories], resourceNames: [mine], verbs: [use]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: writer, namespace: policies}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: writer}
subjects: [{kind: ServiceAccount, name: default, namespace: policies}]
";

pub(super) fn policies_refuse(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("policies", &[("rig-policy", "asks")])?;
    cluster.apply(POLICY)?;
    let writer = cluster.service_account_kubeconfig("policies", "default")?;
    let writer = cluster.kubectl_as(&writer);
    let begin = Instant::now();
    let mut count = 0;
    let mut object = |repository: &str| {
        count += 1;
        let metadata = format!("{{name: object-{count}, namespace: policies}}");
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {metadata}, data: {{repository: {repository}}}}}"
        )
    };
    let text = loop {
        match writer.apply(&object("theirs")) {
            Err(error) => break format!("{error:#}"),
            Ok(_) if begin.elapsed() > IN_FORCE => bail!("the policy is not in force"),
            Ok(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let words = "system:serviceaccount:policies:default may not use repository theirs";
    ensure!(text.contains(words), "{text}");
    writer.apply(&object("mine"))?;
    cluster
        .kubectl(&["delete", "validatingadmissionpolicy", "rig-asks-authorizer"])
        .map(drop)
}

/// The definitions of snapshots are those of the Kubernetes project, with their rules.
pub(super) fn snapshots_are_checked(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("snapshots", &[])?;
    let snapshot = |source: &str| {
        format!(
            "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, \
             metadata: {{name: one, namespace: snapshots}}, spec: {{source: {{{source}}}}}}}"
        )
    };
    let both = "persistentVolumeClaimName: a, volumeSnapshotContentName: b";
    let text = refused(cluster.apply(&snapshot(both)))?;
    ensure!(
        text.contains("persistentVolumeClaimName") && text.contains("invalid"),
        "{text}"
    );
    cluster.apply(&snapshot("persistentVolumeClaimName: a"))?;
    let text = refused(cluster.apply(&snapshot("persistentVolumeClaimName: c")))?;
    ensure!(text.contains("immutable"), "{text}");
    let service = "{apiVersion: cbt.storage.k8s.io/v1beta1, kind: SnapshotMetadataService, metadata: {name: d}, spec: {address: a}}";
    let text = refused(cluster.apply(service))?;
    ensure!(
        text.contains("audience") && text.contains("caCert"),
        "{text}"
    );
    Ok(())
}

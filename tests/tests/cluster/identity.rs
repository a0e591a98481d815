//! Who a caller is, and what RBAC and the Node authorizer let it do.

use anyhow::{Result, ensure};
use tests::cluster::Cluster;

use super::refused;

/// A service account without a role may not read; with one it may, there and only there.
pub(super) fn roles_are_asked(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("roles", &[])?;
    cluster.namespace("roles-elsewhere", &[])?;
    cluster.kubectl(&["create", "serviceaccount", "bare", "--namespace=roles"])?;
    let bare = cluster.service_account_kubeconfig("roles", "bare")?;
    let bare = cluster.kubectl_as(&bare);
    let name = bare.run(&[
        "auth",
        "whoami",
        "--output=jsonpath={.status.userInfo.username}",
    ])?;
    ensure!(name == "system:serviceaccount:roles:bare", "{name}");

    let secrets = ["get", "secrets", "--namespace=roles"];
    let text = refused(bare.run(&secrets))?;
    ensure!(
        text.contains("Forbidden") && text.contains("roles:bare"),
        "{text}"
    );

    let role = [
        "create",
        "role",
        "reader",
        "--verb=list",
        "--resource=secrets",
        "--namespace=roles",
    ];
    cluster.kubectl(&role)?;
    let binding = [
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=roles:bare",
    ];
    cluster.kubectl(&[&binding[..], &["--namespace=roles"]].concat())?;
    cluster.wait_for(
        std::time::Duration::from_secs(30),
        &[
            "auth",
            "can-i",
            "list",
            "secrets",
            "--namespace=roles",
            "--as=system:serviceaccount:roles:bare",
        ],
        |answer| answer.trim() == "yes",
    )?;
    bare.run(&secrets)?;
    refused(bare.run(&["get", "secrets", "--namespace=roles-elsewhere"])).map(drop)
}

/// A node reads no secret that no pod of its own uses, and changes no other node.
pub(super) fn nodes_see_only_their_own(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("nodes", &[])?;
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "key",
        "--from-literal=a=b",
        "--namespace=nodes",
    ])?;
    let node = cluster.user_kubeconfig("system:node:one", &["system:nodes"])?;
    let node = cluster.kubectl_as(&node);
    let made = |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
    node.apply(&made("one"))?;
    let text = refused(node.apply(&made("two")))?;
    ensure!(text.contains("node \"one\" is not allowed"), "{text}");
    let text = refused(node.run(&["get", "secret", "key", "--namespace=nodes"]))?;
    ensure!(text.contains("no relationship found"), "{text}");
    cluster.kubectl(&["delete", "node", "one"]).map(drop)
}

/// A token for another audience does not open the API server, and a review says whom it is for.
pub(super) fn tokens_have_audiences(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("tokens", &[])?;
    let token = cluster.kubectl(&[
        "create",
        "token",
        "default",
        "--namespace=tokens",
        "--audience=changed-blocks",
    ])?;
    let review = format!(
        "{{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {{token: {}, audiences: [changed-blocks]}}}}",
        token.trim()
    );
    let path = cluster.folder().join("review.yaml");
    std::fs::write(&path, review)?;
    let answer = cluster.kubectl(&[
        "create",
        "--output=jsonpath={.status.authenticated} {.status.user.username} {.status.audiences[0]}",
        "--filename",
        &path.display().to_string(),
    ])?;
    let expected = "true system:serviceaccount:tokens:default changed-blocks";
    ensure!(answer == expected, "{answer}");
    let text = refused(cluster.kubectl_as(std::path::Path::new("/dev/null")).run(&[
        "get",
        "namespaces",
        "--token",
        token.trim(),
        "--server",
        &cluster.url(),
        "--certificate-authority",
        &cluster.authority().display().to_string(),
    ]))?;
    ensure!(
        text.contains("Unauthorized") || text.contains("must be logged in"),
        "{text}"
    );
    Ok(())
}

//! What an agent and a holder refuse.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::snaphaul::binary;

use super::stage::{MIB, Resource, SYSTEM, Scene, Stage};

pub(crate) fn another_repository_is_refused(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("other")?;
    let (_image, device) = scene.device("image", MIB)?;
    let agent = scene.agent(&[])?;
    scene.put_repository(&"0123456789abcdef".repeat(2))?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    let status = scene.wait(&backup, 1, "Failed")?;
    let message = status["transfer"]["message"]
        .as_str()
        .context("a message")?;
    ensure!(message.contains(&scene.id), "{message}");
    // A strategy that this agent does not serve.
    scene.put_repository(&scene.id)?;
    scene.order(&backup, 2, &json!({ "strategy": "Direct" }))?;
    scene.wait(&backup, 2, "Failed")?;
    // A device that is smaller than the volume.
    scene.order(&backup, 3, &json!({ "sizeBytes": 2 * MIB }))?;
    let status = scene.wait(&backup, 3, "Failed")?;
    ensure!(
        status["transfer"]["errorKind"] == "invalid-request",
        "{status:#}"
    );
    scene.order(&backup, 4, &json!({ "sizeBytes": MIB }))?;
    scene.wait(&backup, 4, "Succeeded")?;
    ensure!(
        agent.metric("snaphaul_agent_transfers_total{kind=\"backup\",result=\"failed\"}")? == 3.0
    );
    Ok(())
}

pub(crate) fn a_missing_secret_is_named(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("secret")?;
    let (_image, device) = scene.device("image", MIB)?;
    let agent = scene.agent(&[])?;
    let namespace = format!("--namespace={SYSTEM}");
    scene
        .stage
        .cluster
        .kubectl(&["delete", "secret", &scene.name, &namespace])?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    let status = scene.wait(&backup, 1, "Failed")?;
    ensure!(status["transfer"]["errorKind"] == "not-found", "{status:#}");
    let message = status["transfer"]["message"]
        .as_str()
        .context("a message")?;
    ensure!(message.contains(&scene.name), "{message}");
    // A secret that holds the wrong words, which nobody may read in a log.
    let from = "--from-literal=passphrase=a-secret-word-nobody-logs";
    scene
        .stage
        .cluster
        .kubectl(&["create", "secret", "generic", &scene.name, &namespace, from])?;
    scene.order(&backup, 2, &json!({}))?;
    let status = scene.wait(&backup, 2, "Failed")?;
    ensure!(status["transfer"]["errorKind"] == "wrong-key", "{status:#}");
    let log = std::fs::read_to_string(&agent.log)?;
    let all = format!("{log}{}", scene.get(&backup)?);
    ensure!(!all.contains("a-secret-word"), "{all}");
    // The right one counts without a restart.
    scene
        .stage
        .cluster
        .kubectl(&["delete", "secret", &scene.name, &namespace])?;
    scene.put_secret()?;
    scene.order(&backup, 3, &json!({}))?;
    scene.wait(&backup, 3, "Succeeded")?;
    Ok(())
}

/// What a newer controller orders under newer definitions fails with the name of what is not understood; other orders go on.
pub(crate) fn an_order_that_is_not_understood(stage: &mut Stage) -> Result<()> {
    let order =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/order/properties";
    let text = stage
        .cluster
        .kubectl(&["get", DEFINITION, "--output=json"])?;
    let definition: Value = serde_json::from_str(&text)?;
    let strategy = definition.pointer(&format!("{order}/strategy"));
    let strategy = strategy.context("the order has a strategy")?;
    let change = json!([
        {"op": "add", "path": format!("{order}/later"), "value": {"type": "string"}},
        {"op": "replace", "path": format!("{order}/strategy"), "value": {"type": "string"}},
    ]);
    let undo = json!([
        {"op": "remove", "path": format!("{order}/later")},
        {"op": "replace", "path": format!("{order}/strategy"), "value": strategy},
    ]);
    patch_definition(stage, &change)?;
    let outcome = not_understood(stage);
    patch_definition(stage, &undo)?;
    outcome
}

const DEFINITION: &str = "crd/podvolumebackups.snaphaul.dev";

fn patch_definition(stage: &Stage, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let words = ["patch", DEFINITION, "--type=json", "-p", &patch];
    stage.cluster.kubectl(&words).map(drop)
}

fn not_understood(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("unknown")?;
    let (_image, device) = scene.device("image", MIB)?;
    let _agent = scene.agent(&[])?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    newer_definition_serves(&scene, &backup)?;
    let wrong = [
        ("later", json!("x"), json!(null), "version"),
        ("strategy", json!("Later"), json!("Pod"), "`Pod`"),
        ("changeIdAnnotation", json!(""), json!(null), "cannot"),
    ];
    let mut attempt = 0;
    for (name, value, good, said) in wrong {
        attempt += 1;
        scene.order(&backup, attempt, &json!({ name: value }))?;
        let answer = scene.wait(&backup, attempt, "Failed")?;
        let message = answer["transfer"]["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains(name) && message.contains(said),
            "{message}"
        );
        ensure!(
            answer["transfer"]["errorKind"] == "invalid-request",
            "{answer:#}"
        );
        // A merge leaves what it does not name.
        scene.patch(&backup, &json!({ "order": { name: good } }))?;
    }
    scene.order(&backup, attempt + 1, &json!({}))?;
    scene.wait(&backup, attempt + 1, "Succeeded").map(drop)
}

/// Waits until the API server takes what is new, with an order that is of no node.
fn newer_definition_serves(scene: &Scene<'_>, backup: &Resource) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let order = json!({
        "attempt": 1, "strategy": "Later", "volume": "v", "driver": "d", "volumeHandle": "h", "later": "x",
    });
    let begin = Instant::now();
    loop {
        let patched = scene.patch(backup, &json!({ "order": order }));
        let found = scene.get(backup)?["status"]["order"]["later"].clone();
        if patched.is_ok() && found == "x" {
            return scene.patch(backup, &json!({ "order": null }));
        }
        ensure!(begin.elapsed() < LIMIT, "{patched:?}, later is {found}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Even where the socket lets everybody in, the kernel's word on who asks decides.
pub(crate) fn other_users_get_no_device(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("users")?;
    let (_image, device) = scene.device("image", MIB)?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    let directory = scene.holders.display().to_string();
    let check = |user: &str| {
        Command::new("setpriv")
            .args(["--reuid", user, "--clear-groups", "--"])
            .arg(binary()?)
            .args([
                "hold",
                "--check",
                "--directory",
                &directory,
                "--owner",
                &backup.uid,
            ])
            .output()
            .context("run setpriv")
    };
    let own = check("0")?;
    ensure!(
        own.status.success(),
        "{}",
        String::from_utf8_lossy(&own.stderr)
    );
    let foreign = check("65534")?;
    ensure!(!foreign.status.success(), "the socket is root's");
    // Open every door on the way to the socket.
    let socket = scene.holders.join(format!("{}.sock", backup.uid));
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
    for folder in socket
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.parent().is_some())
    {
        let mode = std::fs::metadata(folder)?.permissions().mode();
        if folder.starts_with(scene.scratch.path()) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode | 0o055))?;
        }
    }
    let foreign = check("65534")?;
    let said = String::from_utf8_lossy(&foreign.stderr).into_owned();
    ensure!(
        !foreign.status.success() && said.contains("only the agent"),
        "{said}"
    );
    Ok(())
}

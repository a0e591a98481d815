//! What holds of the service, and each way in which it cannot be asked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use csi_proto::Code;
use mover::ErrorKind;
use mover::attach::csi::profile::Profile;
use mover::kube::changed_blocks::{self as service, Found, Options};
use serde_json::json;
use tests::cluster::kubectl::Kubectl;
use tests::metadata_sidecar::real::RealSidecar;
use tests::metadata_sidecar::{Cut, stranger};

use crate::bench::{AUDIENCE, Bench, DRIVER, NAMESPACE};

/// How long the API server may remember a token that is not good any more: ten seconds, and time to notice.
const FORGETS: Duration = Duration::from_secs(60);

pub(crate) fn the_same_as_the_socket(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    let _old = bench.sidecar.asked();
    let blocks = bench.blocks(&client)?;
    ensure!(blocks.version() == "v1beta1" && blocks.needs_base());
    ensure!(blocks.snapshot().snapshot == bench.target);
    let delta = bench.delta(*blocks)?;
    ensure!(delta.len() > 20, "{delta:?}");
    ensure!(delta == bench.by_socket(true)?);
    let allocated = bench.allocated(*bench.blocks(&client)?)?;
    ensure!(allocated == bench.by_socket(false)?);
    let asked = bench.sidecar.asked();
    ensure!(asked.iter().all(|call| call.refused.is_none()), "{asked:?}");
    Ok(())
}

/// A token stops to be good between two calls: the API server says so, another one is made, and nothing is told twice or left out.
pub(crate) fn a_token_that_ends_is_renewed(bench: &mut Bench) -> Result<()> {
    bench.account("short")?;
    bench.allow("short")?;
    let client = bench.client_of("agent")?;
    // Who finds the service and who asks it are two: the first must stay good.
    let made_by = bench.administrator()?;
    drop(client);
    let Found::Service(blocks) = bench.find_as(&made_by, "target", Some("short"))? else {
        bail!("there is a service");
    };
    let _old = bench.sidecar.asked();
    let kubectl = bench.cluster.kubectl_as(bench.cluster.kubeconfig());
    bench.sidecar.cut(Cut {
        after: 1,
        code: Code::Unavailable,
        hook: Box::new(move |token| {
            if let Err(error) = end_tokens(&kubectl, token) {
                eprintln!("the token stays good: {error:#}");
            }
        }),
    });
    let delta = bench.delta(*blocks)?;
    ensure!(delta == bench.by_socket(true)?);
    let asked = bench.sidecar.asked();
    let refused: Vec<_> = asked.iter().filter_map(|call| call.refused).collect();
    ensure!(refused == [Code::Unauthenticated], "{asked:?}");
    let [first, second, third] = asked.get(..3).context("three calls at least")? else {
        bail!("three");
    };
    ensure!(first.token == second.token && second.token != third.token);
    ensure!(second.starting_offset > 0 && second.starting_offset == third.starting_offset);
    Ok(())
}

/// Makes the service account anew: its tokens are of another one then.
fn end_tokens(kubectl: &Kubectl, token: &str) -> Result<()> {
    let account = ["serviceaccount", "short", "--namespace", NAMESPACE];
    kubectl.run(&[&["delete"], &account[..]].concat())?;
    kubectl.run(&[&["create"], &account[..]].concat())?;
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": [AUDIENCE]},
    });
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("review.json");
    std::fs::write(&path, review.to_string())?;
    let path = path.display().to_string();
    let begin = Instant::now();
    loop {
        let args = [
            "create",
            "--filename",
            &path,
            "--output=jsonpath={.status.authenticated}",
        ];
        if kubectl.run(&args)?.trim() != "true" {
            return Ok(());
        }
        ensure!(begin.elapsed() < FORGETS, "still good after {FORGETS:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(crate) fn another_audience(bench: &mut Bench) -> Result<()> {
    let sidecar = &bench.sidecar;
    bench.service("somebody-else", sidecar.authority(), &sidecar.address())?;
    let client = bench.client_of("agent")?;
    let _old = sidecar.asked();
    let error = refused(bench.delta(*bench.blocks(&client)?))?;
    bench.good_service()?;
    ensure!(
        error.contains("refused again with new credentials"),
        "{error}"
    );
    let asked = sidecar.asked();
    ensure!(
        asked.len() == 2 && asked[0].token != asked[1].token,
        "{asked:?}"
    );
    Ok(())
}

pub(crate) fn missing_rules_are_named(bench: &mut Bench) -> Result<()> {
    bench.account("bare")?;
    let client = bench.client_of("bare")?;
    let missing = |what: &str| -> Result<()> {
        let error = match bench.find(&client, "target") {
            Err(error) => error,
            Ok(found) => bail!("{what} is not needed: {found:?}"),
        };
        ensure!(error.kind() == ErrorKind::AccessDenied, "{error}");
        let hint = error.hint_text().unwrap_or_default();
        ensure!(hint.contains(what), "{hint}");
        Ok(())
    };
    missing("get snapshotmetadataservices (apiGroup cbt.storage.k8s.io)")?;
    bench.allow_cluster("bare")?;
    let reads = "get volumesnapshots (apiGroup snapshot.storage.k8s.io)";
    eventually(|| missing(reads))?;
    // Somebody else may find the service; who asks may not make tokens, and then not see the snapshot.
    let administrator = bench.administrator()?;
    let ask = |account: &str| -> Result<String> {
        let Found::Service(blocks) = bench.find_as(&administrator, "target", Some(account))? else {
            bail!("there is a service");
        };
        refused(bench.delta(*blocks))
    };
    let text = ask("bare")?;
    ensure!(
        text.contains("PermissionDenied") && text.contains("may not ask"),
        "{text}"
    );
    ensure!(
        text.contains("a role must allow in namespace blocks: get volumesnapshots"),
        "{text}"
    );
    let rule = json!({
        "apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": ["get"],
    });
    bench.allow_here("bare", "snapshots", &rule)?;
    eventually(|| {
        let Found::Service(blocks) = bench.find(&client, "target")? else {
            bail!("there is a service");
        };
        let text = refused(bench.delta(*blocks))?;
        ensure!(
            text.contains("create serviceaccounts/token (apiGroup \"\"), resourceNames [bare]"),
            "{text}"
        );
        Ok(())
    })?;
    let text = ask("nobody")?;
    ensure!(
        text.contains("there is no service account blocks/nobody"),
        "{text}"
    );
    Ok(())
}

pub(crate) fn nobody_by_that_name(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    let mut subject = bench.subject("target");
    subject.driver = "other.csi.snaphaul.dev".to_owned();
    let profile = Profile::of(&subject.driver);
    let options = Options::default();
    let found = service::find(&client, &subject, &profile, &options);
    let Found::Absent(reason) = bench.runtime.block_on(found)? else {
        bail!("nobody serves this driver");
    };
    ensure!(reason.contains("other.csi.snaphaul.dev"), "{reason}");
    // Under another name it is found, where the profile says so.
    let mut profile = profile;
    profile.snapshot_metadata_service_name = Some(DRIVER.to_owned());
    let found = service::find(&client, &subject, &profile, &options);
    ensure!(matches!(bench.runtime.block_on(found)?, Found::Service(_)));
    Ok(())
}

pub(crate) fn another_authority(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    for authority in [stranger()?, "no certificate".to_owned()] {
        bench.service(AUDIENCE, &authority, &bench.sidecar.address())?;
        let found = bench.find(&client, "target");
        bench.good_service()?;
        let Err(error) = found else {
            bail!("an authority that signed nothing was believed");
        };
        let is_clear = matches!(
            error.kind(),
            ErrorKind::AccessDenied | ErrorKind::InvalidRequest
        );
        ensure!(
            is_clear
                && error
                    .hint_text()
                    .is_some_and(|hint| hint.contains("caCert")),
            "{error:?}"
        );
    }
    Ok(())
}

pub(crate) fn nobody_listens(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    let deaf = tests::server::DeafPort::take()?;
    bench.service(
        AUDIENCE,
        bench.sidecar.authority(),
        &format!("localhost:{}", deaf.number()),
    )?;
    let found = bench.find(&client, "target");
    bench.good_service()?;
    let Err(error) = found else {
        bail!("nobody listens");
    };
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    Ok(())
}

pub(crate) fn not_ready(bench: &mut Bench) -> Result<()> {
    bench.snapshot_object("unready", "some handle", false)?;
    let client = bench.client_of("agent")?;
    for (name, kind) in [
        ("unready", ErrorKind::InvalidRequest),
        ("missing", ErrorKind::NotFound),
    ] {
        let Err(error) = bench.find(&client, name) else {
            bail!("{name} can be asked about");
        };
        ensure!(error.kind() == kind, "{error:?}");
    }
    Ok(())
}

/// What a driver writes on its snapshots is what a point records, and what a later delta is asked with.
pub(crate) fn a_change_id_is_recorded(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    let key = "csi.vsphere.volume/change-id";
    let annotate = format!("{key}=52 60/6");
    let object = [
        "annotate",
        "volumesnapshot",
        "target",
        &annotate,
        "--namespace",
        NAMESPACE,
    ];
    bench.cluster.kubectl(&object)?;
    let mut profile = Profile::of(DRIVER);
    profile.change_id_annotation = Some(key.to_owned());
    let (subject, options) = (bench.subject("target"), Options::default());
    let found = bench
        .runtime
        .block_on(service::find(&client, &subject, &profile, &options))?;
    let Found::Service(blocks) = found else {
        bail!("there is a service");
    };
    ensure!(blocks.snapshot().identity().fact("change-id") == Some("52 60/6"));
    ensure!(blocks.snapshot().base_id() == "52 60/6");
    Ok(())
}

/// The sidecar of the Kubernetes project tells what the socket does, and refuses who has no right and who has a token for another.
pub(crate) fn the_real_sidecar(bench: &mut Bench) -> Result<()> {
    let program = RealSidecar::program().context("SNAPHAUL_SNAPSHOT_METADATA")?;
    let sidecar = bench.real_sidecar(&program)?;
    bench.service(AUDIENCE, sidecar.authority(), &sidecar.address())?;
    let client = bench.client_of("agent")?;
    let blocks = bench.blocks(&client)?;
    ensure!(bench.delta(*blocks)? == bench.by_socket(true)?);
    let blocks = bench.blocks(&client)?;
    ensure!(bench.allocated(*blocks)? == bench.by_socket(false)?);

    bench.account("powerless")?;
    let administrator = bench.administrator()?;
    let Found::Service(blocks) = bench.find_as(&administrator, "target", Some("powerless"))? else {
        bail!("there is a service");
    };
    let text = refused(bench.delta(*blocks))?;
    ensure!(
        text.contains("may not ask") || text.contains("refused"),
        "{text}"
    );
    bench.service("somebody-else", sidecar.authority(), &sidecar.address())?;
    let text = refused(bench.delta(*bench.blocks(&client)?))?;
    bench.good_service()?;
    ensure!(
        text.contains("refused again with new credentials"),
        "{text}"
    );
    Ok(())
}

/// Clusters with a sidecar of before its 1.0, and those without any.
pub(crate) fn only_the_alpha_version(bench: &mut Bench) -> Result<()> {
    let client = bench.client_of("agent")?;
    let name = "snapshotmetadataservices.cbt.storage.k8s.io";
    let text = bench
        .cluster
        .kubectl(&["get", "crd", name, "--output=json"])?;
    bench.cluster.kubectl(&["delete", "crd", name])?;
    eventually(|| match bench.find(&client, "target")? {
        Found::Absent(reason) if reason.contains("the cluster does not know") => Ok(()),
        other => bail!("{other:?}"),
    })?;
    let mut definition: serde_json::Value = serde_json::from_str(&text)?;
    definition["metadata"] = json!({
        "name": name, "annotations": definition["metadata"]["annotations"].clone(),
    });
    definition["metadata"]["annotations"]
        .as_object_mut()
        .context("annotations")?
        .retain(|key, _| key.starts_with("api-approved"));
    definition["spec"]["versions"][0]["name"] = json!("v1alpha1");
    definition
        .as_object_mut()
        .context("an object")?
        .remove("status");
    bench.apply(&definition)?;
    let crd = format!("crd/{name}");
    bench
        .cluster
        .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd])?;
    let (authority, address) = (bench.sidecar.authority(), bench.sidecar.address());
    eventually(|| bench.service_in("v1alpha1", AUDIENCE, authority, &address))?;
    let blocks = bench.blocks(&client)?;
    ensure!(blocks.version() == "v1alpha1");
    ensure!(bench.delta(*blocks)? == bench.by_socket(true)?);
    Ok(())
}

/// Roles and definitions reach the API server's own caches a moment later.
fn eventually(mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        match holds() {
            Err(error) if begin.elapsed() > FORGETS => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            Ok(()) => return Ok(()),
        }
    }
}

/// The text of an error that had to come.
fn refused<T>(answer: Result<T>) -> Result<String> {
    match answer {
        Ok(_) => bail!("was not refused"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

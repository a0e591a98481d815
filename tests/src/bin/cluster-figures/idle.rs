//! What an agent costs that has nothing to do.
//!
//! Owns: counting its requests by a FlowSchema of its own, which the API server counts exactly. Must not: disturb it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::cluster::product::{ProductOptions, SYSTEM};

use crate::bytes::Memory;
use crate::stage::{CONTROLLER, Stage};

/// What happens at the start is over by then.
const SETTLE: Duration = Duration::from_secs(20);
const PARTS: [&str; 2] = ["agent", "controller"];

pub(crate) fn figures(small: bool) -> Result<Value> {
    let stage = Stage::start(ProductOptions::default())?;
    for part in PARTS {
        count_apart(&stage, part)?;
    }
    let time = Duration::from_secs(if small { 5 } else { 180 });
    std::thread::sleep(SETTLE);
    let before = requests(&stage)?;
    std::thread::sleep(time);
    let after = requests(&stage)?;
    let rates: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after - before) / time.as_secs_f64())
        .collect();
    let agent = Memory::of(stage.agent()?)?;
    let controller = Memory::of(stage.pid(CONTROLLER)?)?;
    Ok(json!({
        "seconds": time.as_secs(),
        "agent_bytes": agent.now, "agent_peak_bytes": agent.peak, "agent_requests_per_second": rates[0],
        "controller_bytes": controller.now, "controller_peak_bytes": controller.peak,
        "controller_requests_per_second": rates[1],
    }))
}

fn count_apart(stage: &Stage, part: &str) -> Result<()> {
    let account = format!("snaphaul-{part}");
    let subject =
        json!({"kind": "ServiceAccount", "serviceAccount": {"name": account, "namespace": SYSTEM}});
    let resources = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    let others = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
    let object = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": account},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-high"}, "matchingPrecedence": 100,
            "rules": [{"subjects": [subject], "resourceRules": [resources], "nonResourceRules": [others]}],
        },
    });
    let list = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    stage.api.create(list, &object).map(drop)
}

/// Requests of each part so far.
fn requests(stage: &Stage) -> Result<Vec<f64>> {
    let text = stage.cluster.kubectl(&["get", "--raw", "/metrics"])?;
    let name = "apiserver_flowcontrol_dispatched_requests_total{";
    PARTS
        .iter()
        .map(|part| {
            let schema = format!("flow_schema=\"snaphaul-{part}\"");
            let lines = text
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(&schema));
            let mut sum = 0.0;
            for line in lines {
                let value = line.rsplit_once(' ').context("a value")?.1;
                sum += value.parse::<f64>()?;
            }
            Ok(sum)
        })
        .collect()
}

//! A controller that begins where thousands of resources are.
//!
//! Owns: making them, and the time until a new one is taken up. Must not: leave out what a real status holds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::Api;
use tests::cluster::claims::Claim;
use tests::cluster::product::ProductOptions;
use tests::cluster::storage::CLASS;
use tests::image::MIB;

use crate::bytes::Memory;
use crate::stage::{CONTROLLER, Stage, backups};

const WRITERS: usize = 8;
/// Every resource is looked at once, and the first sweep is over.
const SETTLE: Duration = Duration::from_secs(60);

pub(crate) fn figures(small: bool) -> Result<Value> {
    let count = if small { 50 } else { 5000 };
    let mut stage = Stage::start(ProductOptions::default())?;
    Claim::create(&stage.api, CLASS, crate::stage::USER, "data", 4 * MIB)?;
    stage.make_backup("model", "data")?;
    stage.completed("model")?;
    let alone = Memory::of(stage.pid(CONTROLLER)?)?;
    stage.product.stop(CONTROLLER);
    multiply(&stage, count)?;
    stage.make_backup("new", "data")?;
    let begin = Instant::now();
    stage.product.start_controller(CONTROLLER)?;
    stage.wait("first status", || {
        Ok(!stage.backup("new")?["status"]["phase"].is_null())
    })?;
    let start_up = begin.elapsed();
    stage.completed("new")?;
    let completed = begin.elapsed();
    std::thread::sleep(SETTLE);
    let memory = Memory::of(stage.pid(CONTROLLER)?)?;
    Ok(json!({
        "resources": count, "start_up_seconds": start_up.as_secs_f64(), "new_completed_seconds": completed.as_secs_f64(),
        "controller_bytes": memory.now, "controller_peak_bytes": memory.peak, "with_one_peak_bytes": alone.peak,
    }))
}

/// Completed backups like the one that was really made.
fn multiply(stage: &Stage, count: usize) -> Result<()> {
    let model = stage.backup("model")?;
    let status = model["status"].clone();
    ensure!(status.is_object(), "a status");
    let kubeconfig = stage.cluster.kubeconfig();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|first| {
                let (spec, status) = (&model["spec"], &status);
                scope.spawn(move || {
                    let api = Api::connect(kubeconfig)?;
                    (first..count)
                        .step_by(WRITERS)
                        .try_for_each(|number| make(&api, number, spec, status))
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().ok().context("a writer panicked")?)
    })
}

fn make(api: &Api, number: usize, spec: &Value, status: &Value) -> Result<()> {
    let name = format!("backup-{number}");
    let object = json!({
        "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeBackup", "metadata": {"name": name}, "spec": spec,
    });
    api.create(&backups(), &object)?;
    api.set_status(&format!("{}/{name}", backups()), status)
        .map(drop)
}

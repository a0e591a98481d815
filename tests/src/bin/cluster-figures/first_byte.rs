//! The time from a backup that was asked for to the first byte that the agent reads of it.
//!
//! Owns: the moments between. What snapshot and clone take is from the making of their objects to what the sidecars report, the work
//! of the snapshot controller and provisioner included. Must not: ask so often that it is what is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::cluster::product::{ProductOptions, SYSTEM};
use tests::cluster::storage::CLASS;
use tests::image::MIB;
use tests::random::Random;

use crate::bytes::fetched;
use crate::stage::{LIMIT, Stage, USER};

const POLL: Duration = Duration::from_millis(4);

pub(crate) fn figures(small: bool) -> Result<Value> {
    let rounds = if small { 2 } else { 11 };
    let stage = Stage::start(ProductOptions::default())?;
    let mut random = Random::from_environment("first_byte");
    let claim = Claim::create(&stage.api, CLASS, USER, "data", 64 * MIB)?;
    let mut all = Vec::new();
    for round in 0..rounds {
        let copy = stage.scratch.join("copy.img");
        claim.write(&stage.api, &stage.storage.driver, &copy, |image| {
            image.write_noise(0, 64 * MIB, &mut random)
        })?;
        let name = format!("round-{round}");
        let moments = Moments::of(&stage, &name)?;
        stage.completed(&name)?;
        // The first one also opens the repository and finds the driver.
        all.push(moments.shown());
    }
    let own = |one: &Value| one["own_seconds"].as_f64().unwrap_or(f64::NAN);
    let mut rest: Vec<f64> = all.iter().skip(1).map(own).collect();
    rest.sort_by(f64::total_cmp);
    Ok(json!({
        "rounds": all, "first_own_seconds": own(&all[0]), "own_seconds": rest[rest.len() / 2],
        "worst_own_seconds": rest[rest.len() - 1],
    }))
}

/// When something was first seen, since the backup was asked for.
#[derive(Debug, Default)]
struct Moments {
    snapshot: Span,
    clone: Span,
    holder: Span,
    first_byte: Option<Duration>,
}

#[derive(Debug, Default)]
struct Span {
    begin: Option<Duration>,
    end: Option<Duration>,
}

impl Span {
    fn see(&mut self, now: Duration, object: Option<&Value>, done: impl Fn(&Value) -> bool) {
        let Some(object) = object else { return };
        self.begin.get_or_insert(now);
        if done(object) {
            self.end.get_or_insert(now);
        }
    }

    fn seconds(&self) -> f64 {
        match (self.begin, self.end) {
            (Some(begin), Some(end)) => (end - begin).as_secs_f64(),
            _ => f64::NAN,
        }
    }
}

impl Moments {
    fn of(stage: &Stage, name: &str) -> Result<Self> {
        let agent = stage.agent()?;
        let before = fetched(agent)?;
        let begin = Instant::now();
        stage.make_backup(name, "data")?;
        let uid = stage.backup(name)?["metadata"]["uid"].clone();
        let own = format!("snaphaul-{}", uid.as_str().context("a uid")?);
        let snapshots = in_namespace("/apis/snapshot.storage.k8s.io/v1", USER, "volumesnapshots");
        let claims = in_namespace("/api/v1", SYSTEM, "persistentvolumeclaims");
        let pods = in_namespace("/api/v1", SYSTEM, "pods");
        let mut moments = Self::default();
        loop {
            // The image is noise: the first piece of it is more than all that opening a repository fetches.
            if fetched(agent)? >= before + 64 * 1024 {
                moments.first_byte = Some(begin.elapsed());
                return Ok(moments);
            }
            let now = begin.elapsed();
            if now > LIMIT {
                bail!("no byte was read: {moments:?}\n{}", stage.product.tails());
            }
            if moments.snapshot.end.is_none() {
                let object = stage.api.get(&format!("{snapshots}/{own}"))?;
                let done = |object: &Value| object["status"]["readyToUse"] == true;
                moments.snapshot.see(now, object.as_ref(), done);
            } else if moments.clone.end.is_none() {
                let object = stage.api.get(&format!("{claims}/{own}"))?;
                let done = |object: &Value| object["status"]["phase"] == "Bound";
                moments.clone.see(now, object.as_ref(), done);
            } else if moments.holder.end.is_none() {
                let object = stage.api.get(&format!("{pods}/{own}"))?;
                moments.holder.see(now, object.as_ref(), is_ready);
            }
            std::thread::sleep(POLL);
        }
    }

    fn shown(&self) -> Value {
        let total = self
            .first_byte
            .map_or(f64::NAN, |moment| moment.as_secs_f64());
        let (snapshot, clone) = (self.snapshot.seconds(), self.clone.seconds());
        json!({
            "first_byte_seconds": total, "snapshot_seconds": snapshot, "clone_seconds": clone,
            "holder_seconds": self.holder.seconds(), "own_seconds": total - snapshot - clone,
        })
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

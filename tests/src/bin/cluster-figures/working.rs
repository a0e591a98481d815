//! The memory of an agent at work: many volumes at once.
//!
//! Owns: the volumes. Must not: choose a limit (the agent's own is measured).

use anyhow::Result;
use serde_json::{Value, json};
use tests::cluster::claims::Claim;
use tests::cluster::product::ProductOptions;
use tests::cluster::storage::CLASS;
use tests::image::MIB;
use tests::random::Random;

use crate::bytes::Memory;
use crate::stage::{Stage, USER};

pub(crate) fn figures(small: bool) -> Result<Value> {
    let (volumes, mib) = if small { (2, 16) } else { (10, 512) };
    let stage = Stage::start(ProductOptions::default())?;
    let idle = Memory::of(stage.agent()?)?;
    let mut random = Random::from_environment("working");
    for number in 0..volumes {
        let name = format!("data-{number}");
        let claim = Claim::create(&stage.api, CLASS, USER, &name, mib * MIB)?;
        let copy = stage.scratch.join("copy.img");
        claim.write(&stage.api, &stage.storage.driver, &copy, |image| {
            image.write_noise(0, mib * MIB, &mut random)
        })?;
    }
    for number in 0..volumes {
        stage.make_backup(&format!("backup-{number}"), &format!("data-{number}"))?;
    }
    for number in 0..volumes {
        stage.completed(&format!("backup-{number}"))?;
    }
    let memory = Memory::of(stage.agent()?)?;
    Ok(json!({
        "volumes": volumes, "volume_bytes": mib * MIB, "agent_idle_bytes": idle.now, "agent_peak_bytes": memory.peak,
        "agent_afterwards_bytes": memory.now,
    }))
}

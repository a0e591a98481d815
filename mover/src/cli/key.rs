//! `snaphaul key`.
//!
//! Owns: the list of key slots. Must not: show anything that helps to open one.

use serde::Serialize;

use super::args::{KeyArgs, KeyCommand, RepositoryArgs, RunArgs};
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::repository::access::{self, KeySlotInfo};

#[derive(Debug, PartialEq, Serialize)]
struct KeyLine {
    id: String,
    /// `passphrase` or `key file`; null where the slot cannot be read.
    kind: Option<String>,
    kdf: Option<KdfLine>,
    created: Option<String>,
    fault: Option<String>,
}

/// What deriving the slot's key costs. Null for a key file, which needs no derivation.
#[derive(Debug, PartialEq, Serialize)]
struct KdfLine {
    name: &'static str,
    memory_bytes: u64,
    passes: u32,
    lanes: u32,
}

#[derive(Debug, Serialize)]
struct KeysReport {
    encrypted: bool,
    keys: Vec<KeyLine>,
}

pub(super) fn run(
    run: &Run,
    args: &KeyArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    match args.command {
        KeyCommand::List => list(run, repository, limits),
    }
}

fn list(run: &Run, repository: &RepositoryArgs, limits: &RunArgs) -> Result<Outcome> {
    let repository = open::repository(repository, limits, run)?;
    let slots = access::key_slots(repository.store.as_ref(), &repository.config)?;
    let keys: Vec<KeyLine> = slots.into_iter().map(line).collect();
    for key in &keys {
        if let Some(fault) = &key.fault {
            run.warn(format!("key slot {} is damaged: {fault}", key.id));
        }
    }
    let report = KeysReport {
        encrypted: repository.config.is_encrypted(),
        keys,
    };
    let text = to_text(&report);
    Outcome::new(&report, Text::Answer(text))
}

fn line(slot: KeySlotInfo) -> KeyLine {
    KeyLine {
        id: slot.id,
        kind: slot.kind.map(|kind| kind.to_string()),
        kdf: slot.kdf.map(|cost| KdfLine {
            name: "argon2id",
            memory_bytes: u64::from(cost.memory_kib) << 10,
            passes: cost.passes,
            lanes: cost.lanes,
        }),
        created: slot.created_unix_secs.map(units::timestamp_secs),
        fault: slot.fault,
    }
}

fn to_text(report: &KeysReport) -> String {
    if !report.encrypted {
        return "the repository is not encrypted and has no keys".to_owned();
    }
    let mut table = Table::new(&[
        ("KEY", Align::Left),
        ("KIND", Align::Left),
        ("DERIVED BY", Align::Left),
        ("CREATED", Align::Left),
        ("STATE", Align::Left),
    ]);
    for key in &report.keys {
        table.row([
            key.id.clone(),
            key.kind.clone().unwrap_or_else(|| "?".to_owned()),
            key.kdf.as_ref().map_or_else(|| "-".to_owned(), derived_by),
            key.created.clone().unwrap_or_else(|| "?".to_owned()),
            if key.fault.is_some() {
                "damaged"
            } else {
                "good"
            }
            .to_owned(),
        ]);
    }
    table.to_string()
}

fn derived_by(kdf: &KdfLine) -> String {
    format!(
        "{} m={} t={} p={}",
        kdf.name,
        units::size(kdf.memory_bytes),
        kdf.passes,
        kdf.lanes
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::format::key_slot::{KdfCost, SecretKind};

    fn slot(kind: SecretKind) -> KeySlotInfo {
        KeySlotInfo {
            id: "0a".to_owned(),
            kind: Some(kind),
            kdf: (kind == SecretKind::Passphrase).then(KdfCost::default),
            created_unix_secs: Some(0),
            fault: None,
        }
    }

    #[test]
    fn slots_are_described() {
        let lost = KeySlotInfo {
            kind: None,
            fault: Some("gone".to_owned()),
            ..slot(SecretKind::KeyFile)
        };
        let keys = vec![
            line(slot(SecretKind::Passphrase)),
            line(slot(SecretKind::KeyFile)),
            line(lost),
        ];
        let text = to_text(&KeysReport {
            encrypted: true,
            keys,
        });
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1].contains("passphrase  argon2id m=64 MiB t=3 p=1  1970-01-01T00:00:00Z  good"),
            "{text}"
        );
        assert!(rows[2].contains("key file    -"), "{text}");
        assert!(rows[3].ends_with("damaged"), "{text}");
    }

    #[test]
    fn json_names_the_cost() {
        let value = serde_json::to_value(line(slot(SecretKind::Passphrase))).unwrap();
        assert_eq!(value["kdf"]["memory_bytes"], 64 << 20);
        assert_eq!(value["kind"], "passphrase");
    }

    #[test]
    fn an_unencrypted_repository_has_none() {
        assert!(
            to_text(&KeysReport {
                encrypted: false,
                keys: Vec::new()
            })
            .contains("not encrypted")
        );
    }
}

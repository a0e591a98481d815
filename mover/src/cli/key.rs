//! `snaphaul key`.
//!
//! Owns: the list of key slots, and which command does what. Must not: show anything that helps to open one (`export` does,
//! which is what it is for).

mod change;
mod export;
mod sheet;

use serde::Serialize;

use super::args::{KeyArgs, KeyCommand, RepositoryArgs, RunArgs};
use super::config::invalid;
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::repository::access::{self, KeySlotInfo, Keyring, Opened};

#[derive(Debug, PartialEq, Serialize)]
struct KeyLine {
    id: String,
    /// `passphrase` or `key file`; null where the slot cannot be read.
    kind: Option<String>,
    kdf: Option<KdfLine>,
    created: Option<String>,
    fault: Option<String>,
    /// Whether it is the one that opened the repository for this command.
    in_use: bool,
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
    let opened = open::opened(repository, limits, run)?;
    match &args.command {
        KeyCommand::List => list(run, &opened),
        KeyCommand::Add(args) => change::add(run, keyring(&opened)?, args),
        KeyCommand::Remove(args) => change::remove(keyring(&opened)?, args),
        KeyCommand::Rotate(args) => change::rotate(keyring(&opened)?, args),
        KeyCommand::Export(args) => export::run(run, &opened, keyring(&opened)?, args),
    }
}

fn keyring(opened: &Opened) -> Result<&Keyring> {
    opened.keyring.as_ref().ok_or_else(|| {
        invalid("manage the keys of a repository that is not encrypted")
            .object(opened.repository.store.url())
            .hint("it was made with --no-encryption and needs no key; encryption is decided at `snaphaul init`")
    })
}

fn list(run: &Run, opened: &Opened) -> Result<Outcome> {
    let repository = &opened.repository;
    let in_use = opened.keyring.as_ref().and_then(Keyring::opened_by);
    let slots = access::key_slots(repository.store.as_ref(), &repository.config)?;
    let keys: Vec<KeyLine> = slots.into_iter().map(|slot| line(slot, in_use)).collect();
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

fn line(slot: KeySlotInfo, in_use: Option<&str>) -> KeyLine {
    KeyLine {
        in_use: in_use == Some(slot.id.as_str()),
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
            match (key.fault.is_some(), key.in_use) {
                (true, _) => "damaged",
                (false, true) => "good, in use",
                (false, false) => "good",
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
            line(slot(SecretKind::Passphrase), None),
            line(slot(SecretKind::KeyFile), Some("0a")),
            line(lost, None),
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
        assert!(rows[2].ends_with("good, in use"), "{text}");
        assert!(rows[3].ends_with("damaged"), "{text}");
    }

    #[test]
    fn json_names_the_cost() {
        let value = serde_json::to_value(line(slot(SecretKind::Passphrase), None)).unwrap();
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

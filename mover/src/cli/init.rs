//! `snaphaul init`.
//!
//! Owns: the order of a first contact with a store: look, ask for a secret, probe, create. Must not: print secrets.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::{InitArgs, LockFlag, RepositoryArgs, RunArgs};
use super::config::{self, invalid};
use super::open;
use super::output::table::Table;
use super::run::{Outcome, Run, Text};
use super::secret::{self, Ask};
use super::units;
use crate::error::{ErrorKind, Result};
use crate::repository::access::{self, InitOptions, Repository};
use crate::repository::format::crypto::Cipher;
use crate::repository::format::key_slot::Secret;
use crate::repository::store::connect::StoreOptions;
use crate::repository::store::lock::{LockMode, ObjectLock};
use crate::repository::store::probe::{ProbeOptions, probe};
use crate::repository::store::profile::StoreProfile;

#[derive(Debug, Serialize)]
struct InitReport {
    repository: String,
    url: String,
    created: bool,
    encrypted: bool,
    chunk_size_bytes: u32,
    segment_size_bytes: u32,
    conditional_writes: bool,
    single_host: bool,
    object_lock: Option<LockReport>,
}

#[derive(Debug, Serialize)]
struct LockReport {
    mode: &'static str,
    lock_for_seconds: u64,
    window_seconds: u64,
}

pub(super) fn run(
    run: &Run,
    args: &InitArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let (chunk_size, segment_size) = config::repository_sizes(args)?;
    let options = open::store_options(repository, limits)?;
    if repository.recovery_sheet.is_some() && !args.if_missing {
        return Err(
            invalid("make a repository with the recovery sheet of another").hint(
                "give a passphrase or key file; every repository has a master key of its own",
            ),
        );
    }
    let configured = secret::configured(repository)?;
    if args.no_encryption && configured.is_some() {
        return Err(invalid(
            "make an unencrypted repository although a passphrase or key is given",
        )
        .hint("leave out --no-encryption, or the passphrase or key (also SNAPHAUL_PASSPHRASE)"));
    }
    if args.if_missing && exists(run, &options)? {
        return opened(run, repository, limits);
    }
    let secret = match configured {
        None if !args.no_encryption => Some(secret::ask(Ask::Twice)?),
        configured => configured,
    };
    match create(
        run,
        args,
        &options,
        (chunk_size, segment_size),
        secret.as_ref(),
    ) {
        Ok(created) => outcome(&created, true),
        // Somebody else was faster between our look and our create.
        Err(error)
            if args.if_missing
                && error.kind() == ErrorKind::InvalidRequest
                && exists(run, &options)? =>
        {
            opened(run, repository, limits)
        }
        Err(error) => Err(error),
    }
}

fn exists(run: &Run, options: &StoreOptions) -> Result<bool> {
    let found =
        open::store(options, false, run).and_then(|store| access::read_config(store.as_ref()));
    match found {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn opened(run: &Run, repository: &RepositoryArgs, limits: &RunArgs) -> Result<Outcome> {
    outcome(open::repository(repository, limits, run)?.as_ref(), false)
}

fn create(
    run: &Run,
    args: &InitArgs,
    options: &StoreOptions,
    (chunk_size, segment_size): (u32, u32),
    secret: Option<&Secret>,
) -> Result<Repository> {
    let store = open::store(options, true, run)?;
    // A second init must not disturb what is there, not even with a probe.
    if access::read_config(store.as_ref()).is_ok() {
        return Err(invalid("make a repository where there is one").object(store.url()).hint(
            "use it as it is, give another --repo, or say --if-missing if that is what you mean",
        ));
    }
    let lock = object_lock(args)?;
    if lock.is_some() {
        store.require_locks()?;
    }
    let profile = probe(
        store.as_ref(),
        ProbeOptions {
            conditional_writes: !args.no_conditional_writes,
        },
    )?;
    let options = InitOptions {
        cipher: if args.no_encryption {
            Cipher::None
        } else {
            Cipher::Aes256Gcm
        },
        chunk_size,
        segment_size,
        profile: StoreProfile { lock, ..profile },
        created_unix_secs: now_unix_secs(),
    };
    access::init(Arc::clone(&store), &options, secret)
}

fn object_lock(args: &InitArgs) -> Result<Option<ObjectLock>> {
    let mode = match args.object_lock {
        None => return Ok(None),
        Some(LockFlag::Governance) => LockMode::Governance,
        Some(LockFlag::Compliance) => LockMode::Compliance,
    };
    let keep = args.lock_for.unwrap_or_default();
    ObjectLock::new(mode, keep, args.lock_window).map(Some)
}

fn now_unix_secs() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn outcome(repository: &Repository, created: bool) -> Result<Outcome> {
    let config = &repository.config;
    let report = InitReport {
        repository: config.repository.to_string(),
        url: repository.store.url(),
        created,
        encrypted: config.cipher != Cipher::None,
        chunk_size_bytes: config.chunk_size,
        segment_size_bytes: config.segment_size,
        conditional_writes: config.profile.conditional_writes,
        single_host: config.profile.single_host.is_some(),
        object_lock: config.profile.lock.map(|lock| LockReport {
            mode: match lock.mode {
                LockMode::Governance => "governance",
                LockMode::Compliance => "compliance",
            },
            lock_for_seconds: lock.keep_secs,
            window_seconds: lock.window_secs,
        }),
    };
    let text = to_text(&report);
    Outcome::new(&report, Text::Summary(text))
}

fn to_text(report: &InitReport) -> String {
    let pairs = Table::pairs([
        ("repository", report.repository.clone()),
        ("url", report.url.clone()),
        (
            "encryption",
            if report.encrypted {
                "AES-256-GCM"
            } else {
                "none"
            }
            .to_owned(),
        ),
        ("chunks", units::size(u64::from(report.chunk_size_bytes))),
        (
            "segments",
            units::size(u64::from(report.segment_size_bytes)),
        ),
    ]);
    let head = if report.created {
        "Made a repository."
    } else {
        "The repository is there and opens."
    };
    let mut text = format!("{head}\n\n{pairs}\n");
    text.push_str(if report.encrypted {
        "Keep the passphrase or key file somewhere else: without it the data is lost, and nobody can help.\n\
         `snaphaul key export` makes a recovery sheet to print and lock away.\n"
    } else {
        "The data is NOT encrypted: whoever can read the store can read it, and whoever can write there can forge it.\n"
    });
    if let Some(lock) = &report.object_lock {
        let _ = writeln!(
            text,
            "Every point is locked in {} mode for {}, at most {} longer.",
            lock.mode,
            humantime::format_duration(Duration::from_secs(lock.lock_for_seconds)),
            humantime::format_duration(Duration::from_secs(lock.window_seconds)),
        );
    }
    if !report.conditional_writes {
        text.push_str(
            "The store has no create-only writes: killed runs are not resumed, gc gives up only sessions named with --abort, \
             and rewrites no sparse segments.\n",
        );
    }
    if report.single_host {
        text.push_str(
            "The directory is on a network file system: collect garbage from this host only.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(encrypted: bool) -> InitReport {
        InitReport {
            repository: "00".to_owned(),
            url: "file:///r".to_owned(),
            created: true,
            encrypted,
            chunk_size_bytes: 128 << 10,
            segment_size_bytes: 32 << 20,
            conditional_writes: true,
            single_host: false,
            object_lock: None,
        }
    }

    #[test]
    fn locks_are_named() {
        let text = to_text(&InitReport {
            object_lock: Some(LockReport {
                mode: "compliance",
                lock_for_seconds: 30 * 86_400,
                window_seconds: 7 * 86_400,
            }),
            ..report(true)
        });
        assert!(
            text.contains("compliance mode for 30days, at most 7days longer"),
            "{text}"
        );
        assert!(!to_text(&report(true)).contains("locked"));
    }

    #[test]
    fn the_text_says_what_happens_without_the_key() {
        assert!(to_text(&report(true)).contains("without it the data is lost"));
        assert!(to_text(&report(true)).contains("key export"));
        assert!(!to_text(&report(false)).contains("key export"));
        assert!(to_text(&report(false)).contains("NOT encrypted"));
        assert!(!to_text(&report(false)).contains("passphrase"));
    }

    #[test]
    fn weak_stores_are_named() {
        let text = to_text(&InitReport {
            conditional_writes: false,
            single_host: true,
            ..report(true)
        });
        assert!(
            text.contains("no create-only writes") && text.contains("this host only"),
            "{text}"
        );
        assert!(!to_text(&report(true)).contains("create-only"));
    }
}

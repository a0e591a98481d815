//! `snaphaul recover`.
//!
//! Owns: the order of it: configuration and key slots first, because what is locked and how follows from them. Must not: need
//! a key.

use serde::Serialize;

use super::args::{RecoverArgs, RepositoryArgs, RunArgs};
use super::open;
use super::output::table::Table;
use super::run::{Outcome, Run, Text};
use crate::error::Result;
use crate::repository::access;
use crate::repository::ids::name;
use crate::repository::recover::{Recovery, recover};

#[derive(Debug, Serialize)]
struct RecoverReport {
    dry_run: bool,
    objects: u64,
    hidden: u64,
    overwritten: u64,
    /// The first hundred.
    names: Vec<String>,
}

pub(super) fn run(
    run: &Run,
    args: &RecoverArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let options = open::store_options(repository, limits)?;
    let store = open::store(&options, false, run)?;
    let mut found = Recovery::default();
    for prefix in [name::CONFIG, name::KEYS] {
        add(
            &mut found,
            recover(store.as_ref(), prefix, None, args.dry_run)?,
        );
    }
    let policy = match access::read_config(store.as_ref()) {
        Ok((config, _)) => {
            store.adopt_profile(&config.profile);
            config.profile.lock
        }
        // Not brought back yet: then this only looks.
        Err(_) if args.dry_run => None,
        Err(error) => return Err(error),
    };
    if !args.dry_run {
        access::lock_roots(store.as_ref(), &found.names, policy)?;
    }
    for prefix in PREFIXES {
        add(
            &mut found,
            recover(store.as_ref(), prefix, policy, args.dry_run)?,
        );
    }
    let keys = found.names.iter();
    let keys = keys.filter(|object| object.starts_with(name::KEYS)).count();
    if keys > 0 {
        run.warn(format!(
            "{keys} objects of key slots come back with the rest: a key that was removed on purpose opens the repository again; \
             see `snaphaul key list`"
        ));
    }
    let report = RecoverReport {
        dry_run: args.dry_run,
        objects: found.objects,
        hidden: found.hidden,
        overwritten: found.overwritten,
        names: found.names,
    };
    let text = to_text(&report);
    Outcome::new(&report, Text::Answer(text))
}

/// Everything else that a point needs.
const PREFIXES: [&str; 7] = [
    name::OPEN,
    name::SNAP,
    name::TOMB,
    name::COPY,
    name::LIVE,
    name::MAP,
    name::SEG,
];

fn add(sum: &mut Recovery, more: Recovery) {
    sum.objects += more.objects;
    sum.hidden += more.hidden;
    sum.overwritten += more.overwritten;
    sum.names.extend(more.names);
    sum.names.truncate(100);
}

fn to_text(report: &RecoverReport) -> String {
    let pairs = Table::pairs([
        ("objects looked at", report.objects.to_string()),
        ("deleted", report.hidden.to_string()),
        ("overwritten", report.overwritten.to_string()),
    ]);
    let head = match (report.dry_run, report.hidden + report.overwritten) {
        (_, 0) => "Nothing was deleted or overwritten.",
        (true, _) => "These can be brought back.",
        (false, _) => {
            "Brought back. Run `snaphaul verify --level data` now, and find out whose credentials did it."
        }
    };
    format!("{head}\n\n{pairs}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_was_done() {
        let mut report = RecoverReport {
            dry_run: false,
            objects: 9,
            hidden: 0,
            overwritten: 0,
            names: Vec::new(),
        };
        assert!(to_text(&report).starts_with("Nothing"));
        report.hidden = 2;
        assert!(to_text(&report).starts_with("Brought back"));
        report.dry_run = true;
        assert!(to_text(&report).starts_with("These can be"));
    }
}

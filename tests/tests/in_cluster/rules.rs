//! Every rule of every role is there because something needs it: all of them were used by what the other cases did.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::audit::{self, Asked};
use tests::cluster::product::SYSTEM;

use crate::bed::Bed;

const CONTROLLER: &str = "snaphaul-controller";
const AGENT: &str = "snaphaul-agent";

/// What no request of the account shows, and why it is granted.
const UNSEEN: &[(&str, &str, &str, &str)] = &[
    (
        CONTROLLER,
        "use",
        "snapshotrepositories",
        "asked of the authorizer by the policy snaphaul-backups",
    ),
    (
        CONTROLLER,
        "coordinate",
        "snapshotrepositories",
        "asked of the authorizer by the policy snaphaul-status",
    ),
    (
        AGENT,
        "coordinate",
        "snapshotrepositories",
        "asked of the authorizer by the policy snaphaul-status",
    ),
    (
        CONTROLLER,
        "patch",
        "events",
        "an event that comes again within minutes",
    ),
    (
        AGENT,
        "patch",
        "events",
        "an event that comes again within minutes",
    ),
];

/// One thing that a rule grants.
#[derive(Debug)]
struct Granted {
    account: &'static str,
    /// Granted in the system namespace only.
    here: bool,
    verb: String,
    group: String,
    resource: String,
    name: Option<String>,
}

impl Granted {
    fn covers(&self, asked: &Asked) -> bool {
        asked.account == self.account
            && asked.verb == self.verb
            && asked.group == self.group
            && asked.resource == self.resource
            && (!self.here || asked.namespace == SYSTEM)
            && self.name.as_ref().is_none_or(|name| asked.name == *name)
    }
}

/// Comes after all other cases, and says nothing about a run of some of them.
pub(crate) fn all_are_used(bed: &mut Bed) -> Result<()> {
    let asked = audit::read(bed.cluster.folder())?;
    let (refused, asked): (BTreeSet<Asked>, BTreeSet<Asked>) =
        asked.into_iter().partition(|asked| asked.forbidden);
    let rules = granted(bed)?;
    // What a rule grants is refused all the same by an API server that has just begun, and in a namespace that ends.
    let refused: Vec<_> = refused
        .iter()
        .filter(|asked| !rules.iter().any(|rule| rule.covers(asked)))
        .collect();
    ensure!(
        refused.is_empty(),
        "requests that were refused: {refused:#?}"
    );
    // What a run makes happen differs from one to the next: which rule nobody needs is for the long one to say.
    if !bed.ran_everything() || std::env::var_os("SNAPHAUL_TEST_LONG").is_none() {
        eprintln!("only some cases ran: whether every rule is needed is not judged");
        return Ok(());
    }
    let mut wrong = Vec::new();
    for granted in rules {
        let used = asked.iter().any(|asked| granted.covers(asked));
        let unseen = UNSEEN.iter().any(|(account, verb, resource, _)| {
            (*account, *verb, *resource) == (granted.account, &granted.verb, &granted.resource)
        });
        if !used && !unseen {
            wrong.push(format!("never used: {granted:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn granted(bed: &Bed) -> Result<Vec<Granted>> {
    let mut all = Vec::new();
    for account in [CONTROLLER, AGENT] {
        for (kind, here) in [("clusterrole", false), ("role", true)] {
            let words = ["get", kind, account, "--namespace", SYSTEM, "--output=json"];
            let role: Value = serde_json::from_str(&bed.cluster.kubectl(&words)?)?;
            let rules = role["rules"].as_array().context("rules")?;
            all.extend(rules.iter().flat_map(|rule| each(account, here, rule)));
        }
    }
    Ok(all)
}

fn each(account: &'static str, here: bool, rule: &Value) -> Vec<Granted> {
    let words = |key: &str| -> Vec<String> {
        let list = rule[key].as_array().into_iter().flatten();
        list.filter_map(|word| Some(word.as_str()?.to_owned()))
            .collect()
    };
    let mut names: Vec<Option<String>> = words("resourceNames").into_iter().map(Some).collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut all = Vec::new();
    for group in words("apiGroups") {
        for resource in words("resources") {
            for verb in words("verbs") {
                all.extend(names.iter().map(|name| Granted {
                    account,
                    here,
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    all
}

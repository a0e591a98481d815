//! What a user applies, against a real API server: definitions, policies and roles of `manifests/`.
//!
//! Nothing of ours runs here: every refusal is one of the API server, with the words that a person would read.

#[path = "custom_resources/agents.rs"]
mod agents;
#[path = "custom_resources/definitions.rs"]
mod definitions;
#[path = "custom_resources/forgeries.rs"]
mod forgeries;
#[path = "custom_resources/objects.rs"]
mod objects;
#[path = "custom_resources/people.rs"]
mod people;
#[path = "custom_resources/refusals.rs"]
mod refusals;
#[path = "custom_resources/roles.rs"]
mod roles;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Trial};
use tests::cluster::{Cluster, Parts};

type Case = (&'static str, fn(&Cluster) -> Result<()>);

/// One cluster for all, with the base applied; each case has names of its own.
const CASES: &[Case] = &[
    (
        "the_base_applies_and_stays_as_it_is",
        definitions::the_base_applies_and_stays_as_it_is,
    ),
    (
        "every_field_is_explained",
        definitions::every_field_is_explained,
    ),
    ("defaults_appear", definitions::defaults_appear),
    ("fields_select", definitions::fields_select),
    (
        "what_is_admitted_can_be_read",
        definitions::what_is_admitted_can_be_read,
    ),
    ("bad_objects_are_refused", refusals::bad_objects_are_refused),
    (
        "forbidden_changes_are_refused",
        refusals::forbidden_changes_are_refused,
    ),
    (
        "allowed_changes_are_admitted",
        refusals::allowed_changes_are_admitted,
    ),
    (
        "the_examples_apply_in_their_order",
        people::the_examples_apply_in_their_order,
    ),
    (
        "policies_are_free_of_warnings",
        people::policies_are_free_of_warnings,
    ),
    (
        "a_backup_needs_the_right_to_use_its_repository",
        people::a_backup_needs_the_right_to_use_its_repository,
    ),
    (
        "a_restore_needs_the_rights_to_its_claim",
        people::a_restore_needs_the_rights_to_its_claim,
    ),
    (
        "an_agent_answers_for_its_own_node",
        agents::an_agent_answers_for_its_own_node,
    ),
    ("an_agent_only_answers", agents::an_agent_only_answers),
    (
        "a_tenant_forges_no_status",
        forgeries::a_tenant_forges_no_status,
    ),
    (
        "a_synced_backup_is_the_controllers",
        forgeries::a_synced_backup_is_the_controllers,
    ),
    (
        "a_finalizer_is_the_controllers",
        forgeries::a_finalizer_is_the_controllers,
    ),
    (
        "an_agent_makes_tokens_for_metadata_services_only",
        forgeries::an_agent_makes_tokens_for_metadata_services_only,
    ),
    (
        "a_claim_that_is_written_over_gets_no_pod",
        forgeries::a_claim_that_is_written_over_gets_no_pod,
    ),
    (
        "no_role_allows_what_is_not_needed",
        roles::no_role_allows_what_is_not_needed,
    ),
    (
        "every_rule_is_missed_when_it_is_gone",
        roles::every_rule_is_missed_when_it_is_gone,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the cluster, and one takes rules away for a moment.
    arguments.test_threads = Some(1);
    static SHARED: Mutex<Option<Cluster>> = Mutex::new(None);
    let trials = CASES.iter().map(|(name, case)| {
        Trial::test(*name, move || {
            run(&SHARED, *case).map_err(|error| format!("{error:?}").into())
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn run(shared: &Mutex<Option<Cluster>>, case: fn(&Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if cluster.is_none() {
        *cluster = Some(installed()?);
    }
    case(cluster.as_ref().context("started above")?)
}

/// A cluster with the base, as the manifests' page says to install it.
fn installed() -> Result<Cluster> {
    let cluster = Cluster::start(Parts {
        controller_manager: true,
        ..Parts::default()
    })?;
    let base = manifests().join("base");
    cluster.kubectl(&["apply", "--server-side", "-k", text(&base)?])?;
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
    ];
    let names = [
        "podvolumebackups.snaphaul.dev",
        "podvolumerestores.snaphaul.dev",
        "snapshotrepositories.snaphaul.dev",
    ];
    cluster.kubectl(&[&established[..], &names].concat())?;
    Ok(cluster)
}

/// The folder of what users apply.
fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// The words of an error that had to come.
fn refused<T>(what: &str, answer: Result<T>) -> Result<String> {
    match answer {
        Ok(_) => bail!("{what}: was not refused"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

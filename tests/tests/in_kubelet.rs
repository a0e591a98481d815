//! What a user applies, on a real kubelet: the image that `image/build` makes, the base, the examples, a volume of a pod that runs.
//!
//! ```text
//!   pod `app` ─writes─► claim `database` ─snapshot─► holder (pod) ─descriptor─► agent (pod) ─► bucket (MinIO)
//!       └─ sha256 ───────────────────── compared ──────────────────────────────────────────────┘ restored by claim and by command
//! ```
//!
//! Everything but the driver and its sidecars is a pod; CSI volumes are attached by kubelet, attacher and controller manager. One
//! cluster serves all cases, in their order: each builds on the ones before it.

#[path = "in_kubelet/base.rs"]
mod base;
#[path = "in_kubelet/deaths.rs"]
mod deaths;
#[path = "in_kubelet/examples.rs"]
mod examples;
#[path = "in_kubelet/site.rs"]
mod site;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Trial};

use crate::site::Site;

type Case = (&'static str, fn(&mut Site) -> Result<()>);

/// Those that change the deployment come last.
const CASES: &[Case] = &[
    ("image_is_reproducible", base::image_is_reproducible),
    ("agent_has_no_privilege", base::agent_has_no_privilege),
    ("backup_of_the_examples", examples::backup),
    ("incremental_backup", examples::incremental),
    ("restore_of_the_examples", examples::restore),
    ("agent_deleted_in_the_middle", deaths::agent),
    ("controller_deleted_in_the_middle", deaths::controller),
    ("rings_denied", base::rings_denied),
    ("node_reboots_in_the_middle", deaths::node),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared: Arc<Mutex<Stage>> = Arc::default();
    let trials = CASES.iter().map(|(name, case)| {
        let shared = Arc::clone(&shared);
        Trial::test(*name, move || {
            run(&shared, *case).map_err(|error| format!("{error:?}").into())
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Ended;
    code
}

/// How far the cluster is. What one case could not bring to its end, no later one can rest on.
#[derive(Default)]
enum Stage {
    #[default]
    New,
    Up(Box<Site>),
    Ended,
}

fn run(shared: &Mutex<Stage>, case: fn(&mut Site) -> Result<()>) -> Result<()> {
    let mut stage = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*stage, Stage::New) {
        // Until it is up it is as if it had ended.
        *stage = Stage::Ended;
        *stage = Stage::Up(Box::new(Site::start()?));
    }
    let Stage::Up(site) = &mut *stage else {
        bail!("a case before this one failed");
    };
    let outcome = case(site)
        .and_then(|()| site.nothing_left())
        .with_context(|| site.diagnosis());
    if outcome.is_err() {
        *stage = Stage::Ended;
    }
    outcome
}

//! The cases, seen from inside the machine.
//!
//! Owns: running them one after the other and writing down what became of each. Must not: know what they do.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::bytes::Random;
use crate::{pool, reservations};

/// Name and body.
pub(crate) type Case = (&'static str, fn(&mut Site));

/// The variable that tells the binary that it is inside, and where its folder is.
pub(crate) const INSIDE: &str = "SNAPHAUL_THIN_INSIDE";
/// The variable that chooses the seed.
pub(crate) const SEED: &str = "SNAPHAUL_TEST_SEED";
/// The file of results in that folder: a line for each case, name, `ok` or `FAILED`, and how long or why.
pub(crate) const RESULTS: &str = "results";
/// Its last line.
pub(crate) const END: &str = "end";

/// What a case may use.
pub(crate) struct Site {
    /// For its files; nothing else of the host may be written.
    pub(crate) folder: PathBuf,
    pub(crate) random: Random,
    /// What was measured, for the report.
    pub(crate) note: String,
}

impl Site {
    /// Where sources note their reservations.
    pub(crate) fn notes(&self) -> PathBuf {
        self.folder.join("notes")
    }
}

/// Runs the cases that the arguments name; `None` outside.
pub(crate) fn run(cases: &[Case]) -> Option<ExitCode> {
    let folder = PathBuf::from(std::env::var_os(INSIDE)?);
    if let Some(code) = reservations::run_as_victim() {
        return Some(code);
    }
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut results = File::options()
        .append(true)
        .open(folder.join(RESULTS))
        .expect("the results file");
    for (name, body) in cases
        .iter()
        .filter(|case| names.iter().any(|name| name == case.0))
    {
        eprintln!("== {name}");
        let line = run_one(&folder, name, *body);
        eprintln!("{line}");
        writeln!(results, "{line}").expect("a line of the results");
    }
    Some(ExitCode::SUCCESS)
}

fn run_one(folder: &Path, name: &str, body: fn(&mut Site)) -> String {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).expect("a folder for the case");
    let seed = seed();
    let mut site = Site {
        folder: own,
        random: Random::new(seed),
        note: String::new(),
    };
    let begin = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        body(&mut site);
        let left = pool::run("dmsetup", &["ls"]);
        assert_eq!(left, "No devices found\n", "devices are left");
    }));
    match outcome {
        Ok(()) => {
            let took = begin.elapsed().as_secs_f64();
            format!("{name}\tok\t{took:.1} s{}", site.note)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let why = text.unwrap_or_default().replace('\n', "\\n");
            format!("{name}\tFAILED\t{SEED}={seed}\\n{why}")
        }
    }
}

fn seed() -> u64 {
    let chosen = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    chosen.unwrap_or_else(|| {
        let age = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        age.as_secs() ^ u64::from(age.subsec_nanos())
    })
}

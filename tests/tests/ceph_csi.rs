//! The newer Ceph of the tests, and images in it as ceph-csi leaves them: the layout itself, and what changed-block sources make
//! of it.
//!
//! The whole test runs on that Ceph: `main` begins by starting it again there.

#[path = "ceph_csi/layout.rs"]
mod layout;
#[path = "ceph_csi/source.rs"]
mod source;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Arguments, Trial};
use tests::ceph::{BlockCeph, Ceph};
use tests::ceph_csi::CephCsi;
use tests::ceph_root::CephRoot;
use tests::part;
use tests::rbd_pool::RbdPool;

/// Size of an object, Ceph's default.
const OBJECT: u64 = 4 << 20;
/// Size of every volume.
const VOLUME: u64 = 16 * OBJECT;
/// The pool of all volumes.
const POOL: &str = "volumes";

type Case = (&'static str, fn(&Site) -> Result<()>);

const CASES: &[Case] = &[
    ("layout_of_snapshots", layout::of_snapshots),
    ("layout_of_a_deleted_volume", layout::of_a_deleted_volume),
    (
        "layout_of_a_flattened_snapshot",
        layout::of_a_flattened_snapshot,
    ),
    (
        "layout_of_a_deleted_snapshot",
        layout::of_a_deleted_snapshot,
    ),
    ("layout_of_a_restored_volume", layout::of_a_restored_volume),
    ("source_misses_nothing", source::misses_nothing),
    (
        "source_misses_nothing_of_a_restored_volume",
        source::misses_nothing_of_a_restored_volume,
    ),
    (
        "source_says_why_it_cannot_compare",
        source::says_why_it_cannot_compare,
    ),
];

/// A cluster and the pool of a storage class in it; each case makes volumes of its own.
struct Site {
    csi: CephCsi,
    configuration: PathBuf,
    _ceph: BlockCeph,
}

/// The cluster, started by the first case that asks, or why it did not start.
type Shared = Arc<Mutex<Option<Result<Site, String>>>>;

fn main() -> ExitCode {
    if let Err(error) = CephRoot::enter() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::from_args();
    let shared = Shared::default();
    let mut trials = vec![
        Trial::test("programs_and_libraries_are_the_newer_ones", || {
            newer().map_err(|error| format!("{error:#}").into())
        }),
        Trial::test("handles_have_the_form_of_ceph_csi", || {
            layout::handles().map_err(|error| format!("{error:#}").into())
        }),
    ];
    for &(name, run) in CASES {
        let shared = Arc::clone(&shared);
        trials.push(Trial::test(name, move || {
            on(&shared, run).map_err(|error| format!("{error:#}").into())
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The daemons stop here: nothing drops what `main` still holds at its end.
    drop(shared);
    conclusion.exit_code()
}

/// One case at a time: they share two cores with the daemons.
fn on(shared: &Shared, run: fn(&Site) -> Result<()>) -> Result<()> {
    // A case that panicked leaves a cluster that the others can use.
    let mut site = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let started = site.get_or_insert_with(|| Site::start().map_err(|error| format!("{error:#}")));
    run(started.as_ref().map_err(|error| anyhow!("{error}"))?)
}

impl Site {
    fn start() -> Result<Self> {
        let begin = Instant::now();
        let ceph = Ceph::start_block()?;
        let configuration = ceph.conf();
        let pool = RbdPool::create(&configuration, POOL)?;
        eprintln!("the newer Ceph is up after {:?}", begin.elapsed());
        let features = "layering,exclusive-lock,object-map,fast-diff,deep-flatten";
        Ok(Self {
            csi: CephCsi::new(pool, features),
            configuration,
            _ceph: ceph,
        })
    }
}

/// Whether this test really runs on the newer release.
fn newer() -> Result<()> {
    let version = part::run(Command::new("/usr/bin/rbd").arg("--version"))?;
    ensure!(version.contains("ceph version 18."), "rbd is {version}");
    // The C library that this very process has mapped must be the root's: an older one cannot load that release's librbd.
    let root = CephRoot::find()?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mapped = maps
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| {
            columns
                .last()
                .is_some_and(|path| path.ends_with("/libc.so.6"))
        })
        .context("a C library")?;
    let library = root.file(Path::new(mapped[5]))?;
    let inode = std::fs::metadata(&library)?.ino();
    ensure!(
        mapped[4] == inode.to_string(),
        "{} is not {mapped:?}",
        library.display()
    );
    let symbols = std::fs::read(library.with_file_name("librbd.so.1"))?;
    let wanted = b"rbd_diff_iterate3\0";
    ensure!(
        symbols.windows(wanted.len()).any(|bytes| bytes == wanted),
        "librbd has no rbd_diff_iterate3"
    );
    Ok(())
}

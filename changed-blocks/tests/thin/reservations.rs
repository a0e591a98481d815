//! The metadata snapshot of a pool: ours is always released, a foreign one never, and a pool that makes none says why.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use changed_blocks::source::SourceErrorKind;
use changed_blocks::{ChangedBlocks, Thin};

use crate::contract::{MIB, bind, delta, open};
use crate::inside::Site;
use crate::pool::{self, Pool, SMALL, Shape};

/// The variable that makes this binary a run that will be killed: how it behaves, where it notes, and its target.
const VICTIM: &str = "SNAPHAUL_THIN_VICTIM";

/// A pool with a snapshot 1 of a volume 0, active.
fn snapshot(site: &mut Site) -> (Pool, PathBuf) {
    let pool = Pool::new("held", "held-pool", 0, SMALL);
    pool.create_thin(0);
    let live = pool.activate(0, 8 * MIB);
    pool::write(&live, 0, &site.random.bytes(1 << 20));
    pool::write(&live, 4 * MIB, &site.random.bytes(1 << 20));
    pool.create_snap(1, 0);
    let path = pool.activate(1, 8 * MIB);
    (pool, path)
}

fn journals(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.notes())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "journal")
        })
        .collect()
}

pub(crate) fn released(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let mut source = open(&path, site);
    assert_eq!(pool.held(), "-");
    let mut seen = 0;
    // Held while it is asked, and only then.
    let answer = source.allocated(&mut |_| {
        seen += 1;
        assert_ne!(pool.held(), "-");
        assert_eq!(journals(site).len(), 1);
        true
    });
    assert_eq!((answer.unwrap().extents, seen), (2, 2));
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
    let stopped = source.allocated(&mut |_| false);
    stopped.unwrap_err();
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
    // The tools fail on a device that is gone.
    let record = source.identity().unwrap();
    let gone = record.clone().with("thin_id", 99);
    bind(&mut source, &gone).unwrap_err();
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
    bind(&mut source, &record).unwrap();
    delta(&mut source, 8 * MIB).unwrap();
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
}

pub(crate) fn released_after_a_panic(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let mut source = open(&path, site);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        source.allocated(&mut |_| panic!("a fault of the consumer"))
    }));
    panicked.unwrap_err();
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
}

/// Is this process the run that will be killed?
pub(crate) fn run_as_victim() -> Option<ExitCode> {
    let orders = std::env::var(VICTIM).ok()?;
    let [behaviour, notes, target] = orders.split('\n').collect::<Vec<_>>()[..] else {
        return Some(ExitCode::FAILURE);
    };
    loop {
        let Ok(mut source) = Thin::open(Path::new(target), Path::new(notes)) else {
            continue;
        };
        println!("open");
        let _ = source.allocated(&mut |_| {
            println!("asked");
            let _ = std::io::stdout().flush();
            if behaviour == "stall" {
                std::thread::park();
            }
            true
        });
    }
}

fn victim(site: &Site, behaviour: &str, target: &Path) -> Child {
    let orders = format!(
        "{behaviour}\n{}\n{}",
        site.notes().display(),
        target.display()
    );
    let binary = std::env::current_exe().unwrap();
    Command::new(binary)
        .env(VICTIM, orders)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until it said `word`.
fn wait_for(child: &mut Child, word: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines.map_while(Result::ok).any(|line| line == word);
    assert!(found, "the run ended before it said {word}");
}

pub(crate) fn of_a_killed_run(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let mut child = victim(site, "stall", &path);
    wait_for(&mut child, "asked");
    let held = pool.held();
    assert_ne!(held, "-");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(pool.held(), held, "a killed run cannot release");
    open(&path, site);
    assert_eq!((pool.held().as_str(), journals(site).len()), ("-", 0));
}

pub(crate) fn of_runs_killed_at_any_time(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let mut left = 0;
    for _ in 0..12 {
        let mut child = victim(site, "go on", &path);
        wait_for(&mut child, "open");
        std::thread::sleep(Duration::from_millis(site.random.below(150)));
        child.kill().unwrap();
        child.wait().unwrap();
        left += u32::from(pool.held() != "-");
        open(&path, site);
        assert_eq!(pool.held(), "-");
    }
    site.note = format!("; {left} of 12 killed runs left a reservation");
}

pub(crate) fn foreign(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let mut source = open(&path, site);
    pool.message("reserve_metadata_snap");
    let held = pool.held();
    let refused = |error: changed_blocks::SourceError| {
        assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
        assert!(error.message.contains("another program made it"), "{error}");
        assert!(
            error
                .message
                .contains("dmsetup message held 0 release_metadata_snap"),
            "{error}"
        );
        assert_eq!(pool.held(), held, "a foreign reservation was released");
    };
    refused(Thin::open(&path, &site.notes()).unwrap_err());
    refused(source.allocated(&mut |_| true).unwrap_err());
    // A journal of ours that tells of another one.
    let status = pool.status().replace(&format!(" {held} "), " 12345 ");
    let journal = site.notes().join("thin-uuid-held-pool.journal");
    fs::write(&journal, format!("reserving by pid 1 in boot x\n{status}")).unwrap();
    refused(Thin::open(&path, &site.notes()).unwrap_err());
    pool.message("release_metadata_snap");
    assert_eq!(source.allocated(&mut |_| true).unwrap().extents, 2);
}

pub(crate) fn unknown(site: &mut Site) {
    let (pool, path) = snapshot(site);
    pool.message("reserve_metadata_snap");
    fs::create_dir_all(site.notes()).unwrap();
    let journal = site.notes().join("thin-uuid-held-pool.journal");
    fs::write(&journal, "reserving by pid 7 in boot x\n").unwrap();
    let error = Thin::open(&path, &site.notes()).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Retry);
    assert!(
        error
            .message
            .contains("left over from pid 7 in boot x, which was killed, but that is not certain"),
        "{error}"
    );
    assert_ne!(pool.held(), "-");
    // The same, but noted to its end: then it is ours.
    fs::write(
        &journal,
        format!("reserving by pid 7 in boot x\n{}", pool.status()),
    )
    .unwrap();
    open(&path, site);
    assert_eq!(pool.held(), "-");
}

pub(crate) fn two_runs(site: &mut Site) {
    let (pool, path) = snapshot(site);
    let (mut one, mut two) = (open(&path, site), open(&path, site));
    let (asked, asking) = sync_channel(1);
    let (done, go_on) = sync_channel(1);
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            let mut seen = 0;
            one.allocated(&mut |_| {
                seen += 1;
                if seen == 1 {
                    asked.send(()).unwrap();
                    // Nobody sends before this answer is given: the time passes.
                    assert!(go_on.recv_timeout(Duration::from_millis(300)).is_err());
                }
                true
            })
        });
        asking.recv().unwrap();
        let second = two.allocated(&mut |_| true);
        let _ = done.try_send(());
        assert_eq!(second.unwrap().extents, 2);
        assert_eq!(first.join().unwrap().unwrap().extents, 2);
    });
    assert_eq!(pool.held(), "-");
}

pub(crate) fn out_of_metadata(site: &mut Site) {
    let shape = Shape {
        metadata_sectors: 2048,
        ..SMALL
    };
    let pool = Pool::new("full", "full-pool", 0, shape);
    pool.create_thin(0);
    let live = pool.activate(0, 256 * MIB);
    pool::write(&live, 0, &site.random.bytes(4096));
    pool.create_snap(1, 0);
    let path = pool.activate(1, 256 * MIB);
    let mut source = open(&path, site);
    let record = source.identity().unwrap();
    // Each snapshot takes blocks of metadata, until there are none.
    let fill = |id: u64| {
        let message = format!("create_snap {id} 0");
        let made = Command::new("dmsetup")
            .args(["message", "full", "0", &message])
            .output()
            .unwrap();
        let written = fs::File::options()
            .write(true)
            .open(&live)
            .and_then(|file| {
                std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], id % 4000 * 65_536)?;
                file.sync_all()
            });
        made.status.success() && written.is_ok()
    };
    let filled = (2..600).find(|id| !fill(*id));
    eprintln!("full after {filled:?}: {}", pool.status());
    assert!(
        filled.is_some(),
        "the metadata space is not used up: {}",
        pool.status()
    );
    let error = bind(&mut source, &record).unwrap_err();
    assert!(error.contains("metadata"), "{error}");
    let error = Thin::open(&path, &site.notes()).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    assert!(error.message.contains("the pool full "), "{error}");
    assert_eq!(journals(site).len(), 0);
}

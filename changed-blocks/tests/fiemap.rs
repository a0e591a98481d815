//! The source `fiemap` on real XFS and btrfs, against a comparison of bytes.
//!
//! Needs root, and the programs of `tests/run`. Every random history prints its seed; `SNAPHAUL_TEST_SEED` runs it again,
//! `SNAPHAUL_TEST_LONG` runs many more.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in its rig as well"
)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use changed_blocks::split_mix::SplitMix64;
use changed_blocks::{
    Base, ByteLen, ChangedBlocks, Extent, ExtentSet, Fiemap, Identity, SourceError,
    SourceErrorKind, contract,
};
use rig::history::{History, differing, noise, not_zero, reflink};
use rig::mapping::Mapping;
use rig::mounted::{Mounted, run};

mod rig {
    pub(crate) mod history;
    pub(crate) mod mapping;
    pub(crate) mod mounted;
}

const MIB: u64 = 1 << 20;

fn random(test: &str) -> SplitMix64 {
    let chosen = std::env::var("SNAPHAUL_TEST_SEED").ok();
    let seed = chosen.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() << 30 ^ u64::from(now.subsec_nanos())
    });
    eprintln!("{test}: SNAPHAUL_TEST_SEED={seed}");
    SplitMix64::new(seed)
}

fn open(path: &Path) -> Result<Fiemap, SourceError> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    Fiemap::new(&file, size)
}

/// What a point of `path` would record.
fn record(path: &Path) -> Identity {
    open(path).unwrap().identity().unwrap()
}

fn bind(target: &mut Fiemap, record: &Identity, named: Option<&Path>) -> Result<(), SourceError> {
    target.bind(&Base {
        record,
        point: "p1",
        named: named.map(|path| path.to_str().unwrap()),
    })
}

fn delta(source: &mut Fiemap) -> Result<ExtentSet, SourceError> {
    let mut extents = Vec::new();
    source.delta(&mut |extent| {
        extents.push(extent);
        true
    })?;
    Ok(extents.into_iter().collect())
}

/// A file of `size` bytes with data and holes.
fn mixed(path: &Path, size: u64, random: &mut SplitMix64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for start in (0..size).step_by(256 * 1024) {
        let mut bytes = vec![0; usize::try_from(random.below(300 * 1024)).unwrap() + 1];
        bytes.truncate(usize::try_from(size - start).unwrap());
        noise(random, &mut bytes);
        file.write_all_at(&bytes, start).unwrap();
    }
}

/// How much of what was told had not changed.
#[derive(Default)]
struct OverReport {
    told: u64,
    changed: u64,
}

/// Base, edits, and one answer compared with the bytes. The base is a clone of the live file, the target another one or
/// the live file itself with its dirty pages.
fn one_history(folder: &Path, exact: bool, random: &mut SplitMix64, over: &mut OverReport) {
    let [live, base, clone] = ["live", "base", "clone"].map(|name| folder.join(name));
    let size = 6 * MIB + random.below(8192);
    mixed(&live, size, random);
    reflink(&live, &base);
    let record = record(&base);
    let mut history = History {
        live: live.clone(),
        base: base.clone(),
        touched: Vec::new(),
        relocated: false,
        random,
    };
    for _ in 0..history.random.below(14) {
        history.edit();
    }
    let target = if history.random.below(2) == 0 {
        reflink(&live, &clone);
        &clone
    } else {
        &live
    };
    let mut source = open(target).unwrap();
    bind(&mut source, &record, Some(&base)).unwrap();
    let size = target.metadata().unwrap().len();
    let changed = differing(&base, target);
    contract::check_delta(&mut source, size, &changed);
    contract::check_allocated(&mut source, size, &not_zero(target));
    let told = delta(&mut source).unwrap();
    if exact && !history.relocated {
        let touched = ExtentSet::normalise(history.touched.iter().copied());
        let touched = touched.round_out(ByteLen(4096), ByteLen(u64::MAX / 2));
        let excess = told.subtract(&touched);
        assert!(
            excess.is_empty(),
            "told though nothing touched it: {excess:?}"
        );
        over.told += told.bytes().0;
        over.changed += changed.round_out(ByteLen(4096), ByteLen(size)).bytes().0;
    }
    for path in [&live, &base, &clone] {
        let _ = std::fs::remove_file(path);
    }
}

/// Histories in `folder`; `exact` where every block has a place of its own.
fn histories(test: &str, folder: &Path, exact: bool) {
    let mut random = random(test);
    let mut over = OverReport::default();
    let long = std::env::var_os("SNAPHAUL_TEST_LONG").is_some();
    for _ in 0..if long { 300 } else { 20 } {
        one_history(folder, exact, &mut random, &mut over);
    }
    if exact {
        let OverReport { told, changed } = over;
        eprintln!("{test}: told {told} bytes for {changed} that changed");
    }
}

#[test]
fn xfs_misses_nothing() {
    let xfs = Mounted::new("xfs", 512 * MIB, "");
    histories("xfs_misses_nothing", xfs.path(), true);
}

#[test]
fn btrfs_misses_nothing() {
    let btrfs = Mounted::new("btrfs", 512 * MIB, "");
    histories("btrfs_misses_nothing", btrfs.path(), true);
}

#[test]
fn btrfs_without_copy_on_write_misses_nothing() {
    let btrfs = Mounted::new("btrfs", 512 * MIB, "");
    run("chattr", &["+C", btrfs.path().to_str().unwrap()]);
    histories(
        "btrfs_without_copy_on_write_misses_nothing",
        btrfs.path(),
        true,
    );
}

#[test]
fn compressed_btrfs_misses_nothing() {
    let btrfs = Mounted::new("btrfs", 512 * MIB, "compress-force=zstd");
    histories("compressed_btrfs_misses_nothing", btrfs.path(), false);
}

/// Both halves of a compressed extent are told to be in the same place, with different content.
#[test]
fn a_shifted_clone_of_a_compressed_extent_is_changed() {
    let btrfs = Mounted::new("btrfs", 256 * MIB, "compress-force=zstd");
    let [base, target] = ["base", "target"].map(|name| btrfs.join(name));
    let mut bytes = vec![1; 64 * 1024];
    bytes.resize(128 * 1024, 2);
    std::fs::write(&base, bytes).unwrap();
    reflink(&base, &target);
    let shift = format!("reflink {} 65536 0 65536", base.display());
    run("xfs_io", &["-c", &shift, target.to_str().unwrap()]);
    let record = record(&base);
    let mut source = open(&target).unwrap();
    bind(&mut source, &record, Some(&base)).unwrap();
    contract::check_delta(&mut source, 128 * 1024, &differing(&base, &target));
}

#[test]
fn a_balance_between_points_misses_nothing() {
    let btrfs = Mounted::new("btrfs", 512 * MIB, "");
    let mut random = random("a_balance_between_points_misses_nothing");
    let [base, target] = ["base", "target"].map(|name| btrfs.join(name));
    mixed(&base, 16 * MIB, &mut random);
    reflink(&base, &target);
    let record = record(&base);
    scattered_writes(&target, 16 * MIB, 50, &mut random);
    let changed = differing(&base, &target);
    run(
        "btrfs",
        &[
            "balance",
            "start",
            "--full-balance",
            btrfs.path().to_str().unwrap(),
        ],
    );
    let mut source = open(&target).unwrap();
    bind(&mut source, &record, Some(&base)).unwrap();
    contract::check_delta(&mut source, 16 * MIB, &changed);
    let told = delta(&mut source).unwrap().bytes().0;
    let least = changed.bytes().0;
    eprintln!("after a balance: told {told} bytes for {least} that changed");
    assert!(told < 16 * MIB, "a balance keeps what is shared shared");
}

fn scattered_writes(path: &Path, size: u64, count: u64, random: &mut SplitMix64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut block = [0; 4096];
    for _ in 0..count {
        noise(random, &mut block);
        let at = random.below(size / 4096) * 4096;
        file.write_all_at(&block, at).unwrap();
    }
}

/// While blocks are moved the answer is right, or there is none.
#[test]
fn maps_that_move_give_no_wrong_answer() {
    let btrfs = Mounted::new("btrfs", 512 * MIB, "");
    let mut random = random("maps_that_move_give_no_wrong_answer");
    let [base, target] = ["base", "target"].map(|name| btrfs.join(name));
    mixed(&base, 16 * MIB, &mut random);
    reflink(&base, &target);
    let record = record(&base);
    scattered_writes(&target, 16 * MIB, 200, &mut random);
    let changed = differing(&base, &target);
    let stop = AtomicBool::new(false);
    let (mut answers, mut refusals) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Moves every block, and the two files to different places for a while.
                let folder = btrfs.path().to_str().unwrap();
                run("btrfs", &["balance", "start", "--full-balance", folder]);
            }
        });
        for _ in 0..200 {
            let mut source = open(&target).unwrap();
            let answer = bind(&mut source, &record, Some(&base)).and_then(|()| delta(&mut source));
            match answer {
                Ok(told) => {
                    answers += 1;
                    let missed = changed.subtract(&told);
                    if !missed.is_empty() {
                        stop.store(true, Ordering::Relaxed);
                        panic!("missed {missed:?}");
                    }
                }
                Err(error) => {
                    refusals += 1;
                    assert_eq!(error.kind, SourceErrorKind::FullBackup, "{error}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    eprintln!("while blocks moved: {answers} answers, {refusals} refusals");
}

/// The size of the numbers in the design: the answer is what was written, and comes at once.
#[test]
fn ten_thousand_writes_into_a_tebibyte_are_told_exactly() {
    const TIB: u64 = 1 << 40;
    let xfs = Mounted::new("xfs", 2048 * MIB, "");
    let mut random = random("ten_thousand_writes_into_a_tebibyte_are_told_exactly");
    let [base, target] = ["base", "target"].map(|name| xfs.join(name));
    File::create(&base).unwrap().set_len(TIB).unwrap();
    scattered_writes(&base, TIB, 10_000, &mut random);
    reflink(&base, &target);
    let record = record(&base);
    let file = OpenOptions::new().write(true).open(&target).unwrap();
    let written: Vec<_> = (0..10_000)
        .map(|_| {
            let at = random.below(TIB / 4096) * 4096;
            file.write_all_at(&[7; 4096], at).unwrap();
            Extent::data(at, 4096)
        })
        .collect();
    let begin = Instant::now();
    let mut source = open(&target).unwrap();
    bind(&mut source, &record, Some(&base)).unwrap();
    let told = delta(&mut source).unwrap();
    eprintln!(
        "1 TiB with 10,000 writes, not yet on disk: {:?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    assert_eq!(told, delta(&mut source).unwrap());
    eprintln!("the same, on disk: {:?}", begin.elapsed());
    assert_eq!(told, ExtentSet::normalise(written));
}

fn refused(result: Result<impl Sized, SourceError>, reason: &str) {
    let Err(error) = result else {
        panic!("not refused: {reason}");
    };
    assert_eq!(error.kind, SourceErrorKind::FullBackup, "{error}");
    assert!(error.to_string().contains(reason), "{error} / {reason}");
}

#[test]
fn a_base_that_is_not_the_parent_is_refused() {
    let xfs = Mounted::new("xfs", 512 * MIB, "");
    let [base, target, other] = ["base", "target", "other"].map(|name| xfs.join(name));
    std::fs::write(&base, vec![1; 100_000]).unwrap();
    let first = record(&base);
    reflink(&base, &target);
    let mut source = open(&target).unwrap();
    contract::check_without_base(&mut source);
    bind(&mut source, &first, Some(&base)).unwrap();
    assert!(delta(&mut source).unwrap().is_empty());

    refused(bind(&mut source, &first, None), "--base");
    contract::check_without_base(&mut source);
    refused(bind(&mut source, &first, Some(&other)), "open the base");
    refused(bind(&mut source, &first, Some(xfs.path())), "only files");
    run("mkfifo", &[other.to_str().unwrap()]);
    refused(bind(&mut source, &first, Some(&other)), "only files");
    std::fs::remove_file(&other).unwrap();
    reflink(&base, &other);
    refused(bind(&mut source, &first, Some(&other)), "is not what p1");
    let rbd = Identity::new("rbd").with("snap", 4);
    refused(bind(&mut source, &rbd, Some(&base)), "a record of rbd");

    bind(&mut source, &first, Some(&base)).unwrap();
    let file = OpenOptions::new().write(true).open(&base).unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    refused(delta(&mut source), "the base was changed meanwhile");
    refused(bind(&mut source, &first, Some(&base)), "changed since");
}

#[test]
fn a_file_replaced_under_its_name_is_another_one() {
    for kind in ["xfs", "btrfs"] {
        let mounted = Mounted::new(kind, 512 * MIB, "");
        let [base, target] = ["base", "target"].map(|name| mounted.join(name));
        std::fs::write(&base, vec![1; 100_000]).unwrap();
        let first = record(&base);
        reflink(&base, &target);
        std::fs::remove_file(&base).unwrap();
        // XFS gives the number of the inode to the next file.
        reflink(&target, &base);
        let mut source = open(&target).unwrap();
        refused(bind(&mut source, &first, Some(&base)), "is not what p1");
    }
}

#[test]
fn a_target_written_meanwhile_gives_no_answer() {
    let xfs = Mounted::new("xfs", 512 * MIB, "");
    let [base, target] = ["base", "target"].map(|name| xfs.join(name));
    std::fs::write(&base, vec![1; 100_000]).unwrap();
    reflink(&base, &target);
    let mut source = open(&target).unwrap();
    bind(&mut source, &record(&base), Some(&base)).unwrap();
    let file = OpenOptions::new().write(true).open(&target).unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    refused(delta(&mut source), "the target was changed meanwhile");
}

/// A page that is mapped and dirty changes without a new stamp until it is written.
#[test]
fn a_base_changed_through_a_mapping_is_refused() {
    for kind in ["xfs", "btrfs"] {
        let mounted = Mounted::new(kind, 512 * MIB, "");
        let [base, target] = ["base", "target"].map(|name| mounted.join(name));
        std::fs::write(&base, vec![9; 100_000]).unwrap();
        let mut mapping = Mapping::new(&base, 100_000);
        mapping.write(1);
        let record = record(&base);
        mapping.write(2);
        drop(mapping);
        reflink(&base, &target);
        let mut source = open(&target).unwrap();
        refused(
            bind(&mut source, &record, Some(&base)),
            "was changed since: ctime",
        );
    }
}

#[test]
fn files_that_share_no_blocks_are_refused() {
    let xfs = Mounted::new("xfs", 512 * MIB, "");
    let btrfs = Mounted::new("btrfs", 256 * MIB, "");
    let [base, target] = [&xfs, &btrfs].map(|mounted| mounted.join("file"));
    for path in [&base, &target] {
        std::fs::write(path, vec![1; 100_000]).unwrap();
    }
    let mut source = open(&target).unwrap();
    let refusal = bind(&mut source, &record(&base), Some(&base));
    refused(refusal, "on another file system");
    let inner = btrfs.join("inner");
    run("btrfs", &["subvolume", "create", inner.to_str().unwrap()]);
    let base = inner.join("file");
    reflink(&target, &base);
    let refusal = bind(&mut source, &record(&base), Some(&base));
    refused(refusal, "or subvolume");
}

#[test]
fn file_systems_that_share_no_blocks_are_named() {
    for kind in ["ext4", "tmpfs"] {
        let mounted = Mounted::new(kind, 64 * MIB, "");
        let path = mounted.join("file");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        refused(open(&path), &format!("files on {kind} share no blocks"));
    }
}

/// The record must outlive the mount: names that change with it would make every backup after a boot a full one.
#[test]
fn a_record_survives_another_mount() {
    for kind in ["xfs", "btrfs"] {
        let mounted = Mounted::new(kind, 512 * MIB, "");
        let path = mounted.join("file");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let before = record(&path);
        let folder = mounted.path().to_str().unwrap();
        let image = mounted.path().parent().unwrap().join("image");
        // Something else takes the loop device meanwhile, as after a boot.
        run("umount", &[folder]);
        let other = Mounted::new("ext4", 16 * MIB, "");
        run("mount", &["-o", "loop", image.to_str().unwrap(), folder]);
        assert_eq!(record(&path).difference(&before), None);
        drop(other);
    }
}

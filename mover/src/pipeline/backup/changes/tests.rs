//! Backups by delta, told the truth and lied to in every way: the point is always what the source holds.

mod claims;
mod limits;
mod reasons;
mod told;
mod verdicts;

use super::*;
use crate::device::queue::EngineChoice;
use crate::error::ErrorKind;
use crate::pipeline::backup::{self, ParentChoice};
use crate::pipeline::report::BackupReport;
use crate::pipeline::restore::sample::Random;
use crate::pipeline::testing::{Bed, CHUNK};
use crate::repository::format::Compression;
use crate::repository::session::points::Catalog;
use told::{Answer, BLOCK, Storage};

const CHUNKS: usize = 700;

fn request(choice: ChangedBlocksChoice, parent: ParentChoice) -> BackupRequest {
    BackupRequest {
        volume: "db".to_owned(),
        parent,
        changed_blocks: choice,
        base: None,
        compression: Compression::Lz4,
        tags: std::collections::BTreeMap::new(),
        group: None,
        allow_live: false,
        takeover_after: std::time::Duration::from_secs(600),
        engine: EngineChoice::Threads,
        order: None,
        recorded: None,
    }
}

fn back_up(bed: &Bed, storage: &Storage, choice: ChangedBlocksChoice) -> Result<BackupReport> {
    let request = request(choice, ParentChoice::Auto);
    backup::run(&bed.context(), &storage.source(), &request)
}

/// Why one try of a backup was given up.
fn again_after_one_try(bed: &Bed, storage: &Storage) -> Option<Again> {
    let context = bed.context();
    let start = backup::Start {
        at: std::time::Instant::now(),
        counts: context.repository.store.counts(),
    };
    let request = request(ChangedBlocksChoice::Auto, ParentChoice::Auto);
    let failed = backup::attempt(&context, &storage.source(), &request, None, start).err()?;
    Again::after(&failed.error, failed.session)
}

fn newest(bed: &Bed) -> Point {
    let volume = bed.repository.keys.volume_id("db");
    let catalog = Catalog::list(bed.repository.store.as_ref(), volume).unwrap();
    catalog
        .newest_complete(&bed.repository, &mut Vec::new())
        .unwrap()
        .unwrap()
}

/// The only verdict that the newest point keeps.
fn verdict(bed: &Bed) -> Verdict {
    let mut verdicts = History::of(&newest(bed).manifest).verdicts;
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    verdicts.remove(0)
}

/// The newest point holds what is on disk: its content hash is that of a scan that compares with nothing.
fn check_newest(bed: &Bed, storage: &Storage) {
    let point = newest(bed);
    let (size, chunk_size) = (point.manifest.size, point.manifest.chunk_size);
    let scan = BackupRequest {
        volume: "db-scan".to_owned(),
        ..request(ChangedBlocksChoice::Scan, ParentChoice::None)
    };
    let report = backup::run(&bed.context(), &storage.source(), &scan).unwrap();
    let volume = bed.repository.keys.volume_id("db-scan");
    let catalog = Catalog::list(bed.repository.store.as_ref(), volume).unwrap();
    let scanned = catalog
        .newest_complete(&bed.repository, &mut Vec::new())
        .unwrap()
        .unwrap();
    assert_eq!(scanned.id().to_string(), report.point);
    assert_eq!(scanned.manifest.content_hash, point.manifest.content_hash);
    assert_eq!(
        (scanned.manifest.size, scanned.manifest.chunk_size),
        (size, chunk_size)
    );
}

fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut image = vec![0; len];
    for chunk in image.chunks_mut(CHUNK) {
        if random.below(4) > 0 {
            let value = u8::try_from(random.below(256)).unwrap();
            for (at, byte) in chunk.iter_mut().enumerate().step_by(7) {
                *byte = value.wrapping_add(u8::try_from(at % 251).unwrap());
            }
        }
    }
    image
}

fn scatter(seed: u64, count: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |image| {
        let mut random = Random::new(seed);
        for _ in 0..count {
            let at = usize::try_from(random.below(image.len() as u64)).unwrap();
            image[at] ^= 0x5a;
        }
    }
}

fn begun() -> (Bed, Storage) {
    let bed = Bed::new();
    let storage = Storage::new(&bed, image(1, CHUNKS * CHUNK + 5000));
    let first = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(first.changed_blocks, "hole-map");
    (bed, storage)
}

#[test]
fn an_honest_delta_reads_little_and_is_right() {
    let (bed, storage) = begun();
    for round in 0..4 {
        storage.change(scatter(round, 5));
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(
            report.changed_blocks, "told",
            "{}",
            report.changed_blocks_reason
        );
        assert!(report.new_bytes <= 5 * CHUNK as u64);
        assert!(report.sampled_bytes > 0);
        assert_eq!(report.sample_seed.as_ref().map(String::len), Some(16));
        assert_eq!(report.base_needed_by.as_deref(), Some("told"));
        let most = (5 + 3 * changed_blocks::samples::SAMPLES as u64) * CHUNK as u64;
        assert!(
            report.read_bytes < most.min(storage.source().size()),
            "{report:?}"
        );
        let parts = report.zero_bytes
            + report.unchanged_bytes
            + report.deduplicated_bytes
            + report.new_bytes;
        assert_eq!(parts, report.size_bytes);
        check_newest(&bed, &storage);
    }
    let history = History::of(&newest(&bed).manifest);
    assert_eq!(history.partial, 4);
}

#[test]
fn an_answer_that_is_not_whole_or_not_sound_means_a_full_read() {
    for answer in [
        Answer::Truncated,
        Answer::Miscounted,
        Answer::Reordered,
        Answer::Overlapping,
        Answer::PastTheEnd,
        Answer::Empty,
        Answer::OtherSize,
        Answer::Stalled,
    ] {
        let (bed, mut storage) = begun();
        storage.change(scatter(3, 40));
        storage.answer = answer;
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "hole-map", "{answer:?}");
        assert_eq!(report.changed_blocks_liar, None, "{answer:?}");
        check_newest(&bed, &storage);
        let named = ChangedBlocksChoice::Source("told".to_owned());
        storage.change(scatter(4, 40));
        let report = back_up(&bed, &storage, named).unwrap();
        assert!(!report.warnings.is_empty(), "{answer:?} is not told");
        check_newest(&bed, &storage);
    }
}

#[test]
fn a_source_that_gives_up_fails_the_run() {
    let (bed, mut storage) = begun();
    storage.change(scatter(3, 40));
    storage.answer = Answer::GivesUp;
    let error = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_liar_is_caught_and_the_point_is_right() {
    for (answer, changes) in [(Answer::Nothing, 5000), (Answer::NotTheStart, 5000)] {
        let (bed, mut storage) = begun();
        storage.change(scatter(9, changes));
        storage.answer = answer;
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(
            report.changed_blocks_liar.as_deref(),
            Some("told"),
            "{answer:?}"
        );
        assert_eq!(report.changed_blocks, "hole-map");
        assert!(
            report
                .warnings
                .iter()
                .any(|warning| warning.contains("did not tell"))
        );
        check_newest(&bed, &storage);
        let verdict = verdict(&bed);
        assert_eq!(verdict.source, "told");
        assert!(verdict.evidence.contains("byte"), "{verdict:?}");

        // From now on it is not asked, whatever it would say, until somebody names it.
        storage.answer = Answer::Honest;
        storage.change(scatter(10, 5));
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(report.changed_blocks, "hole-map");
        assert!(
            report.changed_blocks_reason.contains("lied"),
            "{}",
            report.changed_blocks_reason
        );
        storage.change(scatter(11, 5));
        let named = ChangedBlocksChoice::Source("told".to_owned());
        assert_eq!(
            back_up(&bed, &storage, named).unwrap().changed_blocks,
            "told"
        );
        check_newest(&bed, &storage);
        storage.change(scatter(12, 5));
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(
            report.changed_blocks, "told",
            "{}",
            report.changed_blocks_reason
        );
    }
}

#[test]
fn a_run_that_is_killed_after_a_lie_meets_it_again() {
    let (bed, mut storage) = begun();
    storage.change(scatter(9, 60));
    storage.answer = Answer::Nothing;
    let caught =
        || again_after_one_try(&bed, &storage).and_then(|again| again.lie().map(|lie| lie.offset));
    let first = caught();
    assert!(first.is_some());
    // Workers race to the first lie, but none of the runs misses it.
    for _ in 0..3 {
        assert!(caught().is_some());
    }
}

#[test]
fn a_damaged_map_of_the_parent_is_no_obstacle() {
    let (bed, storage) = begun();
    for name in bed.objects("map/") {
        crate::pipeline::testing::flip(&bed.object(&name), 200);
    }
    storage.change(scatter(3, 5));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "hole-map");
    assert!(
        report.changed_blocks_reason.contains("damaged"),
        "{}",
        report.changed_blocks_reason
    );
    check_newest(&bed, &storage);
}

#[test]
fn what_is_said_to_be_zero_is_read() {
    let (bed, mut storage) = begun();
    storage.change(scatter(5, 30));
    storage.answer = Answer::Zeros;
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    check_newest(&bed, &storage);
}

#[test]
fn random_histories_are_stored_right() {
    let seed = u64::from_le_bytes(crate::repository::ids::random());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (bed, storage) = begun();
    for round in 0..12 {
        let (count, from, len) = (random.below(200), random.below(600), random.below(60));
        storage.change(scatter(seed ^ round, count));
        storage.change(|image| {
            let from = usize::try_from(from).unwrap() * CHUNK;
            let to = (from + usize::try_from(len).unwrap() * BLOCK).min(image.len());
            image[from..to].fill(0);
        });
        let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        assert_eq!(
            report.changed_blocks, "told",
            "{}",
            report.changed_blocks_reason
        );
        check_newest(&bed, &storage);
    }
}

#[test]
fn the_round_over_everything_goes_on_where_it_stopped() {
    let (bed, storage) = begun();
    let mut before = 0;
    for round in 0..3 {
        storage.change(scatter(round, 400));
        back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
        let rolled_to = History::of(&newest(&bed).manifest).rolled_to;
        assert!(rolled_to > before, "{rolled_to} after {before}");
        before = rolled_to;
    }
}

#[test]
fn a_scan_leaves_a_base_behind() {
    let (bed, storage) = begun();
    storage.states.lock().unwrap().clear();
    storage
        .states
        .lock()
        .unwrap()
        .push(std::fs::read(&storage.path).unwrap());
    storage.change(scatter(1, 3));
    // The base that the record names is the first state of the list, which is there again: still bound by its number.
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    let scan = back_up(&bed, &storage, ChangedBlocksChoice::Scan).unwrap();
    assert_eq!(scan.changed_blocks, "scan");
    // Nobody was asked, and the next run can compare all the same.
    storage.change(scatter(2, 3));
    let report = back_up(&bed, &storage, ChangedBlocksChoice::Auto).unwrap();
    assert_eq!(report.changed_blocks, "told");
    check_newest(&bed, &storage);
}

#[test]
fn a_source_that_the_volume_does_not_have_is_refused() {
    let (bed, storage) = begun();
    let named = ChangedBlocksChoice::Source("rbd".to_owned());
    let error = back_up(&bed, &storage, named).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.hint_text().unwrap().contains("told"));
}

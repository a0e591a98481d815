//! A driver's socket: the calls as they arrive, the contract, and what happens when the driver goes away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use changed_blocks::csi::{
    BlockType, CsiSource, DriverMetadata, MetadataMessage, Notices, StopCheck,
};
use changed_blocks::{ChangedBlocks, SourceErrorKind, contract};
use csi_proto::connect;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::csi_source::server::{Asked, Item, Scripted};
use crate::csi_source::volume::Volume;
use crate::{TYPES, allocated, delta, runtime, set, source_of, target};

/// A server on a socket, and a source that asks it.
pub(crate) struct Bed {
    pub(crate) server: Scripted,
    pub(crate) source: CsiSource<DriverMetadata>,
    pub(crate) notices: Notices,
    folder: TempDir,
    runtime: Runtime,
    serving: Option<Runtime>,
}

fn secrets() -> BTreeMap<String, String> {
    BTreeMap::from([("userKey".to_owned(), "key-of-nine".to_owned())])
}

fn client(runtime: &Runtime, socket: &Path) -> DriverMetadata {
    let channel = runtime.block_on(connect::unix(socket)).unwrap();
    DriverMetadata::new(channel, "snapshot/2", secrets())
}

impl Bed {
    pub(crate) fn new(
        size: u64,
        script: impl Fn(&Asked) -> Vec<Item> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, serving) = (runtime(), runtime());
        let server = Scripted::new(script);
        let socket = folder.path().join("csi.sock");
        server.serve_driver(&serving, &socket);
        let (source, notices) = source_of(client(&runtime, &socket), size, &runtime);
        Self {
            server,
            source,
            notices,
            folder,
            runtime,
            serving: Some(serving),
        }
    }

    fn kill_the_driver(&mut self) {
        self.serving.take().unwrap().shutdown_background();
        std::fs::remove_file(self.folder.path().join("csi.sock")).unwrap();
    }

    fn start_a_driver(&mut self, script: impl Fn(&Asked) -> Vec<Item> + Send + Sync + 'static) {
        let serving = runtime();
        self.server = Scripted::new(script);
        self.server
            .serve_driver(&serving, &self.folder.path().join("csi.sock"));
        self.serving = Some(serving);
    }
}

#[test]
fn the_source_keeps_the_contract() {
    for (seed, block_type) in (1..).zip(TYPES) {
        let volume = Volume::random(seed, 5000, block_type);
        let honest = volume.clone();
        let mut bed = Bed::new(volume.size(), move |asked| honest.honest(asked, 7));
        contract::check_delta(&mut bed.source, volume.size(), &volume.set());
        contract::check_allocated(&mut bed.source, volume.size(), &volume.set());
        assert_eq!(bed.notices.all(), Vec::<String>::new());
        let client = client(&bed.runtime, &bed.folder.path().join("csi.sock"));
        let handle = bed.runtime.handle().clone();
        let mut unbound = CsiSource::new(client, target(), volume.size(), handle);
        contract::check_without_base(&mut unbound);
        assert_eq!(unbound.identity(), Some(target().identity()));
    }
}

#[test]
fn the_driver_gets_handles_offsets_and_secrets() {
    let volume = Volume::random(3, 100, BlockType::Variable);
    let last = volume.ranges.last().copied().unwrap();
    let honest = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| honest.honest(asked, 7));
    delta(&mut bed.source).unwrap();
    let first = Asked {
        number: 0,
        snapshot: "snapshot/2".to_owned(),
        base: Some("snapshot/1".to_owned()),
        offset: 0,
        max_results: 7,
        secrets: secrets(),
        ..Asked::default()
    };
    let confirming = Asked {
        number: 1,
        offset: last.0 + last.1,
        ..first.clone()
    };
    assert_eq!(bed.server.asked(), [first, confirming]);
}

#[test]
fn nothing_is_asked_about_an_empty_device() {
    let mut bed = Bed::new(0, |_| panic!("a call about nothing"));
    assert_eq!(delta(&mut bed.source).unwrap(), []);
    assert_eq!(allocated(&mut bed.source), []);
}

#[test]
fn a_driver_that_starts_again_goes_on_with_the_answer() {
    let volume = Volume::random(4, 200, BlockType::Fixed);
    let first = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| {
        let mut items = first.honest(asked, 7);
        items.truncate(2);
        items.push(Item::Hang);
        items
    });
    // Fourteen blocks are told, then the driver dies amid the stream.
    let second = volume.clone();
    let (mut blocks, mut restarted) = (Vec::new(), false);
    let client = client(&bed.runtime, &bed.folder.path().join("csi.sock"));
    let (mut source, _) = source_of(client, volume.size(), &bed.runtime);
    let summary = source
        .delta(&mut |extent| {
            blocks.push(extent);
            if !restarted {
                restarted = true;
                bed.kill_the_driver();
                let honest = second.clone();
                bed.start_a_driver(move |asked| honest.honest(asked, 7));
            }
            true
        })
        .unwrap();
    assert_eq!(summary.size.0, volume.size());
    assert_eq!(set(&blocks), volume.set());
    let offsets = bed.server.offsets();
    assert!(
        !offsets.is_empty() && offsets[0] > 0,
        "{offsets:?}: not resumed"
    );
}

#[test]
fn a_driver_that_is_gone_is_a_full_backup() {
    let volume = Volume::random(5, 100, BlockType::Fixed);
    let honest = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| honest.honest(asked, 7));
    bed.kill_the_driver();
    let error = delta(&mut bed.source).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    let reason = error.to_string();
    assert!(
        reason.ends_with("5 calls failed, 5 of them in a row"),
        "{reason}"
    );
    assert_eq!(bed.notices.all(), [format!("no delta: {reason}")]);
}

#[test]
fn a_runtime_that_could_not_answer_is_an_error_and_no_panic() {
    let volume = Volume::random(6, 100, BlockType::Fixed);
    let honest = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| honest.honest(asked, 7));
    let inside = bed.runtime.handle().clone();
    let error = {
        let _inside = inside.enter();
        delta(&mut bed.source).unwrap_err()
    };
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    let single = Builder::new_current_thread().enable_all().build().unwrap();
    let client = client(&bed.runtime, &bed.folder.path().join("csi.sock"));
    let (mut source, _) = source_of(client, volume.size(), &single);
    assert!(delta(&mut source).is_err());
}

#[test]
fn an_error_of_the_driver_shows_no_secret() {
    let long = "x".repeat(395);
    let refuses = move |asked: &Asked| {
        let text = format!("{long}key-of-nine is wrong");
        let fails = Item::Fail(csi_proto::Status::permission_denied(text));
        if asked.base.is_some() {
            vec![fails]
        } else {
            vec![Item::Message(message()), fails]
        }
    };
    let mut bed = Bed::new(1 << 20, refuses);
    let error = delta(&mut bed.source).unwrap_err().to_string();
    assert_eq!(allocated(&mut bed.source).len(), 1);
    let notices = bed.notices.all().join("\n");
    for text in [error, notices] {
        assert!(text.contains("xxx(red"), "{text}");
        assert!(!text.contains("key-"), "{text}");
    }
}

fn message() -> MetadataMessage {
    MetadataMessage {
        block_type: BlockType::Variable,
        capacity: 1 << 20,
        ranges: vec![(0, 4096)],
    }
}

#[test]
fn a_silent_driver_is_left_when_a_stop_is_asked_for() {
    for says in [vec![], vec![Item::Message(message())]] {
        let mut items = says;
        items.push(Item::Hang);
        let bed = Bed::new(1 << 20, move |_| items.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let mut source = bed
            .source
            .with_stop(StopCheck::new(move || asked.load(Relaxed)));
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while bed.server.asked().is_empty() {
                    std::thread::yield_now();
                }
                stop.store(true, Relaxed);
            });
            assert!(delta(&mut source).is_err());
        });
        // It is patient for thirty seconds otherwise.
        assert!(started.elapsed() < Duration::from_secs(25));
    }
}

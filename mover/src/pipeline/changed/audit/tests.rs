//! Answers with every kind of fault, against a byte comparison.

use std::path::Path;

use changed_blocks::source::{Capabilities, ExtentSink};
use changed_blocks::{Base, Identity, SourceError, Summary};

use super::*;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::{Blocks, DeltaSources, Source, SourceIdentity, SourceOptions};
use crate::pipeline::changed;
use crate::pipeline::restore::sample::Random;

const LEN: usize = (3 << 20) + 5 * 4096 + 700;

/// A file whose answers are given.
#[derive(Debug)]
struct Volume {
    inner: Source,
    told: Vec<Extent>,
    is_live: bool,
}

impl Volume {
    fn new(path: &Path, bytes: &[u8], told: Vec<Extent>) -> Self {
        std::fs::write(path, bytes).unwrap();
        Self {
            inner: Source::open(path, &SourceOptions::default()).unwrap(),
            told,
            is_live: false,
        }
    }
}

#[derive(Debug)]
struct Answers(Vec<Extent>, u64);

impl ChangedBlocks for Answers {
    fn capabilities(&self) -> Capabilities {
        Capabilities::without_base("given", ByteLen(1))
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::new("given").with("state", 1))
    }

    fn bind(&mut self, _: &Base<'_>) -> std::result::Result<(), SourceError> {
        Ok(())
    }

    fn allocated(
        &mut self,
        sink: &mut ExtentSink<'_>,
    ) -> std::result::Result<Summary, SourceError> {
        for extent in &self.0 {
            if !sink(*extent) {
                return Err(SourceError::full("stopped"));
            }
        }
        Ok(Summary {
            size: ByteLen(self.1),
            extents: self.0.len() as u64,
        })
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> std::result::Result<Summary, SourceError> {
        self.allocated(sink)
    }
}

impl SourceDevice for Volume {
    fn name(&self) -> String {
        SourceDevice::name(&self.inner)
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    fn hole_map(&self) -> Result<Blocks> {
        self.inner.hole_map()
    }

    fn delta_sources(&self) -> DeltaSources {
        DeltaSources::one(Box::new(Answers(self.told.clone(), self.size())))
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.inner.queue(options)
    }

    fn check_unchanged(&self) -> Result<bool> {
        Ok(!self.is_live)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> SourceIdentity {
        SourceDevice::identity(&self.inner)
    }
}

fn audited(before: Option<&[u8]>, now: &[u8], told: Vec<Extent>) -> AuditReport {
    let directory = tempfile::tempdir().unwrap();
    let target = Volume::new(&directory.path().join("now"), now, told);
    let base =
        before.map(|before| Volume::new(&directory.path().join("before"), before, Vec::new()));
    let request = ChangedRequest {
        source: &target,
        base: base
            .as_ref()
            .map(|base| (base as &dyn SourceDevice, "before")),
        who: None,
        audit: true,
    };
    let mut seen = Vec::new();
    let report = changed::run(&request, &StopFlag::default(), &mut |extent| {
        seen.push(extent);
    });
    let report = report.unwrap();
    assert_eq!(seen, target.told);
    assert_eq!(report.extents, seen.len() as u64);
    report.audit.expect("asked for")
}

fn image() -> Vec<u8> {
    (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn a_true_answer_is_exact() {
    let before = image();
    let mut now = before.clone();
    now[4096..8192].fill(1);
    now[(1 << 20) - 4096..(1 << 20) + 4096].fill(2);
    now[8192..12288].fill(0);
    now[LEN - 3] ^= 1;
    let told = vec![
        Extent::data(4096, 4096),
        Extent::zero(8192, 4096),
        Extent::data((1 << 20) - 4096, 8192),
        Extent::data((LEN - 700) as u64, 700),
    ];
    let audit = audited(Some(&before), &now, told);
    assert_eq!(
        (audit.untold_bytes, audit.wrong_zero_bytes),
        (0, 0),
        "{audit:?}"
    );
    assert_eq!(audit.true_bytes, 5 * 4096);
    assert_eq!(audit.read_bytes, 2 * LEN as u64);
    let ratio = audit.over_report.unwrap();
    assert!((0.8..=1.0).contains(&ratio), "{ratio}");
}

#[test]
fn what_is_left_out_is_found_wherever_it_is() {
    let before = image();
    for at in [0, 511, 512, (1 << 20) - 1, 1 << 20, LEN - 701, LEN - 1] {
        let mut now = before.clone();
        now[at] ^= 0x80;
        let audit = audited(Some(&before), &now, Vec::new());
        let sector = (at / SECTOR * SECTOR) as u64;
        let len = 512.min(LEN as u64 - sector);
        assert_eq!(audit.untold_bytes, len, "{at}");
        assert_eq!(audit.wrong, [(sector, len)]);
        // One byte before and behind is not enough.
        let mut told = vec![
            Extent::data(0, at as u64),
            Extent::data(at as u64 + 1, (LEN - at) as u64 - 1),
        ];
        told.retain(|extent| extent.len.0 > 0);
        assert!(audited(Some(&before), &now, told).untold_bytes > 0, "{at}");
        let told = vec![Extent::data(at as u64, 1)];
        assert_eq!(audited(Some(&before), &now, told).untold_bytes, 0, "{at}");
    }
}

#[test]
fn a_wrong_zero_and_data_called_unallocated_are_found() {
    let mut now = vec![0; LEN];
    now[4096] = 1;
    now[2 << 20] = 1;
    let told = vec![Extent::zero(0, 8192), Extent::data(65536, 4096)];
    let audit = audited(None, &now, told);
    assert_eq!((audit.wrong_zero_bytes, audit.untold_bytes), (512, 512));
    assert_eq!(audit.wrong, [(4096, 512), (2 << 20, 512)]);
    assert_eq!(audit.read_bytes, LEN as u64);
}

#[test]
fn what_is_told_too_much_is_measured() {
    let before = image();
    let mut now = before.clone();
    now[100] ^= 1;
    let audit = audited(Some(&before), &now, vec![Extent::data(0, 1 << 20)]);
    assert_eq!(audit.true_bytes, 4096);
    assert!((audit.over_report.unwrap() - 256.0).abs() < 1e-9);
    let audit = audited(Some(&before), &before, vec![Extent::data(0, 1 << 20)]);
    assert_eq!((audit.true_bytes, audit.over_report), (0, None));
}

#[test]
fn random_answers_agree_with_a_naive_comparison() {
    let seed = u64::from_le_bytes(crate::repository::ids::random());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..20 {
        let before = image();
        let mut now = before.clone();
        for _ in 0..random.below(40) {
            let at = usize::try_from(random.below(LEN as u64)).unwrap();
            now[at] ^= 1;
        }
        let (mut told, mut at) = (Vec::new(), 0);
        loop {
            at += random.below(600_000);
            let len = 1 + random.below(400_000);
            if at + len > LEN as u64 {
                break;
            }
            told.push(Extent::data(at, len));
            at += len;
        }
        let is_told = |at: usize| {
            let mut extents = told.iter();
            extents.any(|one| (one.offset.0..one.end().unwrap()).contains(&(at as u64)))
        };
        let differs: Vec<_> = (0..LEN).filter(|at| before[*at] != now[*at]).collect();
        let blocks: std::collections::BTreeSet<_> = differs
            .iter()
            .filter(|at| is_told(**at))
            .map(|at| at / 4096)
            .collect();
        let is_right = differs.iter().all(|at| is_told(*at));
        let audit = audited(Some(&before), &now, told.clone());
        assert_eq!(audit.untold_bytes == 0, is_right);
        assert_eq!(audit.true_bytes, 4096 * blocks.len() as u64);
    }
}

#[test]
fn sizes_differ_and_only_what_both_have_is_compared() {
    let before = image();
    let mut now = before.clone();
    now.truncate(LEN - 4096);
    assert_eq!(audited(Some(&before), &now, Vec::new()).untold_bytes, 0);
    let told = vec![Extent::data((LEN - 100) as u64, 50)];
    let audit = audited(Some(&now), &before, told);
    assert_eq!(audit.untold_bytes, 0);
    assert_eq!(audit.read_bytes, 2 * (LEN - 4096) as u64);
}

#[test]
fn a_state_that_somebody_writes_to_is_not_audited() {
    let directory = tempfile::tempdir().unwrap();
    let mut target = Volume::new(&directory.path().join("now"), &image(), Vec::new());
    target.is_live = true;
    let request = ChangedRequest {
        source: &target,
        base: None,
        who: None,
        audit: true,
    };
    let error = changed::run(&request, &StopFlag::default(), &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

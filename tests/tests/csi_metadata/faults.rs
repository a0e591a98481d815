//! Every fault that the driver of our own can be ordered to: the right answer, or a reason.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use changed_blocks::csi::CsiOptions;
use changed_blocks::{Extent, ExtentSet, SourceErrorKind};
use csi_proto::Code;
use tests::csi_driver::faults::{Fault, Order, Wrong};
use tests::image::MIB;
use tests::test_driver::TestDriver;

use crate::bed::{Bed, Frozen, Source, allocated, delta};
use crate::differences::{differing, not_zero};

const DELTA: &str = "GetMetadataDelta";
const ALLOCATED: &str = "GetMetadataAllocated";
const SIZE: u64 = 4 * MIB;

/// Two snapshots with some changes between them, and a driver.
pub(crate) struct Pair<'a> {
    pub(crate) bed: Bed<'a>,
    pub(crate) base: Frozen,
    pub(crate) target: Frozen,
}

impl<'a> Pair<'a> {
    /// Twenty ranges, four a message.
    pub(crate) fn new(driver: &'a TestDriver) -> Result<Self> {
        Self::with_secrets(driver, BTreeMap::new())
    }

    fn with_secrets(driver: &'a TestDriver, secrets: BTreeMap<String, String>) -> Result<Self> {
        let mut bed = Bed::new(driver, SIZE)?;
        bed.options.max_results = 4;
        bed.secrets = secrets;
        bed.write(&[1; 65536], MIB)?;
        let base = bed.freeze()?;
        let device = bed.device()?;
        for number in 0..20 {
            device.write_all_at(&[2; 4096], number * 3 * 65536)?;
        }
        drop(device);
        let target = bed.freeze()?;
        Ok(Self { bed, base, target })
    }

    pub(crate) fn changed(&self) -> ExtentSet {
        differing(&self.base.bytes, &self.target.bytes)
    }

    pub(crate) fn source(&self) -> Result<Source> {
        Ok(self.bed.bound(&self.base.id, &self.target)?.0)
    }

    /// The right answer comes in spite of it.
    fn answers(&self, what: &str) -> Result<()> {
        let told = delta(&mut self.source()?).with_context(|| what.to_owned())?;
        let told: ExtentSet = told.into_iter().collect();
        ensure!(told == self.changed(), "{what}: {told:?}");
        Ok(())
    }

    /// No answer comes, with a reason that contains `why`, and what is allocated is told.
    fn refuses(&self, what: &str, why: &str) -> Result<()> {
        let (mut source, notices) = self.bed.bound(&self.base.id, &self.target)?;
        let told = delta(&mut source).map(|told| told.len());
        let error = told.err().with_context(|| format!("{what}: an answer"))?;
        ensure!(error.kind == SourceErrorKind::FullBackup);
        ensure!(error.to_string().contains(why), "{what}: {error}");
        ensure!(notices.all() == [format!("no delta: {error}")], "{what}");
        let told: ExtentSet = allocated(&mut source)?.into_iter().collect();
        let data = not_zero(&self.target.bytes);
        ensure!(data.subtract(&told).is_empty(), "{what}: {told:?}");
        ensure!(told.bytes().0 < SIZE / 2, "{what}: everything was told");
        Ok(())
    }

    /// The whole device is told, with a notice.
    fn tells_everything(&self, what: &str) -> Result<()> {
        let (mut source, notices) = self.bed.source(&self.target);
        let told = allocated(&mut source)?;
        ensure!(told == [Extent::data(0, SIZE)], "{what}: {told:?}");
        let notices = notices.all();
        ensure!(
            notices.len() == 1 && notices[0].starts_with("the whole device is read: "),
            "{what}: {notices:?}"
        );
        Ok(())
    }
}

fn stream(wrong: Wrong, after: usize) -> Fault {
    Fault::Stream { wrong, after }
}

pub(crate) fn streams_that_end_too_early() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let pair = Pair::new(&driver)?;
    for wrong in [Wrong::Truncated, Wrong::Broken] {
        for after in 0..6 {
            driver.order(&[Order::next(DELTA, stream(wrong, after))])?;
            pair.answers(&format!("{wrong:?} once after {after}"))?;
        }
        for after in 1..4 {
            driver.order(&[Order::next(DELTA, stream(wrong, after)).times(0)])?;
            pair.answers(&format!("{wrong:?} always after {after}"))?;
        }
    }
    driver.order(&[Order::next(DELTA, stream(Wrong::Broken, 0)).times(0)])?;
    pair.refuses(
        "broken at once, always",
        "5 calls failed, 5 of them in a row",
    )?;
    // An empty answer that nobody can tell from a true one, but for its silence about the size.
    driver.order(&[Order::next(ALLOCATED, stream(Wrong::Truncated, 0)).times(0)])?;
    pair.tells_everything("truncated at once, always")?;
    driver.order(&[])?;
    pair.bed.end()
}

pub(crate) fn streams_that_are_unsound() -> Result<()> {
    let driver = TestDriver::start(|options| options.fixed = true)?;
    let pair = Pair::new(&driver)?;
    let cases = [
        (Wrong::Disorder, 0, "after one that ends at"),
        (Wrong::Disorder, 2, "after one that ends at"),
        (Wrong::Overlap, 0, "after one that ends at"),
        (Wrong::Overlap, 3, "after one that ends at"),
        (Wrong::NegativeOffset, 0, "a range at -4096"),
        (Wrong::NegativeOffset, 2, "a range at -4096"),
        (Wrong::NegativeSize, 1, "of -4096 bytes"),
        (Wrong::ZeroSize, 1, "an empty range"),
        (Wrong::PastEnd, 0, "of a volume of 4194304 bytes"),
        (Wrong::PastEnd, 2, "of a volume of 4194304 bytes"),
        (Wrong::OtherCapacity, 0, "bytes at first"),
        (Wrong::OtherCapacity, 2, "bytes at first"),
        (Wrong::NegativeCapacity, 0, "a volume of -1 bytes"),
        (Wrong::NegativeCapacity, 2, "a volume of -1 bytes"),
        (Wrong::OtherType, 2, "at first, Variable now"),
        (Wrong::OtherSize, 0, "among blocks of 2048"),
        (Wrong::OtherSize, 1, "among blocks of 4096"),
    ];
    for (wrong, after, why) in cases {
        let what = format!("{wrong:?} after {after}");
        driver.order(&[Order::next(DELTA, stream(wrong, after))])?;
        pair.refuses(&what, why)?;
        driver.order(&[Order::next(ALLOCATED, stream(wrong, after))])?;
        pair.tells_everything(&what)?;
    }
    driver.order(&[])?;
    pair.bed.end()
}

pub(crate) fn silent_streams() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let mut pair = Pair::new(&driver)?;
    pair.bed.options = CsiOptions {
        no_progress: Duration::from_millis(500),
        ..pair.bed.options
    };
    for after in [0, 2] {
        driver.order(&[Order::next(DELTA, stream(Wrong::Silent, after))])?;
        pair.refuses(&format!("silent after {after}"), "nothing new for 500ms")?;
    }
    driver.order(&[])?;
    pair.bed.end()
}

/// More is told than changed, and nothing behind the end.
pub(crate) fn a_range_across_the_end() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let pair = Pair::new(&driver)?;
    for after in [0, 2] {
        driver.order(&[Order::next(DELTA, stream(Wrong::AcrossEnd, after))])?;
        let told: ExtentSet = delta(&mut pair.source()?)?.into_iter().collect();
        ensure!(pair.changed().subtract(&told).is_empty());
        let last = told.iter().last().and_then(|extent| extent.end());
        ensure!(last == Some(SIZE), "{told:?}");
    }
    driver.order(&[])?;
    pair.bed.end()
}

pub(crate) fn calls_that_fail() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let pair = Pair::new(&driver)?;
    for code in [
        Code::Cancelled,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Internal,
        Code::Unavailable,
    ] {
        let fault = Fault::Refuse { code: code.into() };
        driver.order(&[Order::next(DELTA, fault.clone()).times(4)])?;
        pair.answers(&format!("{code:?} four times"))?;
        driver.order(&[Order::next(DELTA, fault.clone()).times(0)])?;
        pair.refuses(
            &format!("{code:?} always"),
            "5 calls failed, 5 of them in a row",
        )?;
        driver.order(&[Order::next(ALLOCATED, fault).times(0)])?;
        pair.tells_everything(&format!("{code:?} always"))?;
    }
    driver.order(&[Order::next(DELTA, Fault::Slow { ms: 200 }).times(0)])?;
    pair.answers("slow")?;
    driver.order(&[])?;
    pair.bed.end()
}

pub(crate) fn calls_that_are_refused() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let pair = Pair::new(&driver)?;
    for (code, why) in [
        (Code::InvalidArgument, "does not accept the pair"),
        (
            Code::NotFound,
            "does not have the snapshot or its base any more",
        ),
        (Code::PermissionDenied, "may not ask"),
        (Code::FailedPrecondition, "does not keep track of changes"),
        (Code::OutOfRange, "the volume does not end at 0"),
        (Code::Unimplemented, "no such call"),
        (Code::DataLoss, "gave up"),
    ] {
        let fault = Fault::Refuse { code: code.into() };
        let calls = driver.calls()?.len();
        driver.order(&[Order::next(DELTA, fault).times(0)])?;
        pair.refuses(&format!("{code:?}"), why)?;
        let calls = driver.calls()?.split_off(calls);
        let asked = calls.iter().filter(|call| call.call == DELTA).count();
        ensure!(asked == 1, "{code:?}: asked {asked} times");
    }
    driver.order(&[])?;
    pair.bed.end()
}

pub(crate) fn secrets() -> Result<()> {
    let secret = BTreeMap::from([("userKey".to_owned(), "k9".to_owned())]);
    let driver = TestDriver::start(|_| {})?;
    let pair = Pair::with_secrets(&driver, secret)?;
    pair.answers("with secrets that nobody asked for")?;
    let calls = driver.calls()?;
    let delta = calls.iter().rfind(|call| call.call == DELTA);
    let delta = delta.context("a call was recorded")?;
    let recorded = format!("{:?}", delta.subject);
    ensure!(
        recorded.contains("userKey") && !recorded.contains("k9"),
        "{recorded}"
    );
    let fault = Fault::Refuse {
        code: Code::Unauthenticated.into(),
    };
    driver.order(&[Order::next(DELTA, fault).times(0)])?;
    pair.refuses("secrets that are not accepted", "refused again")?;
    driver.order(&[])?;
    pair.bed.end()
}

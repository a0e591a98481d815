//! Stores, targets and people that end a restore early.

use std::sync::Mutex;

use super::*;
use crate::pipeline::progress::StopFlag;
use crate::pipeline::restore::plan::Run;

#[test]
fn a_closed_pipe_is_an_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bed = Bed::new();
    let key = bed.point("disk", &image(1500, 100, 22), Layout::default());
    let (context, point) = (bed.context(), load(&bed.repository, &key).unwrap().unwrap());
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(&key, Path::new("-"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let error = restore
        .to_stream(Job::new(&context, geometry, losses), Closed)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_store_that_is_down_is_no_loss() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(300, 0, 71), Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    store.add(Rule::nth(
        Operation::Get,
        "seg/",
        3,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    let context = bed.context_over(store);
    let salvage = RestoreRequest {
        salvage: true,
        ..request(&key, &bed.path("target"))
    };
    let error = run(&context, &salvage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!bed.path("target").exists());
}

#[test]
fn a_read_only_store_gives_a_warning() {
    let bed = Bed::new();
    let image = image(30, 0, 72);
    let key = bed.point("disk", &image, Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    store.add(Rule::always(
        Operation::PutOnce,
        "open/",
        Fault::Fail(ErrorKind::AccessDenied),
    ));
    let report = run(
        &bed.context_over(store),
        &request(&key, &bed.path("target")),
    )
    .unwrap();
    assert_same(&bed.path("target"), &image);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
}

#[test]
fn a_broken_restore_has_no_first_chunk_and_delta_goes_on_from_there() {
    let bed = Bed::new();
    let image = image(600, 0, 73);
    let key = bed.point("disk", &image, Layout::default());
    let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
    let last = bed.objects("seg/").pop().unwrap();
    store.add(Rule::always(
        Operation::Get,
        &last,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    let target = bed.path("target");
    fs::write(&target, &image).unwrap();
    let error = run(
        &bed.context_over(store),
        &RestoreRequest {
            force: true,
            ..request(&key, &target)
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        fs::read(&target).unwrap()[..CHUNK]
            .iter()
            .all(|byte| *byte == 0),
        "the first chunk is gone"
    );
    let report = run(
        &bed.context(),
        &RestoreRequest {
            delta: true,
            ..request(&key, &target)
        },
    )
    .unwrap();
    assert_same(&target, &image);
    assert!(report.skipped_bytes > 0, "the rest is taken over");
}

#[test]
fn a_stop_ends_every_way_of_restoring() {
    let bed = Bed::new();
    let image = image(300, 0, 74);
    let key = bed.point("disk", &image, Layout::default());
    let target = bed.path("target");
    fs::write(&target, &image).unwrap();
    let base = RestoreRequest {
        force: true,
        ..request(&key, &target)
    };
    let delta = RestoreRequest {
        delta: true,
        ..base.clone()
    };
    let odd = RestoreRequest {
        range: Some((5, 100)),
        ..base.clone()
    };
    for request in [base, delta, odd] {
        let context = bed.context();
        context.stop.stop();
        assert_eq!(
            run(&context, &request).unwrap_err().kind(),
            ErrorKind::Interrupted
        );
        // Leave that was not renewed is as good as a stop.
        let context = bed.context();
        context.stop.lapse_at(Instant::now());
        assert_eq!(
            run(&context, &request).unwrap_err().kind(),
            ErrorKind::Interrupted
        );
    }
}

/// A target whose queue fails, or whose medium forgets.
struct FaultyOutput<'a> {
    target: &'a Target,
    faults: Vec<(u64, DeviceFault)>,
    forgets: Option<u64>,
}

impl Output for FaultyOutput<'_> {
    fn is_fresh(&self) -> bool {
        self.target.is_fresh()
    }
    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let inner = self.target.queue(options)?;
        Ok(Box::new(FaultyQueue::new(
            inner,
            "target".to_owned(),
            self.faults.clone(),
        )))
    }
    fn protect(&self) -> Result<()> {
        self.target.protect()
    }
    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        self.target.settle(first_chunk)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.target.zero(offset, len)
    }
    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = self.target.read_back(offset, len)?;
        if let Some(at) = self.forgets
            && (offset..offset + len as u64).contains(&at)
        {
            bytes[usize::try_from(at - offset).unwrap()] ^= 1;
        }
        Ok(bytes)
    }
}

fn to_faulty(
    bed: &Bed,
    key: &SessionKey,
    faults: Vec<(u64, DeviceFault)>,
    forgets: Option<u64>,
) -> Error {
    let (context, point) = (bed.context(), load(&bed.repository, key).unwrap().unwrap());
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(key, &bed.path("target"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let job = Job::new(&context, geometry, losses);
    let target = Target::open(&bed.path("target"), &restore.target_options(&job)).unwrap();
    let output = FaultyOutput {
        target: &target,
        faults,
        forgets,
    };
    restore.to_output(job, &output, "target").unwrap_err()
}

#[test]
fn a_target_that_fails_ends_the_restore() {
    let bed = Bed::new();
    let mut image = image(600, 0, 81);
    image[300 * CHUNK..302 * CHUNK].fill(7);
    let key = bed.point("disk", &image, Layout::default());
    let error = to_faulty(
        &bed,
        &key,
        vec![(300 * CHUNK as u64 + 5, DeviceFault::Error)],
        None,
    );
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!bed.path("target").exists());
}

#[test]
fn a_medium_that_forgets_is_caught() {
    let bed = Bed::new();
    let mut image = image(600, 0, 82);
    image[0] = 1;
    let key = bed.point("disk", &image, Layout::default());
    for at in [3, 16 * CHUNK as u64 - 9, 599 * CHUNK as u64] {
        let error = to_faulty(&bed, &key, Vec::new(), Some(at));
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("read back"), "{error}");
        fs::remove_file(bed.path("target.partial")).unwrap();
    }
}

/// A target whose owner says stop while it zeroes for the second time.
struct StoppedOutput<'a> {
    target: &'a Target,
    stop: &'a StopFlag,
    zeroed: Mutex<Vec<u64>>,
}

impl Output for StoppedOutput<'_> {
    fn is_fresh(&self) -> bool {
        self.target.is_fresh()
    }
    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.target.queue(options)
    }
    fn protect(&self) -> Result<()> {
        self.target.protect()
    }
    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        self.target.settle(first_chunk)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let mut zeroed = self.zeroed.lock().unwrap();
        zeroed.push(len);
        if zeroed.len() == 2 {
            self.stop.stop();
        }
        self.target.zero(offset, len)
    }
    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.target.read_back(offset, len)
    }
}

#[test]
fn a_stop_is_heard_between_the_steps_of_a_run_of_zeroes() {
    const STEP: u64 = 64 << 20;
    let bed = Bed::new();
    let key = bed.point("disk", &image(30, 0, 91), Layout::default());
    fs::File::create(bed.path("target"))
        .unwrap()
        .set_len(4 * STEP)
        .unwrap();
    let (context, point) = (bed.context(), load(&bed.repository, &key).unwrap().unwrap());
    let geometry = Geometry::new(4 * STEP, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = RestoreRequest {
        force: true,
        ..request(&key, &bed.path("target"))
    };
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let job = Job::new(&context, geometry, losses);
    let target = Target::open(&bed.path("target"), &restore.target_options(&job)).unwrap();
    let output = StoppedOutput {
        target: &target,
        stop: &context.stop,
        zeroed: Mutex::default(),
    };
    let whole = Run {
        first: 0,
        count: 4 * STEP / CHUNK as u64,
    };
    direct::zero_run(&job, &output, whole).unwrap();
    assert!(
        !job.failure.goes_on(),
        "the stop is what the restore ends with"
    );
    assert_eq!(output.zeroed.into_inner().unwrap(), [STEP, STEP]);
}

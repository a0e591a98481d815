//! The driver of our own does what it was ordered to, and nothing else: tests of a backup rest on that.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use csi_proto::Code;
use csi_proto::csi::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::csi::{
    GetMetadataAllocatedRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::block;
use tests::csi_driver::faults::{Fault, Order, When, Wrong};
use tests::csi_driver::record::concurrent;
use tests::image::MIB;
use tests::test_driver::TestDriver;

const LIMIT: Duration = Duration::from_secs(60);

fn code<T>(result: Result<T>) -> Option<Code> {
    result
        .err()?
        .downcast_ref::<tonic::Status>()
        .map(tonic::Status::code)
}

/// Refused: nothing happened. Lost: it happened, and the same name finds it.
pub(crate) fn refused_and_lost() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    driver.order(&[
        Order::next("CreateVolume", Fault::Refuse { code: 10 }).about("one"),
        Order::next("CreateVolume", Fault::Lose { code: 14 })
            .about("one")
            .after(1),
    ])?;
    client.create_volume("another", MIB, None)?;
    ensure!(code(client.create_volume("one", MIB, None)) == Some(Code::Aborted));
    ensure!(client.volumes()?.len() == 1, "nothing was made");
    ensure!(code(client.create_volume("one", MIB, None)) == Some(Code::Unavailable));
    ensure!(client.volumes()?.len() == 2, "it was made");
    let volume = client.create_volume("one", MIB, None)?;
    ensure!(client.volumes()?.contains(&volume.volume_id) && client.volumes()?.len() == 2);
    let calls = driver.calls()?;
    let codes: Vec<_> = calls
        .iter()
        .filter(|call| call.subject.name == "one")
        .filter_map(|call| call.code.as_deref())
        .collect();
    ensure!(codes == ["Aborted", "Unavailable", "Ok"], "{codes:?}");
    ensure!(calls.iter().filter(|call| call.fault.is_some()).count() == 2);
    Ok(())
}

/// A driver that dies before or after the work comes back with what was done, and goes on counting.
pub(crate) fn death_and_return() -> Result<()> {
    let mut driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    let source = client.create_volume("source", MIB, None)?.volume_id;
    driver.order(&[
        Order::next("CreateSnapshot", Fault::Die { when: When::Before }),
        Order::next("CreateSnapshot", Fault::Die { when: When::After }).after(1),
    ])?;
    for expected in [0, 1] {
        ensure!(client.create_snapshot("s", &source).is_err());
        driver.restart_when_dead(LIMIT)?;
        let client = driver.client()?;
        ensure!(client.snapshots()?.len() == expected);
    }
    let client = driver.client()?;
    client.create_snapshot("s", &source)?;
    ensure!(client.snapshots()?.len() == 1);
    let images = std::fs::read_dir(driver.state().join("images"))?.count();
    ensure!(images == 2, "a volume and a snapshot have {images} images");
    Ok(())
}

/// A call that stalls is at work: another for the same volume is ABORTED, and the record shows who was at fault.
pub(crate) fn stall_and_second_call() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    let volume = client.create_volume("one", MIB, None)?;
    driver.order(&[Order::next(
        "DeleteVolume",
        Fault::Stall { when: When::Before },
    )])?;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            driver
                .client()?
                .delete_volume(&volume.volume_id)
                .context("the first")
        });
        driver.wait_for(LIMIT, |calls| {
            calls.iter().any(|call| call.call == "DeleteVolume")
        })?;
        let second = client.delete_volume(&volume.volume_id);
        ensure!(second.is_err_and(|status| status.code() == Code::Aborted));
        ensure!(client.volumes()?.len() == 1);
        driver.order(&[])?;
        first
            .join()
            .map_err(|_| anyhow::anyhow!("the first call panicked"))?
    })?;
    ensure!(client.volumes()?.is_empty());
    let pairs = concurrent(&driver.calls()?);
    ensure!(
        pairs.len() == 1 && pairs[0].0.call == "DeleteVolume",
        "{pairs:?}"
    );
    Ok(())
}

/// A caller that gives up: the work is done nevertheless, late.
pub(crate) fn slow_past_the_deadline() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    driver.order(&[Order::next("CreateVolume", Fault::Slow { ms: 2_000 })])?;
    let given_up = client.run(async {
        let mut request = tonic::Request::new(csi_proto::csi::CreateVolumeRequest {
            name: "late".to_owned(),
            volume_capabilities: vec![block()],
            ..csi_proto::csi::CreateVolumeRequest::default()
        });
        request.set_timeout(Duration::from_secs(1));
        let mut controller =
            csi_proto::csi::controller_client::ControllerClient::new(client.channel());
        controller.create_volume(request).await
    });
    let status = given_up.err().context("the deadline passes")?;
    ensure!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
    driver.wait_for(LIMIT, |calls| {
        calls
            .iter()
            .any(|call| call.call == "CreateVolume" && call.code.is_some())
    })?;
    ensure!(client.volumes()?.len() == 1);
    Ok(())
}

/// The device appears after the answer, unless nobody wants it any more; a snapshot is not ready twice.
pub(crate) fn late_and_not_ready() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    let before = driver.leaks()?;
    let volume = client.create_volume("one", MIB, None)?;
    driver.order(&[
        Order::next("NodePublishVolume", Fault::LateDevice { ms: 2_000 }),
        Order::next("CreateSnapshot", Fault::NotReady).times(2),
    ])?;
    let attached = Attached::block(&driver, "one", &volume)?;
    ensure!(!attached.path().exists(), "it is late");
    let begin = std::time::Instant::now();
    while std::fs::File::open(attached.path()).is_err() {
        ensure!(begin.elapsed() < LIMIT, "it never appears");
        std::thread::sleep(Duration::from_millis(5));
    }
    attached.detach()?;
    let ready: Vec<_> = (0..3)
        .map(|_| Ok(client.create_snapshot("s", &volume.volume_id)?.ready_to_use))
        .collect::<Result<_>>()?;
    ensure!(ready == [false, false, true], "{ready:?}");
    for snapshot in client.snapshots()? {
        client.delete_snapshot(&snapshot)?;
    }
    client.delete_volume(&volume.volume_id)?;
    let left = driver.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

const GOOD: [(i64, i64); 4] = [(0, 4096), (4096, 4096), (8192, 4096), (12288, 4096)];

/// A driver with a snapshot whose ranges are [`GOOD`].
fn driver_with_snapshot() -> Result<(TestDriver, Attached, String)> {
    let driver = TestDriver::start(|options| options.fixed = true)?;
    let client = driver.client()?;
    let volume = client.create_volume("one", MIB, None)?;
    let attached = Attached::block(&driver, "one", &volume)?;
    write(attached.path(), &[7; 4 * 4096], 0)?;
    let snapshot = client.create_snapshot("s", &volume.volume_id)?.snapshot_id;
    Ok((driver, attached, snapshot))
}

/// Ranges that are wrong, and streams that end too early, look the way they should.
pub(crate) fn spoilt_ranges() -> Result<()> {
    let (driver, _attached, snapshot) = driver_with_snapshot()?;
    let client = driver.client()?;
    let [one, two, three, four] = GOOD;
    let past = (i64::try_from(MIB)? + 8192, 4096);
    let expected: [(Wrong, &[(i64, i64)]); 10] = [
        (Wrong::Truncated, &[one, two]),
        (Wrong::Broken, &[one, two]),
        (Wrong::Disorder, &[one, two, four, three]),
        (Wrong::Overlap, &[one, two, three, three, four]),
        (Wrong::NegativeOffset, &[one, two, (-4096, 4096), four]),
        (Wrong::NegativeSize, &[one, two, (8192, -4096), four]),
        (Wrong::ZeroSize, &[one, two, (8192, 0), four]),
        (Wrong::OtherSize, &[one, two, (8192, 2048), four]),
        (Wrong::Missing, &[one, two, four]),
        (Wrong::PastEnd, &[one, two, three, four, past]),
    ];
    for (wrong, ranges) in expected {
        driver.order(&[Order::next(
            "GetMetadataAllocated",
            Fault::Stream { wrong, after: 1 },
        )])?;
        let (messages, end) = client.allocated(&snapshot, 0, 2);
        let found: Vec<_> = messages
            .iter()
            .flat_map(|message| message.ranges.clone())
            .collect();
        ensure!(found == ranges, "{wrong:?}: {found:?}");
        let broken = end
            .as_ref()
            .is_err_and(|status| status.code() == Code::Unavailable);
        ensure!(
            broken == (wrong == Wrong::Broken) && (broken || end.is_ok()),
            "{wrong:?}: {end:?}"
        );
        let (messages, _) = client.allocated(&snapshot, 0, 2);
        ensure!(
            messages
                .iter()
                .flat_map(|message| message.ranges.clone())
                .eq(GOOD),
            "after {wrong:?} all is well"
        );
    }
    Ok(())
}

/// So do messages that contradict each other, and a stream that falls silent.
pub(crate) fn spoilt_messages() -> Result<()> {
    let (driver, _attached, snapshot) = driver_with_snapshot()?;
    let client = driver.client()?;
    let size = i64::try_from(MIB)?;
    let spoilt = |wrong, after| {
        driver.order(&[Order::next("*", Fault::Stream { wrong, after })])?;
        anyhow::Ok(client.allocated(&snapshot, 0, 2).0)
    };
    let messages = spoilt(Wrong::AcrossEnd, 0)?;
    ensure!(
        messages.len() == 1 && messages[0].ranges[1] == (4096, size),
        "{messages:?}"
    );
    let messages = spoilt(Wrong::OtherType, 1)?;
    ensure!(messages[0].kind == 1 && messages[1].kind == 2);
    let messages = spoilt(Wrong::OtherCapacity, 1)?;
    ensure!(messages[0].capacity == size && messages[1].capacity > size);
    let messages = spoilt(Wrong::NegativeCapacity, 0)?;
    ensure!(messages[0].capacity == -1 && messages[1].capacity == size);

    driver.order(&[Order::next(
        "*",
        Fault::Stream {
            wrong: Wrong::Silent,
            after: 1,
        },
    )])?;
    let silent = client.run(async {
        let mut metadata = SnapshotMetadataClient::new(client.channel());
        let request = GetMetadataAllocatedRequest {
            snapshot_id: snapshot.clone(),
            max_results: 2,
            ..Default::default()
        };
        let mut stream = metadata.get_metadata_allocated(request).await?.into_inner();
        stream
            .message()
            .await?
            .context("the first message is good")?;
        let second = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
        ensure!(second.is_err(), "the second is held");
        driver.order(&[])?;
        stream
            .message()
            .await?
            .context("it comes when the order is gone")
    })?;
    ensure!(silent.block_metadata.len() == 2);
    Ok(())
}

/// Sizes that nobody knows, and a device that is shorter than its volume.
pub(crate) fn wrong_sizes() -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let client = driver.client()?;
    driver.order(&[
        Order::next("CreateVolume", Fault::UnknownSize),
        Order::next("CreateSnapshot", Fault::UnknownSize),
        Order::next("NodeStageVolume", Fault::ShortDevice { bytes: 512 }),
    ])?;
    let volume = client.create_volume("one", MIB, None)?;
    ensure!(
        volume.capacity_bytes == 0
            && client.create_volume("one", MIB, None)?.capacity_bytes == i64::try_from(MIB)?
    );
    let attached = Attached::block(&driver, "one", &volume)?;
    ensure!(std::fs::read(attached.path())?.len() == usize::try_from(MIB - 512)?);
    ensure!(client.create_snapshot("s", &volume.volume_id)?.size_bytes == 0);
    ensure!(client.create_snapshot("s", &volume.volume_id)?.size_bytes == i64::try_from(MIB)?);
    driver.order(&[Order::next(
        "*",
        Fault::Stream {
            wrong: Wrong::Truncated,
            after: 9,
        },
    )])?;
    let snapshot = client
        .snapshots()?
        .into_iter()
        .next()
        .context("there is one")?;
    client.allocated(&snapshot, 0, 0).1?;
    let calls = driver.calls()?;
    ensure!(
        calls.last().is_some_and(|call| call.fault.is_none()),
        "a stream that ended before was not spoilt"
    );
    Ok(())
}

fn write(path: &Path, bytes: &[u8], at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let device = std::fs::File::options().write(true).open(path)?;
    device.write_all_at(bytes, at)?;
    Ok(device.sync_all()?)
}

/// Attachment, contexts, secrets and handles that nobody may read anything out of.
pub(crate) fn strictness() -> Result<()> {
    let driver = TestDriver::start(|options| {
        options.attach = true;
        options.odd_handles = true;
    })?;
    let client = driver.client()?;
    let volume = client.create_volume("one", MIB, None)?;
    ensure!(
        volume.volume_id.contains('/') && volume.volume_id.contains(' '),
        "{}",
        volume.volume_id
    );
    let unattached = code(Attached::block(&driver, "one", &volume).map(drop));
    ensure!(unattached == Some(Code::InvalidArgument), "{unattached:?}");
    let context = client.controller_publish(&volume, "node-1")?;
    ensure!(
        client
            .controller_publish(&volume, "elsewhere")
            .is_err_and(|status| status.code() == Code::NotFound)
    );
    let attached = Attached::new(&driver, "one", &volume, &block(), context.clone())?;
    let in_use = client.controller_unpublish(&volume.volume_id, "node-1");
    ensure!(in_use.is_err_and(|status| status.code() == Code::FailedPrecondition));
    ensure!(
        client
            .delete_volume(&volume.volume_id)
            .is_err_and(|status| status.code() == Code::FailedPrecondition)
    );
    second_target(&driver, &volume, context)?;
    attached.detach()?;
    client.controller_unpublish(&volume.volume_id, "")?;
    client.delete_volume(&volume.volume_id)?;

    let secretive = TestDriver::start(|options| {
        options.secrets.insert("user".to_owned(), "hush".to_owned());
    })?;
    let refused = code(secretive.client()?.create_volume("one", MIB, None));
    ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");
    Ok(())
}

fn second_target(
    driver: &TestDriver,
    volume: &csi_proto::csi::Volume,
    publish_context: std::collections::BTreeMap<String, String>,
) -> Result<()> {
    let folder = driver.kubelet().join("one");
    let request = NodePublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        publish_context: publish_context.clone(),
        staging_target_path: folder.join("staging").display().to_string(),
        target_path: folder.join("second").display().to_string(),
        volume_capability: Some(block()),
        ..NodePublishVolumeRequest::default()
    };
    let second = driver.client()?.publish(request);
    ensure!(second.is_err_and(|status| status.code() == Code::FailedPrecondition));
    let elsewhere = NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        publish_context,
        staging_target_path: driver.kubelet().display().to_string(),
        volume_capability: Some(block()),
        ..NodeStageVolumeRequest::default()
    };
    ensure!(
        driver
            .client()?
            .stage(elsewhere)
            .is_err_and(|status| status.code() == Code::AlreadyExists)
    );
    Ok(())
}

/// Killed while a volume is attached: everything can be undone afterwards.
pub(crate) fn killed_while_attached() -> Result<()> {
    let mut driver = TestDriver::start(|_| {})?;
    let before = driver.leaks()?;
    let volume = driver.client()?.create_volume("one", MIB, None)?;
    driver.order(&[Order::next(
        "NodePublishVolume",
        Fault::Die { when: When::After },
    )])?;
    ensure!(Attached::block(&driver, "one", &volume).is_err());
    driver.restart_when_dead(LIMIT)?;
    let left = driver.leaks()?.since(&before);
    for part in ["loop device", "mount", "path", "volume"] {
        ensure!(
            left.iter().any(|line| line.starts_with(part)),
            "no {part} in {left:?}"
        );
    }
    let client = driver.client()?;
    let folder = driver.kubelet().join("one");
    client.unpublish(&volume.volume_id, &folder.join("target"))?;
    client.unstage(&volume.volume_id, &folder.join("staging"))?;
    client.unstage(&volume.volume_id, &folder.join("staging"))?;
    std::fs::remove_dir_all(folder)?;
    client.delete_volume(&volume.volume_id)?;
    let left = driver.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

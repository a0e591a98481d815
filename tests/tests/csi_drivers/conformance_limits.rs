//! SnapshotMetadata against its specification: what is refused, sizes, load, and callers that go away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use csi_proto::Code;
use csi_proto::csi::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::csi::{
    CapacityRange, ControllerExpandVolumeRequest, GetMetadataAllocatedRequest,
    NodeExpandVolumeRequest,
};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::Stream;
use tests::image::MIB;
use tests::test_driver::TestDriver;

use crate::conduct::Conduct;
use crate::subject::{Subject, completes};

const LIMIT: Duration = Duration::from_secs(60);

fn code((_, end): &Stream) -> Code {
    end.as_ref().err().map_or(Code::Ok, tonic::Status::code)
}

/// A call, what came of it, and what should have.
type Refusal = (&'static str, Code, Code);

/// The codes of the specification; where a driver has others, exactly those.
pub(crate) fn refusals(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let mut subject = Subject::new(plugin, "refusals", MIB)?;
    let one = subject.snapshot("one")?;
    subject.write(0, &[1; 4096])?;
    let two = subject.snapshot("two")?;
    let other = Subject::new(plugin, "other", MIB)?;
    let foreign = other.snapshot("foreign")?;
    let mut found = names(&subject, (&one.id, &two.id), &foreign.id);
    found.extend(offsets(&subject, conduct, (&one.id, &two.id)));
    for (what, code, wanted) in found {
        ensure!(code == wanted, "{what}: {code:?}, not {wanted:?}");
    }
    subject.client.delete_snapshot(&one.id)?;
    let gone = subject.client.delta(&one.id, &two.id, 0, 0);
    ensure!(code(&gone) == Code::NotFound, "the base is gone");
    other.end(vec![foreign])?;
    subject.end(vec![two])
}

fn names(subject: &Subject, (one, two): (&str, &str), foreign: &str) -> Vec<Refusal> {
    let allocated = |id: &str| code(&subject.client.allocated(id, 0, 0));
    let delta = |base: &str, target: &str| code(&subject.client.delta(base, target, 0, 0));
    vec![
        ("no snapshot", allocated(""), Code::InvalidArgument),
        ("unknown snapshot", allocated("nobody"), Code::NotFound),
        ("no base", delta("", two), Code::InvalidArgument),
        ("no target", delta(one, ""), Code::InvalidArgument),
        ("unknown base", delta("nobody", two), Code::NotFound),
        ("unknown target", delta(one, "nobody"), Code::NotFound),
        ("another volume", delta(foreign, two), Code::InvalidArgument),
    ]
}

fn offsets(subject: &Subject, conduct: Conduct, (one, two): (&str, &str)) -> Vec<Refusal> {
    let end = i64::try_from(MIB).unwrap_or(i64::MAX);
    let (beyond, swapped) = if conduct.hostpath {
        (Code::Ok, Code::Ok)
    } else {
        (Code::OutOfRange, Code::InvalidArgument)
    };
    let client = &subject.client;
    let mut found = vec![
        ("swapped", code(&client.delta(two, one, 0, 0)), swapped),
        (
            "negative offset",
            code(&client.allocated(two, -1, 0)),
            Code::OutOfRange,
        ),
        (
            "negative offset of a delta",
            code(&client.delta(one, two, -4096, 0)),
            Code::OutOfRange,
        ),
        ("at the end", code(&client.allocated(two, end, 0)), Code::Ok),
        (
            "beyond the end",
            code(&client.allocated(two, end + 1, 0)),
            beyond,
        ),
        (
            "beyond the end of a delta",
            code(&client.delta(one, two, end + 4096, 0)),
            beyond,
        ),
    ];
    if !conduct.hostpath {
        found.push((
            "negative max_results",
            code(&client.allocated(two, 0, -1)),
            Code::InvalidArgument,
        ));
    }
    found
}

/// csi-driver-host-path alone: what tests of backups must expect of it, asserted so that a newer one is noticed.
pub(crate) fn deviations(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let mut subject = Subject::new(plugin, "deviations", MIB)?;
    subject.write(0, &[1; 8192])?;
    let still = subject.snapshot("one")?;
    let (messages, _) = subject.client.allocated(&still.id, 512, 0);
    let last = messages
        .iter()
        .flat_map(|message| &message.ranges)
        .next_back()
        .context("there are ranges")?;
    ensure!(
        *last == (i64::try_from(MIB)? - 4096, 4096),
        "a false last range: {messages:?}"
    );
    ensure!(subject.allocated(conduct, &still, 0, 0)? == vec![(0, 8192)]);

    let asked = MIB + 512;
    let volume = subject.client.create_volume("odd", asked, None)?;
    let odd = Attached::block(plugin, "odd", &volume)?;
    let size = std::io::Seek::seek(
        &mut std::fs::File::open(odd.path())?,
        std::io::SeekFrom::End(0),
    )?;
    ensure!(
        volume.capacity_bytes == i64::try_from(asked)? && size == MIB,
        "the device is smaller than the volume"
    );
    odd.detach()?;
    subject.client.delete_volume(&volume.volume_id)?;

    subject.write(MIB / 2, &[2; 4096])?;
    let client = plugin.client()?;
    let stream = client.run(async {
        let mut metadata = SnapshotMetadataClient::new(client.channel());
        let request = GetMetadataAllocatedRequest {
            snapshot_id: still.id.clone(),
            max_results: -1,
            ..Default::default()
        };
        tokio::time::timeout(Duration::from_millis(300), async {
            metadata
                .get_metadata_allocated(request)
                .await?
                .into_inner()
                .message()
                .await
        })
        .await
    });
    ensure!(stream.is_err(), "a negative max_results is never answered");
    subject.end(vec![still])
}

/// A size that is no multiple of the unit, and a volume that grows between two snapshots.
pub(crate) fn tails_and_growth(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let mut subject = Subject::new(plugin, "tails", MIB + 512)?;
    subject.write(MIB, &[7; 512])?;
    let small = subject.snapshot("small")?;
    ensure!(subject.allocated(conduct, &small, 0, 0)? == vec![(MIB, MIB + 512)]);
    subject.write(0, &[8; 4096])?;
    let grown = 2 * MIB;
    let range = Some(CapacityRange {
        required_bytes: i64::try_from(grown)?,
        limit_bytes: 0,
    });
    let client = plugin.client()?;
    client.run(async {
        let volume_id = subject.volume.volume_id.clone();
        let mut controller =
            csi_proto::csi::controller_client::ControllerClient::new(client.channel());
        let request = ControllerExpandVolumeRequest {
            volume_id: volume_id.clone(),
            capacity_range: range,
            ..Default::default()
        };
        let answer = controller
            .controller_expand_volume(request)
            .await?
            .into_inner();
        ensure!(answer.node_expansion_required, "the device is in use");
        let mut node = csi_proto::csi::node_client::NodeClient::new(client.channel());
        let volume_path = subject.device().display().to_string();
        let request = NodeExpandVolumeRequest {
            volume_id,
            volume_path,
            capacity_range: range,
            ..Default::default()
        };
        node.node_expand_volume(request).await?;
        Ok(())
    })?;
    subject.content.resize(usize::try_from(grown)?, 0);
    subject.write(grown - 4096, &[9; 4096])?;
    let large = subject.snapshot("large")?;
    let delta = subject.delta(conduct, (&small, &large), 0, 0)?;
    completes(&small.content, &large.content, &delta)?;
    ensure!(delta == vec![(0, 4096), (grown - 4096, grown)], "{delta:?}");
    subject.end(vec![small, large])
}

/// Two readers at once while a volume made from the snapshot is attached: the answers are those of one reader alone.
pub(crate) fn at_the_same_time(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let mut subject = Subject::new(plugin, "concurrent", MIB)?;
    for block in (0..MIB / 4096).step_by(2) {
        let byte = u8::try_from(block % 251)? + 1;
        subject.content[usize::try_from(block * 4096)?] = byte;
    }
    let content = std::mem::take(&mut subject.content);
    subject.content = vec![0; content.len()];
    for block in (0..content.len() / 4096).step_by(2) {
        subject.write(
            u64::try_from(block * 4096)?,
            &content[block * 4096..(block + 1) * 4096],
        )?;
    }
    let still = subject.snapshot("one")?;
    let alone = subject.allocated(conduct, &still, 0, 1)?;
    ensure!(alone.len() == content.len() / 8192);
    let copy = subject.client.create_volume("copy", MIB, Some(&still.id))?;
    let attached = Attached::block(plugin, "copy", &copy)?;
    std::thread::scope(|scope| {
        let clients = [plugin.client()?, plugin.client()?];
        let readers = clients.map(|client| {
            let id = still.id.clone();
            scope.spawn(move || client.allocated(&id, 0, 1))
        });
        ensure!(
            std::fs::read(attached.path())? == still.content,
            "the copy reads while metadata are served"
        );
        for reader in readers {
            let stream = reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            ensure!(crate::subject::sound(&stream, conduct, &still, 0, 1)? == alone);
        }
        Ok(())
    })?;
    attached.detach()?;
    subject.client.delete_volume(&copy.volume_id)?;
    subject.end(vec![still])
}

/// More ranges than one message may carry; and a caller that goes away in the middle ends the scan.
pub(crate) fn many_ranges_and_cancel() -> Result<()> {
    const SECTORS: usize = 104_000;
    let driver = TestDriver::start(|options| (options.fixed, options.granularity) = (true, 512))?;
    let size = u64::try_from(SECTORS * 512)?;
    let mut subject = Subject::new(&driver, "many", size)?;
    subject.write(0, &vec![1; SECTORS * 512])?;
    let still = subject.snapshot("one")?;
    let (messages, end) = subject.client.allocated(&still.id, 0, 0);
    ensure!(
        end.is_ok()
            && messages
                .iter()
                .map(|message| message.ranges.len())
                .sum::<usize>()
                == SECTORS
    );
    ensure!(subject.allocated(Conduct::ours(512, true), &still, 0, 0)? == vec![(0, size)]);
    let client = driver.client()?;
    client.run(async {
        let mut metadata = SnapshotMetadataClient::new(client.channel());
        let request = GetMetadataAllocatedRequest {
            snapshot_id: still.id.clone(),
            max_results: 1,
            ..Default::default()
        };
        let mut stream = metadata.get_metadata_allocated(request).await?.into_inner();
        stream.message().await?.context("a first message")?;
        anyhow::Ok(())
    })?;
    driver.wait_for(LIMIT, |calls| {
        calls
            .last()
            .is_some_and(|call| call.code.as_deref() == Some("Cancelled"))
    })?;
    subject.end(vec![still])
}

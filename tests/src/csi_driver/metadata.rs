//! The SnapshotMetadata service.
//!
//! Owns: validation, messages of the size that was asked for, the end of a scan whose caller is gone. Must not: read images.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use csi_proto::csi::snapshot_metadata_server::SnapshotMetadata;
use csi_proto::csi::{
    BlockMetadata, BlockMetadataType, GetMetadataAllocatedRequest,
    GetMetadataAllocatedResponse as Message, GetMetadataDeltaRequest, GetMetadataDeltaResponse,
};
use csi_proto::{Code, Status};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response};

use super::Service;
use super::controller::{need, signed};
use super::core::{Begun, Core};
use super::describe::Describe;
use super::faults::{Fault, Order};
use super::scan::{self, Still};
use super::state::{Snapshot, internal};
use super::tamper::{Fate, spoil};

/// Ranges a message where the caller has no wish.
const DEFAULT_RESULTS: usize = 256;
/// Messages that wait for a slow caller.
const AHEAD: usize = 2;

type Stream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SnapshotMetadata for Service {
    type GetMetadataAllocatedStream = ReceiverStream<Result<Message, Status>>;
    type GetMetadataDeltaStream = Stream<GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = request.into_inner();
        let receiver = stream(&self.0, &request, || {
            need(&request.snapshot_id, "the snapshot")?;
            let snapshot = self
                .0
                .store
                .read(|state| state.snapshot(&request.snapshot_id).cloned())?;
            Plan::new(
                &self.0,
                None,
                &snapshot,
                request.starting_offset,
                request.max_results,
            )
        });
        Ok(Response::new(ReceiverStream::new(receiver.await?)))
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = request.into_inner();
        let receiver = stream(&self.0, &request, || {
            need(&request.base_snapshot_id, "the base")?;
            need(&request.target_snapshot_id, "the target")?;
            let (base, target) = self.0.store.read(|state| {
                let target = state.snapshot(&request.target_snapshot_id)?.clone();
                let base = state.base(&request.base_snapshot_id, &target)?.clone();
                Ok((base, target))
            })?;
            if base.volume != target.volume {
                return Err(Status::invalid_argument(
                    "base and target are snapshots of two volumes",
                ));
            }
            if base.number > target.number {
                return Err(Status::invalid_argument("the base is the later snapshot"));
            }
            Plan::new(
                &self.0,
                Some(&base),
                &target,
                request.starting_offset,
                request.max_results,
            )
        });
        let messages = ReceiverStream::new(receiver.await?).map(|message| {
            message.map(
                |Message {
                     block_metadata_type,
                     volume_capacity_bytes,
                     block_metadata,
                 }| GetMetadataDeltaResponse {
                    block_metadata_type,
                    volume_capacity_bytes,
                    block_metadata,
                },
            )
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// A request that was found good.
#[derive(Debug)]
struct Plan {
    base: Option<Still>,
    image: Still,
    capacity: u64,
    from: u64,
    unit: u64,
    fixed: bool,
    results: usize,
}

impl Plan {
    fn new(
        core: &Core,
        base: Option<&Snapshot>,
        target: &Snapshot,
        from: i64,
        results: i32,
    ) -> Result<Self, Status> {
        let from = u64::try_from(from).ok().filter(|from| *from <= target.size);
        let from =
            from.ok_or_else(|| Status::out_of_range("starting_offset is not within the volume"))?;
        let results = usize::try_from(results)
            .map_err(|_| Status::invalid_argument("max_results is negative"))?;
        let open = |image: &str| {
            Still::open(&core.store.image(image)).map_err(|error| internal(error.into()))
        };
        Ok(Self {
            base: base.map(|base| open(&base.image)).transpose()?,
            image: open(&target.image)?,
            capacity: target.size,
            from,
            unit: core.options.granularity,
            fixed: core.options.fixed,
            results: if results == 0 {
                DEFAULT_RESULTS
            } else {
                results
            },
        })
    }

    /// Hands over every message, in order. A caller who asks at the very end has everything.
    fn messages(&self, hand: &mut dyn FnMut(Message) -> ControlFlow<()>) -> std::io::Result<()> {
        if self.from == self.capacity {
            return Ok(());
        }
        let mut ranges = Vec::new();
        let mut ended = false;
        let mut sink = |range: Range<u64>| {
            for part in self.parts(range) {
                ranges.push(part);
                if ranges.len() == self.results
                    && hand(self.message(std::mem::take(&mut ranges))).is_break()
                {
                    ended = true;
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        match &self.base {
            None => scan::allocated(&self.image, self.from, self.unit, &mut sink)?,
            Some(base) => scan::delta(base, &self.image, self.from, self.unit, &mut sink)?,
        }
        if !ended && !ranges.is_empty() {
            let _ = hand(self.message(ranges));
        }
        Ok(())
    }

    /// A range as it is sent: blocks of one size, of which the last may pass the end, or one piece within the volume.
    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = BlockMetadata> + use<> {
        let (step, end) = if self.fixed {
            (self.unit, range.end)
        } else {
            (u64::MAX, range.end.min(self.capacity))
        };
        let mut at = range.start;
        std::iter::from_fn(move || {
            let size = step.min(end.checked_sub(at).filter(|left| *left > 0)?);
            let part = BlockMetadata {
                byte_offset: signed(at),
                size_bytes: signed(size),
            };
            at += size;
            Some(part)
        })
    }

    fn message(&self, block_metadata: Vec<BlockMetadata>) -> Message {
        let kind = if self.fixed {
            BlockMetadataType::FixedLength
        } else {
            BlockMetadataType::VariableLength
        };
        Message {
            block_metadata_type: kind.into(),
            volume_capacity_bytes: signed(self.capacity),
            block_metadata,
        }
    }
}

type Sender = mpsc::Sender<Result<Message, Status>>;

/// Begins the stream of a request that `plan` finds good; it is recorded until its last message is taken or its caller is gone.
async fn stream<R: Describe>(
    core: &Arc<Core>,
    request: &R,
    plan: impl FnOnce() -> Result<Plan, Status>,
) -> Result<mpsc::Receiver<Result<Message, Status>>, Status> {
    let begun = core.begin(R::CALL, &request.subject())?;
    let ready = async {
        core.check_secrets(request)?;
        core.echo(begun.order.as_ref(), request)?;
        core.before(begun.order.as_ref()).await?;
        plan()
    };
    let plan = match ready.await {
        Ok(plan) => plan,
        Err(status) => {
            core.end(&begun, status.code())?;
            return Err(status);
        }
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (core, runtime) = (Arc::clone(core), tokio::runtime::Handle::current());
    let mut begun = begun;
    tokio::task::spawn_blocking(move || {
        let (code, count) = send_all(&core, &begun, &plan, &sender, &runtime);
        begun.order = begun
            .order
            .filter(|order| !matches!(order.fault, Fault::Stream { after, .. } if after >= count));
        // Recorded before the stream ends, so that whoever saw the end finds it in the record.
        let recorded = core.end(&begun, code);
        drop(sender);
        recorded
    });
    Ok(receiver)
}

/// Sends all messages, spoilt as ordered; gives the code with which the stream ends, and how many messages there were.
fn send_all(
    core: &Core,
    begun: &Begun,
    plan: &Plan,
    sender: &Sender,
    runtime: &tokio::runtime::Handle,
) -> (Code, usize) {
    let mut code = Code::Ok;
    let mut count = 0;
    let scanned = plan.messages(&mut |message| {
        let fate = fate(begun.order.as_ref(), count, message);
        count += 1;
        let (message, last) = match fate {
            Fate::Sent(message) => (message, false),
            Fate::Last(message) => (message, true),
            Fate::Cut => return ControlFlow::Break(()),
            Fate::Broken => {
                code = Code::Unavailable;
                return ControlFlow::Break(());
            }
            Fate::Held(message) => {
                if let Some(order) = &begun.order {
                    runtime.block_on(async {
                        tokio::select! {
                            () = core.stall(order) => {}
                            () = sender.closed() => {}
                        }
                    });
                }
                (message, false)
            }
        };
        if sender.blocking_send(Ok(message)).is_err() {
            code = Code::Cancelled;
            return ControlFlow::Break(());
        }
        if last {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if scanned.is_err() {
        code = Code::Internal;
    }
    if !matches!(code, Code::Ok | Code::Cancelled) {
        let _ = sender.blocking_send(Err(Status::new(code, "the stream broke")));
    }
    (code, count)
}

fn fate(order: Option<&Order>, count: usize, message: Message) -> Fate {
    match order.map(|order| &order.fault) {
        Some(Fault::Stream { wrong, after }) if count == *after => spoil(*wrong, message),
        _ => Fate::Sent(message),
    }
}

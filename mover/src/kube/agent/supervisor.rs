//! Looks after one order: takes it, has a thread carry it out, tells how far it is, and answers.
//!
//! Owns: what is written when. Must not: move data, or wait where a stop would not be heard.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::kube::Client;
use ::kube::api::Api;
use ::kube::runtime::events::{Event, EventType, Recorder};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::changed::Services;
use super::conclusion;
use super::leave;
use super::metrics::{AgentMetrics, Moved, StageSums};
use super::share::Budget;
use super::status::{StatusWriter, Written, now};
use super::transfer::{Finished, Success, Transfer};
use super::work::{Kind, RepositoryName, Task, Work, unreadable};
use super::{AgentOptions, TICK};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::RepositoryAccess;
use crate::kube::answer::failed;
use crate::kube::api::backup::PodVolumeBackup;
use crate::kube::api::transfer::{TransferState, TransferStatus};
use crate::pipeline::progress::{Progress, StopFlag};

/// What all supervisors share.
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) options: AgentOptions,
    pub(super) metrics: Arc<AgentMetrics>,
    pub(super) recorder: Recorder,
}

/// Why something that runs has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The order says so.
    Order(String),
    /// The agent ends.
    Drain,
    /// The holder of the device went away.
    HolderLost,
    /// The order is another attempt's, another node's, or gone.
    Superseded,
    /// The API server did not confirm the order for too long: somebody else may have it.
    CutOff,
}

/// Stops one transfer; the first cause counts.
#[derive(Debug, Default)]
pub(super) struct Stopper {
    flag: StopFlag,
    cause: Mutex<Option<(Cause, Instant)>>,
}

impl Stopper {
    pub(super) fn stop(&self, cause: Cause) {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| (cause, Instant::now()));
        self.flag.stop();
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.stopped().map(|(cause, _)| cause)
    }

    /// What the data plane looks at.
    pub(super) fn flag(&self) -> &StopFlag {
        &self.flag
    }

    fn stopped(&self) -> Option<(Cause, Instant)> {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the agent has to answer now, because it ends before the transfer does: a store that is slow may hold it up.
    fn is_out_of_time(&self, grace: Duration) -> bool {
        self.stopped()
            .is_some_and(|(cause, at)| cause == Cause::Drain && at.elapsed() >= grace / 2)
    }

    /// Whether nobody waits for an answer any more. Who drains tries to the end of his grace period.
    fn is_pointless(&self) -> bool {
        self.cause() == Some(Cause::Superseded)
    }
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) uid: String,
    pub(super) attempt: i64,
}

/// Looks after an order from here to its answer.
pub(super) async fn run(
    desk: &Desk,
    work: &Work,
    stopper: &Arc<Stopper>,
    budget: Option<Budget>,
) -> Ended {
    let writer = StatusWriter::new(&desk.client, work);
    let supervisor = Supervisor {
        desk,
        work,
        stopper,
        writer,
    };
    match supervisor.take_up(budget).await {
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, name = work.name, "an order could not be answered"),
    }
    Ended {
        uid: work.uid.clone(),
        attempt: work.order.attempt,
    }
}

struct Supervisor<'a> {
    desk: &'a Desk,
    work: &'a Work,
    stopper: &'a Arc<Stopper>,
    writer: StatusWriter,
}

impl Supervisor<'_> {
    async fn take_up(&self, budget: Option<Budget>) -> Result<()> {
        if self.stopper.cause().is_none() && !self.begin().await? {
            return Ok(());
        }
        let finished = self.carry_out(budget).await;
        self.conclude(&finished).await
    }

    /// Says that the work is taken; whether it is still wanted.
    async fn begin(&self) -> Result<bool> {
        let running = json!({ "transfer": {
            "attempt": self.work.order.attempt,
            "state": TransferState::Running,
            "errorKind": Value::Null,
            "message": Value::Null,
            "baseNeeded": Value::Null,
            "lastProgress": now(),
        }});
        let stopper = self.stopper;
        let written = self
            .writer
            .insist(&running, || stopper.cause().is_some())
            .await?;
        Ok(written == Written::Yes)
    }

    /// Everything between taking the order and its answer.
    async fn carry_out(&self, budget: Option<Budget>) -> Finished {
        match self.prepare(budget).await {
            Ok(transfer) => self.in_thread(transfer).await,
            Err(error) => failed_early(error),
        }
    }

    async fn prepare(&self, budget: Option<Budget>) -> Result<Transfer> {
        self.stopper.flag.check()?;
        if let Task::Unreadable(why) = &self.work.task {
            return Err(unreadable(why));
        }
        let budget = budget.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "carry out an order that was to be declined",
            )
        })?;
        let name = self.repository().await?;
        let options = &self.desk.options;
        let access =
            RepositoryAccess::by_name(&self.desk.client, &options.system_namespace, &name).await?;
        Ok(Transfer {
            work: self.work.clone(),
            access,
            bandwidth: options.bandwidth,
            holder_directory: options.holder_directory.clone(),
            budget,
            progress: Arc::default(),
            stop: self.stopper.flag.clone(),
            services: Services {
                client: self.desk.client.clone(),
                system_namespace: options.system_namespace.clone(),
                address: options.metadata_address.clone(),
                runtime: tokio::runtime::Handle::current(),
            },
        })
    }

    async fn repository(&self) -> Result<String> {
        match &self.work.repository {
            RepositoryName::Given(name) => Ok(name.clone()),
            RepositoryName::OfBackup(backup) => {
                let client = self.desk.client.clone();
                let backups: Api<PodVolumeBackup> = Api::namespaced(client, &self.work.namespace);
                let found = backups.get(backup).await;
                let found = found.map_err(|error| failed("read the backup", backup, error))?;
                Ok(found.spec.repository_ref.name)
            }
            RepositoryName::Nowhere => Err(Error::new(
                ErrorKind::InvalidRequest,
                "restore without a repository",
            )),
        }
    }

    /// Runs the transfer in a thread and tells how far it is meanwhile.
    async fn in_thread(&self, transfer: Transfer) -> Finished {
        let progress = Arc::clone(&transfer.progress);
        let (done, mut outcome) = oneshot::channel();
        let lost = Arc::clone(self.stopper);
        let thread = std::thread::Builder::new()
            .name("transfer".to_owned())
            .spawn(move || {
                let finished = transfer.run(move || lost.stop(Cause::HolderLost));
                // Nobody listens only if the agent is already ending.
                let _ = done.send(finished);
            });
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                let why = Error::new(ErrorKind::Io, "start a thread").source(error);
                return failed_early(why);
            }
        };
        let mut teller = Teller::new(self, progress);
        let mut tick = tokio::time::interval(TICK);
        let mut due = Instant::now() + self.pause();
        let confirming = leave::keep(&self.writer, self.work.kind, self.stopper);
        tokio::pin!(confirming);
        let finished = loop {
            tokio::select! {
                finished = &mut outcome => break finished.ok(),
                () = &mut confirming => {}
                _ = tick.tick() => {}
            }
            if self.stopper.is_out_of_time(self.desk.options.grace) {
                // The thread ends with the process. Should it commit before, the next attempt finds the point.
                return failed_early(Error::new(
                    ErrorKind::Interrupted,
                    "stop a transfer in time",
                ));
            }
            if Instant::now() >= due {
                tokio::select! {
                    () = teller.tell() => {}
                    () = &mut confirming => {}
                }
                due = Instant::now() + self.pause();
            }
        };
        teller.count();
        let stages = self.desk.metrics.stages();
        stages.observe_engine(teller.progress.engine());
        drop(teller);
        // It has sent its result, or panicked: either way it ends now.
        let joined = thread.join();
        match (finished, joined) {
            (Some(finished), Ok(())) => finished,
            _ => failed_early(
                Error::new(ErrorKind::Internal, "stop on a bug of ours").hint(
                    "please report this with the agent's log; points made earlier are not affected",
                ),
            ),
        }
    }

    /// Agents of many nodes that began together shall not report together.
    fn pause(&self) -> Duration {
        let spread = u32::from(crate::repository::ids::random::<1>()[0]);
        let every = self.desk.options.report_every;
        every + every / 4 * spread / 256
    }

    async fn conclude(&self, finished: &Finished) -> Result<()> {
        let (metrics, kind) = (&self.desk.metrics, self.work.kind);
        metrics.observe_phases(kind, &finished.phases);
        if let Some(requests) = &finished.requests {
            metrics.observe_store(requests);
        }
        let cause = self.stopper.cause();
        let attempt = self.work.order.attempt;
        let fields = match &finished.result {
            Ok(success) => {
                metrics.observe_success(success);
                fields_of(success, attempt)
            }
            Err(error) => {
                tracing::warn!(%error, ?cause, name = self.work.name, "a transfer ended early");
                let answer = conclusion::of_failure(attempt, error, cause.as_ref());
                let Some(answer) = answer else {
                    metrics.observe_end(kind, "superseded");
                    return Ok(());
                };
                json!({ "transfer": with_nulls(&answer) })
            }
        };
        let state = fields["transfer"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        metrics.observe_end(kind, result_word(&state));
        let stopper = self.stopper;
        let written = self
            .writer
            .insist(&fields, || stopper.is_pointless())
            .await?;
        if written == Written::Yes {
            let note = fields["transfer"]["message"].as_str().map(str::to_owned);
            self.tell(&state, note).await;
        }
        Ok(())
    }

    /// An event is for people; who cannot send one goes without.
    async fn tell(&self, state: &str, note: Option<String>) {
        let is_fine = matches!(state, "Succeeded" | "Stopped");
        let event = Event {
            type_: if is_fine {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: format!("Transfer{state}"),
            note,
            action: "Transfer".to_owned(),
            secondary: None,
        };
        let about = self.writer.reference();
        if let Err(error) = self.desk.recorder.publish(&event, &about).await {
            tracing::warn!(%error, "send an event");
        }
    }
}

fn failed_early(error: Error) -> Finished {
    Finished {
        result: Err(error),
        phases: Vec::new(),
        requests: None,
    }
}

/// The word of the metric, from a closed set.
fn result_word(state: &str) -> &'static str {
    match state {
        "Succeeded" => "succeeded",
        "Stopped" => "stopped",
        "Interrupted" => "interrupted",
        _ => "failed",
    }
}

/// Fields that are absent are taken away: an answer stands for itself, whatever was said before.
fn with_nulls(answer: &TransferStatus) -> Value {
    json!({
        "attempt": answer.attempt,
        "state": answer.state,
        "errorKind": answer.error_kind,
        "message": answer.message,
        "baseNeeded": answer.base_needed,
    })
}

/// The agent's part of a status after success.
fn fields_of(success: &Success, attempt: i64) -> Value {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let progress = |size: u64| json!({ "totalBytes": bytes(size), "bytesDone": bytes(size) });
    let transfer = |warnings: &[String], base_needed: Option<bool>| {
        let mut answer = with_nulls(&TransferStatus {
            attempt,
            state: TransferState::Succeeded,
            message: conclusion::of_warnings(warnings),
            base_needed,
            ..TransferStatus::default()
        });
        answer["lastProgress"] = Value::from(now());
        answer
    };
    match success {
        Success::Backup(report, point) => json!({
            "transfer": transfer(&report.warnings, Some(report.base_needed_by.is_some())),
            "progress": progress(report.size_bytes),
            "point": point,
            "incrementalBytes": bytes(report.new_bytes),
            "changedBlocks": { "source": report.changed_blocks, "reason": report.changed_blocks_reason },
        }),
        Success::Committed(found) => json!({
            "transfer": transfer(&[], Some(found.base_needed)),
            "progress": progress(found.size),
            "point": found.point,
            "incrementalBytes": bytes(found.incremental),
            "changedBlocks": found.changed_blocks,
        }),
        Success::Restore(report) => json!({
            "transfer": transfer(&report.warnings, None),
            "progress": progress(report.size_bytes),
        }),
    }
}

/// Tells how far a transfer is, whenever that changed.
struct Teller<'a> {
    supervisor: &'a Supervisor<'a>,
    progress: Arc<Progress>,
    told: Moved,
    /// Extents that the source of changed blocks had told by then: it answers, though nothing moves yet.
    answers: u64,
    stages: StageSums,
    queued: u64,
}

impl<'a> Teller<'a> {
    fn new(supervisor: &'a Supervisor<'a>, progress: Arc<Progress>) -> Self {
        Self {
            supervisor,
            progress,
            told: Moved::default(),
            answers: 0,
            stages: StageSums::default(),
            queued: 0,
        }
    }

    /// Adds what was moved since the last time to the metrics; whether that is anything.
    fn count(&mut self) -> bool {
        let now = Moved::of(&self.progress);
        let metrics = &self.supervisor.desk.metrics;
        let kind = self.supervisor.work.kind;
        metrics.observe_moved(kind, &self.told, &now);
        let stages = StageSums::of(&self.progress);
        metrics.stages().observe(kind, &self.stages, &stages);
        self.stages = stages;
        let queued = Progress::read_of(&self.progress.queued);
        metrics.stages().observe_queue(self.queued, queued);
        self.queued = queued;
        let changed = now != self.told;
        self.told = now;
        changed
    }

    async fn tell(&mut self) {
        let answers = Progress::read_of(&self.progress.told);
        let is_answered = answers != std::mem::replace(&mut self.answers, answers);
        // Both are asked: what was moved is counted whether it is told or not.
        if !(self.count() | is_answered) {
            return;
        }
        let total = Progress::read_of(&self.progress.total);
        let done = Progress::read_of(&self.progress.done).min(total);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let fields = json!({
            "progress": { "totalBytes": bytes(total), "bytesDone": bytes(done) },
            "transfer": { "lastProgress": now() },
        });
        match self.supervisor.writer.write(&fields).await {
            Ok(Written::Yes) => {}
            Ok(Written::NotWanted) => self.supervisor.stopper.stop(Cause::Superseded),
            // The next report says the same and more.
            Err(error) => tracing::debug!(%error, "tell no progress"),
        }
    }
}

impl Drop for Teller<'_> {
    /// What was on its way when a transfer failed is on its way no more.
    fn drop(&mut self) {
        let metrics = &self.supervisor.desk.metrics;
        metrics.stages().observe_queue(self.queued, 0);
    }
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Backup, Self::Restore];
}

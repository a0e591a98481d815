//! Looks after one order: takes it, has a thread carry it out, tells how far it is, and answers.
//!
//! Owns: what is written when. Must not: move data, or wait where a stop would not be heard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::kube::Client;
use ::kube::api::Api;
use ::kube::runtime::events::{Event, EventType, Recorder};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::changed::Services;
use super::conclusion;
use super::leave;
use super::metrics::AgentMetrics;
use super::share::Budget;
use super::status::{StatusWriter, Written, now};
use super::stopper::{Cause, Stopper};
use super::teller::Teller;
use super::transfer::{Finished, Transfer};
use super::work::{RepositoryName, Task, Work, unreadable};
use super::{AgentOptions, TICK};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::RepositoryAccess;
use crate::kube::answer::failed;
use crate::kube::api::backup::PodVolumeBackup;
use crate::kube::api::transfer::TransferState;

/// What all supervisors share.
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) options: AgentOptions,
    pub(super) metrics: Arc<AgentMetrics>,
    pub(super) recorder: Recorder,
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
        self.stopper.flag().check()?;
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
            stop: self.stopper.flag().clone(),
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
        if let Err(error) = leave::begin(&self.writer, self.work.kind, self.stopper).await {
            return failed_early(error);
        }
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
        let engine = Arc::clone(&progress);
        let (writer, stopper) = (&self.writer, &**self.stopper);
        let metrics = &self.desk.metrics;
        let mut teller = Teller::new((writer, stopper), metrics, self.work.kind, progress);
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
        stages.observe_engine(engine.engine());
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
                conclusion::fields_of(success, attempt)
            }
            Err(error) => {
                tracing::warn!(%error, ?cause, name = self.work.name, "a transfer ended early");
                let answer = conclusion::of_failure(attempt, error, cause.as_ref());
                let Some(answer) = answer else {
                    metrics.observe_end(kind, "superseded");
                    return Ok(());
                };
                json!({ "transfer": conclusion::with_nulls(&answer) })
            }
        };
        let state = fields["transfer"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        metrics.observe_end(kind, conclusion::word(&state));
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

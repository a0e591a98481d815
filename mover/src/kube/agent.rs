//! The agent of a node: takes the orders of the controller and moves the data.
//!
//! ```text
//!   watches (status.node = us) ─► Board: what is ordered, what runs ─► turn, slot, share ─► Supervisor ─► thread: pipeline
//!                                    ▲                                                        │ status: Running, progress, result
//!                                    └───────────────────── ended ◄───────────────────────────┘
//! ```
//!
//! Owns: which orders run on this node, and the answers to them. Must not: make or delete anything in the cluster, or decide whether a
//! backup is tried again (the controller does).
//!
//! Nothing that is needed after a restart is kept here. An order that a dead agent left `Running` is taken up like a new one: what the
//! repository holds of it already is taken over, and a point that was committed without anybody being told is found by its tag.

mod board;
mod changed;
mod conclusion;
mod device;
mod leave;
mod metrics;
mod order;
mod share;
mod status;
mod stopper;
mod supervisor;
mod teller;
mod transfer;
mod turns;
mod watch;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::kube::Client;
use ::kube::runtime::events::{Recorder, Reporter};
use futures::StreamExt as _;
use tokio::task::JoinSet;

use super::access::Bandwidth;
use super::http::Listener;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::connection::Connection;
use crate::pipeline::budget::LEAST_FOR_RESTORE;
use crate::pipeline::progress::StopFlag;
use board::{Board, Step};
use metrics::AgentMetrics;
use share::{Share, Shares};
use stopper::{Cause, Stopper};
use supervisor::{Desk, Ended};
use watch::Seen;

/// Field manager and name of the reporter of events.
pub const NAME: &str = "snaphaul-agent";
/// How often the stop flag is looked at, which a signal handler sets without waking anybody.
const TICK: Duration = Duration::from_millis(200);

/// How an agent works.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The node it is on.
    pub node: String,
    /// Where secrets are.
    pub system_namespace: String,
    /// Folder of the holders' sockets.
    pub holder_directory: PathBuf,
    /// Where the service that tells what changed is reached, if not where its object says.
    pub metadata_address: Option<String>,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// Volumes at once.
    pub slots: usize,
    /// Bytes of memory for all of them.
    pub memory: u64,
    /// Worker threads for all of them.
    pub jobs: usize,
    /// Bandwidth for all of them.
    pub bandwidth: Bandwidth,
    /// Time for the end after a stop was asked for.
    pub grace: Duration,
    /// Time between two reports of progress.
    pub report_every: Duration,
}

impl AgentOptions {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidRequest, message).hint(hint))
        };
        if self.node.is_empty() {
            return refuse(
                "start an agent without the name of its node",
                "set NODE_NAME from spec.nodeName, or give --node-name",
            );
        }
        let each = self.memory / u64::try_from(self.slots.max(1)).unwrap_or(u64::MAX);
        if each < LEAST_FOR_RESTORE {
            return refuse(
                "divide the memory between the slots",
                "each slot needs 336MiB: give more --memory or fewer --slots",
            );
        }
        Ok(())
    }
}

/// Works until a stop is asked for and what runs has ended.
///
/// # Errors
/// `InvalidRequest` for options that cannot be and an address in use; what finding the cluster answers.
pub fn run(options: AgentOptions, stop: &StopFlag) -> Result<()> {
    options.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("agent")
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Io, "start the agent").source(error))?;
    runtime.block_on(agent(options, stop))
}

async fn agent(options: AgentOptions, stop: &StopFlag) -> Result<()> {
    let connection = Connection::infer().await?;
    let metrics = Arc::new(AgentMetrics::new(options.slots));
    let listener = Listener::bind(options.listen).await?;
    tracing::info!(node = options.node, address = %listener.address(), slots = options.slots, "the agent begins");
    let (closing, closed) = tokio::sync::oneshot::channel::<()>();
    let pages = Arc::clone(&metrics) as Arc<dyn super::http::Pages>;
    let server = tokio::spawn(listener.serve(pages, async {
        let _ = closed.await;
    }));
    let reporter = Reporter {
        controller: NAME.to_owned(),
        instance: Some(options.node.clone()),
    };
    let desk = Arc::new(Desk {
        recorder: Recorder::new(connection.requests.clone(), reporter),
        client: connection.requests,
        options,
        metrics,
    });
    Agent::new(desk).work(&connection.watches, stop).await;
    let _ = closing.send(());
    let _ = server.await;
    Ok(())
}

/// The loop that everything comes together in.
struct Agent {
    desk: Arc<Desk>,
    board: Board,
    shares: Shares,
    running: BTreeMap<String, Arc<Stopper>>,
    tasks: JoinSet<Ended>,
}

impl Agent {
    fn new(desk: Arc<Desk>) -> Self {
        let options = &desk.options;
        Self {
            board: Board::new(&options.node, options.slots),
            shares: Shares::new(options.slots, options.memory, options.jobs),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            desk,
        }
    }

    async fn work(&mut self, watches: &Client, stop: &StopFlag) {
        let mut seen = watch::all(watches, &self.desk.options.node);
        let mut tick = tokio::time::interval(TICK);
        while !stop.is_stopped() {
            tokio::select! {
                _ = tick.tick() => continue,
                Some(seen) = seen.next() => self.see(seen),
                Some(ended) = self.tasks.join_next() => self.ended(ended),
            }
            self.act();
        }
        drop(seen);
        self.drain().await;
    }

    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Undefined(kind) => {
                tracing::warn!(
                    ?kind,
                    "the API server has no definition of this kind of order"
                );
                self.board.see(Seen::Undefined(kind));
            }
            Seen::Failed(error) => {
                // The stream waits and tries again; what runs goes on meanwhile.
                tracing::warn!(%error, "watch the orders of this node");
            }
            seen => self.board.see(seen),
        }
        self.desk.metrics.set_ready(self.board.is_complete());
    }

    fn act(&mut self) {
        for (uid, cause) in self.board.to_stop() {
            if let Some(stopper) = self.running.get(&uid) {
                stopper.stop(cause);
            }
        }
        while let Some(step) = self.board.next() {
            let (work, stopper) = match step {
                Step::Run(work) => (work, Arc::new(Stopper::default())),
                Step::Decline(work, why) => {
                    let stopper = Stopper::default();
                    stopper.stop(Cause::Order(why));
                    (work, Arc::new(stopper))
                }
            };
            // An answer alone needs no part of the budget.
            let needs_share = stopper.cause().is_none();
            let share = needs_share.then(|| self.shares.take(self.board.waiting()));
            tracing::info!(
                kind = work.kind.as_str(),
                namespace = work.namespace,
                name = work.name,
                attempt = work.order.attempt,
                "take an order"
            );
            self.running.insert(work.uid.clone(), Arc::clone(&stopper));
            let desk = Arc::clone(&self.desk);
            self.tasks.spawn(async move {
                let ended =
                    supervisor::run(&desk, &work, &stopper, share.as_ref().map(Share::budget))
                        .await;
                drop(share);
                ended
            });
        }
        self.desk
            .metrics
            .set_load(self.board.running(), self.board.waiting());
    }

    fn ended(&mut self, ended: std::result::Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(ended) => {
                self.running.remove(&ended.uid);
                self.board.ended(&ended.uid, ended.attempt);
            }
            // Whoever looks after a thread that panicked reports that; he himself has nothing to panic about.
            Err(error) => tracing::error!(%error, "a supervisor was lost"),
        }
    }

    /// Ends what runs as interrupted, so that another attempt goes on with what was stored.
    async fn drain(&mut self) {
        self.desk.metrics.set_draining();
        let running = self.running.len();
        tracing::info!(running, "drain");
        for stopper in self.running.values() {
            stopper.stop(Cause::Drain);
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.desk.options.grace, all)
            .await
            .is_err()
        {
            tracing::warn!("what still runs after the grace period is left to the next agent");
        }
    }
}

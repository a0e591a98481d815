//! The way of every call: judged, recorded, locked, worked, answered.
//!
//! Owns: faults that any call can have, and which calls are at work. Must not: know what a call does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use csi_proto::{Code, Status};
use tonic::{Request, Response};

use super::describe::{Describe, Subject};
use super::faults::{Fault, Faults, Order, Verdict, When};
use super::options::Options;
use super::record::Record;
use super::state::{State, Store, internal};

/// How often a stalled call looks whether it may go on.
const STALL_POLL: Duration = Duration::from_millis(10);
/// Name of the driver, as storage classes would know it.
pub const NAME: &str = "csi.test.snaphaul.dev";
/// The only node.
pub(super) const NODE: &str = "node-1";

/// Everything that the services share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) store: Store,
    faults: Faults,
    record: Record,
    busy: Mutex<BTreeSet<String>>,
}

/// What the work of a call gets beside the request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) core: Arc<Core>,
    /// The fault that the work itself carries out, if any.
    pub(super) fault: Option<Fault>,
}

/// A call that was recorded as begun.
#[derive(Debug)]
pub(super) struct Begun {
    seq: u64,
    pub(super) order: Option<Order>,
}

/// What a call needs for itself, until this is dropped.
#[derive(Debug)]
struct Busy {
    core: Arc<Core>,
    keys: Vec<String>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Ok(mut busy) = self.core.busy.lock() {
            for key in &self.keys {
                busy.remove(key);
            }
        }
    }
}

impl Core {
    pub(super) fn open(options: Options) -> Result<Self> {
        let store = Store::open(&options.state)?;
        let (record, matched) = Record::open(&options.state)?;
        let faults = Faults::new(&options.state, matched);
        Ok(Self {
            options,
            store,
            faults,
            record,
            busy: Mutex::default(),
        })
    }

    /// One call. What the caller asked for is done even if it goes away meanwhile.
    pub(super) async fn run<R: Describe, A: Send + 'static>(
        self: &Arc<Self>,
        request: Request<R>,
        work: fn(&Job, &R) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        let (core, request) = (Arc::clone(self), request.into_inner());
        let done = tokio::spawn(async move {
            let begun = core.begin(R::CALL, &request.subject())?;
            let result = core.attempt(&begun, request, work).await;
            core.end(&begun, result.as_ref().err().map_or(Code::Ok, Status::code))?;
            result.map(Response::new)
        });
        done.await
            .map_err(|error| Status::internal(error.to_string()))?
    }

    /// Judges and records the begin of a call.
    pub(super) fn begin(&self, call: &str, subject: &Subject) -> Result<Begun, Status> {
        let Verdict { matched, hit } = self.faults.judge(call, subject).map_err(internal)?;
        let seq = self
            .record
            .begin(call, subject, &matched)
            .map_err(internal)?;
        Ok(Begun { seq, order: hit })
    }

    /// Records the end of a call.
    pub(super) fn end(&self, begun: &Begun, code: Code) -> Result<(), Status> {
        let fault = begun.order.as_ref().map(|order| order.id.as_str());
        self.record
            .end(begun.seq, &format!("{code:?}"), fault)
            .map_err(internal)
    }

    async fn attempt<R: Describe, A: Send + 'static>(
        self: &Arc<Self>,
        begun: &Begun,
        request: R,
        work: fn(&Job, &R) -> Result<A, Status>,
    ) -> Result<A, Status> {
        self.check_secrets(&request)?;
        let _busy = self.occupy(&request)?;
        self.echo(begun.order.as_ref(), &request)?;
        self.before(begun.order.as_ref()).await?;
        let job = Job {
            core: Arc::clone(self),
            fault: begun.order.as_ref().map(|order| order.fault.clone()),
        };
        let done = tokio::task::spawn_blocking(move || work(&job, &request));
        let answer = done
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        // The call has used the order up, whatever came of the work.
        self.after(begun.order.as_ref()).await?;
        answer
    }

    /// Refuses a call whose secrets are not those of the options, where the call can have some.
    pub(super) fn check_secrets<R: Describe>(&self, request: &R) -> Result<(), Status> {
        match request.secrets() {
            Some(given)
                if self
                    .options
                    .secrets
                    .iter()
                    .any(|(key, secret)| given.get(key) != Some(secret)) =>
            {
                Err(Status::unauthenticated("the secrets are missing or wrong"))
            }
            _ => Ok(()),
        }
    }

    /// The fault that tells the secrets.
    pub(super) fn echo<R: Describe>(
        &self,
        order: Option<&Order>,
        request: &R,
    ) -> Result<(), Status> {
        match order.map(|order| &order.fault) {
            Some(Fault::Echo { code }) => Err(echo(*code, request.secrets())),
            _ => Ok(()),
        }
    }

    fn occupy<R: Describe>(self: &Arc<Self>, request: &R) -> Result<Busy, Status> {
        let keys = request.subject().keys(R::CALL);
        let mut busy = self
            .busy
            .lock()
            .map_err(|_| Status::internal("a call panicked"))?;
        if let Some(key) = keys.iter().find(|key| busy.contains(*key)) {
            return Err(Status::aborted(format!(
                "an operation is pending for {key}"
            )));
        }
        busy.extend(keys.iter().cloned());
        Ok(Busy {
            core: Arc::clone(self),
            keys,
        })
    }

    /// Faults before the work.
    pub(super) async fn before(&self, order: Option<&Order>) -> Result<(), Status> {
        let Some(order) = order else {
            return Ok(());
        };
        match &order.fault {
            Fault::Refuse { code } => return Err(ordered(*code)),
            Fault::Slow { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Fault::Stall { when: When::Before } => self.stall(order).await,
            Fault::Die { when: When::Before } => std::process::abort(),
            _ => {}
        }
        Ok(())
    }

    /// Faults after the work.
    async fn after(&self, order: Option<&Order>) -> Result<(), Status> {
        let Some(order) = order else {
            return Ok(());
        };
        match &order.fault {
            Fault::Lose { code } => return Err(ordered(*code)),
            Fault::Stall { when: When::After } => self.stall(order).await,
            Fault::Die { when: When::After } => std::process::abort(),
            _ => {}
        }
        Ok(())
    }

    /// A new handle. Nothing may be read out of one: odd ones hold what would break a path or a shell.
    pub(super) fn handle(&self, state: &mut State, kind: &str, name: &str) -> String {
        let (nonce, number) = (state.nonce, state.number());
        if self.options.named_handles {
            return format!("{kind}-{nonce}-{number}.{name}");
        }
        if self.options.odd_handles {
            format!("{kind} {number}/../{nonce} größer+{number}")
        } else {
            format!("{kind}-{nonce}-{number}")
        }
    }

    /// Waits until the order is withdrawn.
    pub(super) async fn stall(&self, order: &Order) {
        while self.faults.stands(&order.id) {
            tokio::time::sleep(STALL_POLL).await;
        }
    }
}

/// Secrets as careless drivers tell them: trimmed, by the line, quoted, as part of an address.
fn echo(code: i32, secrets: Option<&BTreeMap<String, String>>) -> Status {
    let mut text = "cannot log in".to_owned();
    for (key, secret) in secrets.into_iter().flatten() {
        let escaped: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let line = secret.trim().lines().last().unwrap_or_default();
        text.push_str(&format!(
            " with {key}={}, as {line} in {secret:?} at //store/?{key}={escaped}",
            secret.trim()
        ));
    }
    Status::new(Code::from_i32(code), text)
}

/// The answer of a fault.
fn ordered(code: i32) -> Status {
    Status::new(Code::from_i32(code), "ordered by the test")
}

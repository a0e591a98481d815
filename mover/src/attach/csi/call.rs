//! One call to a driver, repeated until there is a final answer.
//!
//! Owns: deadlines, pauses, and what becomes of a final failure. Must not: decide what an answer means (`answer` does).

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use csi_proto::{Code, Response, Status};

use super::answer::{self, Next, Outcome, Purpose, Rpc};
use super::options::Deadlines;
use super::runtime::{ControlPlane, unless_stopped};
use super::secrets::Secrets;
use super::timing::Timing;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// Pauses between tries: short at first, because most drivers are quick, then longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What cannot be taken back now is taken back by the next run: nobody waits for it as long as for what is needed.
const UNDO_LIMIT: Duration = Duration::from_secs(120);
/// Nothing was made yet: whoever waits is a person.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// What all calls to a driver share.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub runtime: ControlPlane,
    pub secrets: Secrets,
    pub deadlines: Deadlines,
    pub timing: Timing,
    /// Name of the driver, or the socket while that is not known.
    pub driver: String,
}

/// A call that failed for good.
#[derive(Debug)]
pub(super) struct CallError {
    pub error: Error,
    pub outcome: Outcome,
    /// What the driver said last.
    pub code: Option<Code>,
}

impl From<CallError> for Error {
    fn from(failed: CallError) -> Self {
        failed.error
    }
}

/// What a driver answered, without what must not be shown.
#[derive(Debug)]
struct Answered {
    code: Code,
    message: String,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "the driver answers {:?}", self.code),
            message => write!(f, "the driver answers {:?}: {message}", self.code),
        }
    }
}

impl std::error::Error for Answered {}

/// The end of one try.
enum Try<T> {
    Answer(std::result::Result<T, Status>),
    Late,
    Stopped,
}

/// Doubles the pause between tries.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Caller {
    /// Makes a call until it is done, finally refused, out of time, or a stop is asked for. `None` where what is to be taken back
    /// is not there. Without a stop flag nothing but time ends it: for what has to be taken back.
    pub(super) fn call<T, F, A>(
        &self,
        rpc: Rpc,
        object: &str,
        stop: Option<&StopFlag>,
        attempt: F,
    ) -> std::result::Result<Option<T>, CallError>
    where
        F: FnMut() -> A,
        A: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        self.call_for((rpc, rpc.purpose()), object, stop, attempt)
    }

    /// The same for another purpose than the usual one of the call, which is tried as long as that purpose is worth.
    pub(super) fn call_for<T, F, A>(
        &self,
        (rpc, purpose): (Rpc, Purpose),
        object: &str,
        stop: Option<&StopFlag>,
        mut attempt: F,
    ) -> std::result::Result<Option<T>, CallError>
    where
        F: FnMut() -> A,
        A: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let (started, mut pause) = (Instant::now(), Pause::new());
        let mut earlier = Outcome::NotDone;
        let limit = self.limit(rpc, purpose);
        loop {
            let asked = Instant::now();
            let ended = self.timing.of_driver(|| self.one_try(stop, attempt()));
            let status = match ended {
                Try::Answer(Ok(answer)) => {
                    tracing::debug!(rpc = rpc.name(), took = ?asked.elapsed(), "call");
                    return Ok(Some(answer));
                }
                Try::Answer(Err(status)) => status,
                Try::Late => Status::deadline_exceeded("no answer in time"),
                Try::Stopped => return Err(stopped(rpc, object)),
            };
            let code = code_of(&status);
            let message = changed_blocks::csi::for_people(&self.secrets.redact(status.message()));
            tracing::info!(rpc = rpc.name(), object, ?code, message, "call failed");
            let outcome = match answer::next(rpc, code) {
                Next::Done => return Ok(None),
                Next::Again if started.elapsed() < limit => {
                    // It may still be at work, or done, whatever the next try is told.
                    earlier = Outcome::Unknown;
                    if self.rest(pause.next(), stop) {
                        continue;
                    }
                    return Err(stopped(rpc, object));
                }
                Next::Again => Outcome::Unknown,
                Next::Stop(Outcome::NotDone) => earlier,
                Next::Stop(Outcome::Unknown) => Outcome::Unknown,
            };
            return Err(self.failed(rpc, object, outcome, Answered { code, message }));
        }
    }

    fn limit(&self, rpc: Rpc, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Undo => self.deadlines.expose.min(UNDO_LIMIT),
            Purpose::Make if rpc == Rpc::CreateSnapshot => self.deadlines.snapshot,
            Purpose::Make => self.deadlines.expose,
            Purpose::Ask => self.deadlines.expose.min(ASK_LIMIT),
        }
    }

    fn one_try<T, A>(&self, stop: Option<&StopFlag>, attempt: A) -> Try<T>
    where
        A: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        self.runtime.wait(async {
            let limited = tokio::time::timeout(self.deadlines.call, attempt);
            match unless_stopped(limited, stop).await {
                None => Try::Stopped,
                Some(Err(_)) => Try::Late,
                Some(Ok(answer)) => Try::Answer(answer.map(Response::into_inner)),
            }
        })
    }

    /// Sleeps; `false` where a stop is asked for.
    pub(super) fn rest(&self, pause: Duration, stop: Option<&StopFlag>) -> bool {
        let sleep = self
            .runtime
            .wait(async { unless_stopped(tokio::time::sleep(pause), stop).await });
        sleep.is_some() && !stop.is_some_and(StopFlag::is_stopped)
    }

    fn failed(&self, rpc: Rpc, object: &str, outcome: Outcome, answered: Answered) -> CallError {
        let (kind, hint) = answer::meaning(rpc, answered.code);
        let code = Some(answered.code);
        let error = Error::new(kind, format!("{} by {}", rpc.name(), self.driver))
            .object(object)
            .hint(hint)
            .source(answered);
        CallError {
            error,
            outcome,
            code,
        }
    }
}

/// A status that was made on this side has a cause: the connection failed, whatever code that became.
fn code_of(status: &Status) -> Code {
    if std::error::Error::source(status).is_some() {
        Code::Unavailable
    } else {
        status.code()
    }
}

fn stopped(rpc: Rpc, object: &str) -> CallError {
    let error = Error::new(
        ErrorKind::Interrupted,
        format!("stopped on request during {}", rpc.name()),
    )
    .object(object)
    .hint("run the same command again");
    CallError {
        error,
        outcome: Outcome::Unknown,
        code: None,
    }
}

/// An answer that lacks what the specification demands.
pub(super) fn incomplete(rpc: Rpc, driver: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("{} by {driver}: the answer has no {what}", rpc.name()),
    )
    .hint("report it to the makers of the driver: the specification demands it")
}

/// The answer to a call that cannot be skipped.
pub(super) fn answered<T>(
    rpc: Rpc,
    driver: &str,
    answer: std::result::Result<Option<T>, CallError>,
) -> Result<T> {
    answer?.ok_or_else(|| incomplete(rpc, driver, "content"))
}

#[cfg(test)]
mod tests;

//! Leave to write: an agent that fills a volume has its order confirmed again and again, and stops where it cannot.
//!
//! Owns: how often it asks, and how long an answer holds. Must not: stop backups: what they write is fenced by the repository.
//!
//! The controller gives the volume to another agent, or back to its user, no sooner than a minute after it lost this one. By then leave has
//! lapsed: it is counted from before the question was sent, and looked at before every write, so that an agent that was held up writes
//! nothing with an old answer.

use std::time::{Duration, Instant};

use super::status::{Standing, StatusWriter};
use super::stopper::{Cause, Stopper};
use super::work::Kind;
use crate::error::Result;

/// Between two questions; a stop that the watch does not bring is heard after this.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long an answer holds. Below any deadline of the controller for a lost agent, with time for what is on its way to the device.
const HOLDS: Duration = Duration::from_secs(30);

/// The first leave: whether the order stands now. Nothing is written without it, however long ago the order was taken.
///
/// # Errors
/// `Interrupted` where it does not stand, or nobody answers.
pub(super) async fn begin(writer: &StatusWriter, kind: Kind, stopper: &Stopper) -> Result<()> {
    if kind == Kind::Restore {
        let asked = Instant::now();
        match tokio::time::timeout(ASK_EVERY, writer.look()).await {
            Ok(Ok(Standing::Wanted)) => stopper.flag().lapse_at(asked + HOLDS),
            Ok(Ok(Standing::Stopped(why))) => stopper.stop(Cause::Order(why)),
            Ok(Ok(Standing::Gone)) => stopper.stop(Cause::Superseded),
            _ => stopper.stop(Cause::CutOff),
        }
    }
    stopper.flag().check()
}

/// Keeps the order confirmed; never ends.
pub(super) async fn keep(writer: &StatusWriter, kind: Kind, stopper: &Stopper) {
    if kind == Kind::Backup {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let asked = Instant::now();
        match tokio::time::timeout(ASK_EVERY, writer.look()).await {
            Ok(Ok(Standing::Wanted)) if !stopper.flag().has_lapsed() => {
                stopper.flag().lapse_at(asked + HOLDS);
            }
            Ok(Ok(Standing::Stopped(why))) => stopper.stop(Cause::Order(why)),
            Ok(Ok(Standing::Gone)) => stopper.stop(Cause::Superseded),
            _ => {}
        }
        if stopper.flag().has_lapsed() {
            stopper.stop(Cause::CutOff);
        }
    }
}

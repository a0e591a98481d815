//! Waiting for a service in a thread that blocks, which can be told to stop.
//!
//! Owns: when a wait ends. Must not: know what is waited for.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How often a wait looks whether it is to end: a handler of signals sets a flag and wakes nobody.
const TICK: Duration = Duration::from_millis(100);

/// Asks whether everything is to stop.
#[derive(Clone)]
pub struct StopCheck(Arc<dyn Fn() -> bool + Send + Sync>);

impl StopCheck {
    /// By this question, which is asked several times a second.
    pub fn new(is_stopped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_stopped))
    }

    pub(super) fn is_stopped(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for StopCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopCheck")
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Late,
    Stopped,
}

/// Waits for `future` until `deadline`, or until it is asked to stop.
pub(super) fn within<F: Future>(
    runtime: &Handle,
    deadline: Instant,
    stop: &StopCheck,
    future: F,
) -> Result<F::Output, Waited> {
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            let tick = deadline.min(Instant::now() + TICK);
            match tokio::time::timeout_at(tick.into(), future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) if stop.is_stopped() => return Err(Waited::Stopped),
                Err(_) if Instant::now() >= deadline => return Err(Waited::Late),
                Err(_) => {}
            }
        }
    })
}

//! SIGINT and SIGTERM: the first stops cleanly, the second exits at once.
//!
//! Owns: the handlers. Must not: print (`monitor` says what happens). Where nothing can be stopped cleanly — before a pipeline
//! runs, while a passphrase is typed — the first signal exits at once.
//!
//! ```text
//!   signal ─► exit with 75, if `at_once` ─► at_once = true ─► stop flag = true
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::exit::Exit;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// What the signal handlers and the run share.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    at_once: Arc<AtomicBool>,
    stop: StopFlag,
}

impl Signals {
    /// Installs the handlers; from now on a signal ends the process with [`Exit::Interrupted`].
    pub(super) fn register(stop: StopFlag) -> Result<Self> {
        let signals = Self::unregistered(stop);
        for signal in [SIGINT, SIGTERM] {
            signals.register_one(signal).map_err(|error| {
                Error::new(ErrorKind::Internal, "install the signal handlers").source(error)
            })?;
        }
        Ok(signals)
    }

    /// The same state without handlers.
    pub(super) fn unregistered(stop: StopFlag) -> Self {
        Self {
            at_once: Arc::new(AtomicBool::new(true)),
            stop,
        }
    }

    /// Handlers run in the order of registration: a second signal meets `at_once` as the first left it.
    fn register_one(&self, signal: i32) -> std::io::Result<()> {
        let code = i32::from(Exit::Interrupted.code());
        flag::register_conditional_shutdown(signal, code, Arc::clone(&self.at_once))?;
        flag::register(signal, Arc::clone(&self.at_once))?;
        flag::register(signal, self.stop.flag())?;
        Ok(())
    }

    /// Whether the next signal only asks for a stop. After a stop was asked for, the next one always exits.
    pub(super) fn stop_cleanly(&self, cleanly: bool) {
        self.at_once
            .store(!cleanly || self.is_stopped(), Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// The flag for pipelines.
    pub(super) fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_stop_is_offered_once() {
        let signals = Signals::unregistered(StopFlag::default());
        let at_once = || signals.at_once.load(Ordering::SeqCst);
        assert!(at_once(), "nothing runs yet");
        signals.stop_cleanly(true);
        assert!(!at_once());
        signals.stop.stop();
        signals.stop_cleanly(true);
        assert!(at_once(), "a stop was asked for before");
        assert!(signals.stop_flag().is_stopped());
    }
}

//! The one runtime of the control plane, and how a thread of the data plane waits for it.
//!
//! Owns: the threads that drive connections. Must not: be entered from inside another runtime: waiting blocks.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// How often a wait looks at the stop flag, which a signal handler sets without waking anybody.
const TICK: Duration = Duration::from_millis(100);

/// The runtime. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ControlPlane {
    runtime: Arc<Owned>,
}

#[derive(Debug)]
struct Owned(Option<Runtime>);

impl Drop for Owned {
    /// Connections need no farewell.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ControlPlane {
    /// Starts its thread.
    ///
    /// # Errors
    /// `Io` where the system gives none.
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control-plane")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Io, "start the thread that speaks to drivers").source(error)
            })?;
        Ok(Self {
            runtime: Arc::new(Owned(Some(runtime))),
        })
    }

    /// For sources that wait themselves.
    pub(super) fn handle(&self) -> Handle {
        self.inner().handle().clone()
    }

    /// Waits for a future in this thread.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.inner().block_on(future)
    }

    fn inner(&self) -> &Runtime {
        self.runtime.0.as_ref().expect("taken on drop only")
    }
}

/// Waits until the future ends, or a stop is asked for.
pub(super) async fn unless_stopped<F: Future>(
    future: F,
    stop: Option<&StopFlag>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        match tokio::time::timeout(TICK, future.as_mut()).await {
            Ok(output) => return Some(output),
            Err(_) if stop.is_some_and(StopFlag::is_stopped) => return None,
            Err(_) => {}
        }
    }
}

//! How the API server is reached.
//!
//! Owns: the limits of connections. Must not: know what is asked.
//!
//! An API server behind a load balancer that lost its state is silent: without limits a request waits until TCP gives up, a quarter of an
//! hour or longer, and nothing behind it is told or heard.

use std::time::Duration;

use kube::{Client, Config};

use crate::error::{Error, ErrorKind, Result};

const CONNECT: Duration = Duration::from_secs(10);
/// Answers come in a second; a busy API server takes several.
const ANSWER: Duration = Duration::from_secs(30);
/// A watch is ended by the API server within 295 s, as it is asked to; lists come sooner.
const WATCH: Duration = Duration::from_mins(6);

/// Two clients of one cluster.
#[derive(Clone)]
pub struct Connection {
    /// For requests: none waits longer than half a minute for an answer.
    pub requests: Client,
    /// For watches, which are silent for minutes where nothing happens.
    pub watches: Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// The cluster of this pod, or of the kubeconfig.
    ///
    /// # Errors
    /// `InvalidRequest` where neither is there or usable.
    pub async fn infer() -> Result<Self> {
        let config = Config::infer().await.map_err(unusable)?;
        let client = |read_timeout| {
            let mut config = config.clone();
            config.connect_timeout = Some(CONNECT);
            config.write_timeout = Some(ANSWER);
            config.read_timeout = Some(read_timeout);
            Client::try_from(config).map_err(unusable)
        };
        Ok(Self {
            requests: client(ANSWER)?,
            watches: client(WATCH)?,
        })
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidRequest, "find the cluster")
        .hint("run it in a pod with a service account, or set KUBECONFIG")
        .source(error)
}

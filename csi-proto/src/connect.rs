//! Connections: to a driver's UNIX socket, and to the Kubernetes service with TLS.
//!
//! Must not: repeat a call, or decide how long one may take.
//!
//! No HTTP/2 keepalive is sent: servers written with grpc-go close a connection that pings more often than every five minutes.
//! The end of a local process closes its socket; over a network TCP keepalive finds a peer that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// How long the connection itself may take. A socket whose driver is stopped accepts and never answers, so that calls need
/// deadlines of their own.
const CONNECT: Duration = Duration::from_secs(5);
/// An endpoint needs a name for the HTTP/2 authority; for a local socket any valid one does.
const LOCAL: &str = "http://localhost";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there, or nobody may connect.
    #[error("cannot connect to {endpoint}: {reason}")]
    Unreachable {
        /// The path of the socket, or host and port.
        endpoint: String,
        /// All causes, outermost first.
        reason: String,
    },
    /// The address, the name or the certificates cannot be used at all.
    #[error("{endpoint}: {reason}")]
    Unusable {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Connects to the socket of a driver. A driver that restarts is connected to again with the next call.
///
/// # Errors
/// [`ConnectError::Unreachable`] where nothing listens on `path`.
pub async fn unix(path: &Path) -> Result<Channel, ConnectError> {
    let socket: PathBuf = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static(LOCAL)
        .connect_timeout(CONNECT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(&path.display().to_string(), &error))
}

/// Where the SnapshotMetadata service of a cluster is, and whom to believe that it is it.
#[cfg(feature = "tls")]
#[derive(Debug, Clone)]
pub struct TlsEndpoint {
    /// `host:port`, as SnapshotMetadataService says in `spec.address`.
    pub address: String,
    /// PEM of the only authorities that are trusted.
    pub ca_certificates: Vec<u8>,
    /// The name to check the certificate for, if it is not the host of the address.
    pub server_name: Option<String>,
}

/// Connects with TLS 1.2 or later, trusting the given authorities and nobody else. No client certificate: the token is part of
/// each request.
///
/// # Errors
/// [`ConnectError::Unusable`] for an address that is none, [`ConnectError::Unreachable`] where nothing listens, or somebody
/// whose certificate those authorities did not sign for that name.
#[cfg(feature = "tls")]
pub async fn tls(endpoint: &TlsEndpoint) -> Result<Channel, ConnectError> {
    use tonic::transport::{Certificate, ClientTlsConfig};

    let unusable = |reason: String| ConnectError::Unusable {
        endpoint: endpoint.address.clone(),
        reason,
    };
    let mut config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&endpoint.ca_certificates));
    if let Some(name) = &endpoint.server_name {
        config = config.domain_name(name.clone());
    }
    Endpoint::from_shared(format!("https://{}", endpoint.address))
        .map_err(|error| unusable(causes(&error)))?
        .connect_timeout(CONNECT)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .tls_config(config)
        .map_err(|error| unusable(causes(&error)))?
        .connect()
        .await
        .map_err(|error| unreachable(&endpoint.address, &error))
}

fn unreachable(endpoint: &str, error: &tonic::transport::Error) -> ConnectError {
    ConnectError::Unreachable {
        endpoint: endpoint.to_owned(),
        reason: causes(error),
    }
}

/// An error of the transport says "transport error" and keeps the reason in its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

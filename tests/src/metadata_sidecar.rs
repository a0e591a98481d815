//! A stand-in for the external-snapshot-metadata sidecar: the Kubernetes SnapshotMetadata service in front of a CSI driver's socket.
//!
//! ```text
//!   TLS ─► TokenReview (audience) ─► SubjectAccessReview (get volumesnapshots) ─► VolumeSnapshot ─► handle ─► the driver's socket
//!             └───────────── the API server of the rig, a real one ──────────────┘
//! ```
//!
//! **It is not the real sidecar** ([`real`]), whose module cannot be had here, but a small server of ours that makes the same calls to a real API
//! server and answers with the codes of the real one (its v1.1.0): UNAUTHENTICATED for a token, PERMISSION_DENIED for a role,
//! UNAVAILABLE for a snapshot that is missing or not ready, INVALID_ARGUMENT for one of another driver. It passes the base on without
//! looking at it, as that one does. It reads no class and no secret: drivers that need some are not served.
//!
//! Owns: the server and its certificate. Must not: be lenient where the real one refuses.

mod gate;
pub mod real;
mod relay;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use csi_proto::snapshot_metadata::snapshot_metadata_server::SnapshotMetadataServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use self::gate::Gate;
use self::relay::Relay;

/// What runs before a stream is cut; it gets the token of the call.
pub type Hook = Box<dyn FnOnce(&str) + Send>;

/// How a stream ends before its end: after so many messages, once the hook has run.
pub struct Cut {
    /// Messages that are let through.
    pub after: usize,
    /// The status that ends the stream.
    pub code: csi_proto::Code,
    /// What happens first.
    pub hook: Hook,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut")
            .field("after", &self.after)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// What a call came with, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its token; that of a test's own service account.
    pub token: String,
    /// Where it began.
    pub starting_offset: i64,
    /// How it was refused, if it was.
    pub refused: Option<csi_proto::Code>,
}

/// What the tests and the services share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    asked: Mutex<Vec<Asked>>,
    cut: Mutex<Option<Cut>>,
}

/// A running service; dropping it stops it.
#[derive(Debug)]
pub struct MetadataSidecar {
    _runtime: Runtime,
    address: SocketAddr,
    authority: String,
    shared: Arc<Shared>,
}

impl MetadataSidecar {
    /// Serves the driver behind `socket` with the rights of `kubeconfig`, to tokens for `audience`. Its certificate is for
    /// `localhost`.
    ///
    /// # Errors
    /// Where API server or driver do not answer.
    pub fn start(kubeconfig: &Path, socket: &Path, driver: &str, audience: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (authority, certificate, key) = signed("localhost")?;
        let identity = Identity::from_pem(certificate, key);
        let shared = Arc::new(Shared::default());
        let gate = runtime.block_on(Gate::open(kubeconfig, driver, audience))?;
        let channel = runtime.block_on(csi_proto::connect::unix(socket))?;
        let relay = Relay::new(gate, channel, Arc::clone(&shared));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let tls = ServerTlsConfig::new().identity(identity);
        let mut server = runtime.block_on(async { Server::builder().tls_config(tls) })?;
        let serve = server
            .add_service(SnapshotMetadataServer::new(relay))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serve);
        Ok(Self {
            _runtime: runtime,
            address,
            authority,
            shared,
        })
    }

    /// For `spec.address`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// For `spec.caCert`, as PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Cuts the next stream.
    pub fn cut(&self, cut: Cut) {
        *lock(&self.shared.cut) = Some(cut);
    }

    /// Every call since the last time that this was asked.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.shared.asked))
    }
}

/// The certificate of an authority, as PEM, that signed nothing.
///
/// # Errors
/// Where keys cannot be made.
pub fn stranger() -> Result<String> {
    signed("elsewhere").map(|(authority, ..)| authority)
}

/// An authority, and a certificate for `name` that it signed with its key: all as PEM.
fn signed(name: &str) -> Result<(String, String, String)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?
        .signed_by(&key, &issuer)
        .context("sign the certificate of the service")?;
    Ok((issuer.pem(), certificate.pem(), key.serialize_pem()))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

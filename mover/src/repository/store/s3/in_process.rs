//! An S3 server inside the test process, over a temporary directory, and a proxy that breaks its connections.
//!
//! ```text
//!   S3Store ──► FaultProxy (optional) ──► hyper (optional TLS) ──► quirks ──► s3s-fs
//! ```
//!
//! Owns: the server's quirks. Must not: be part of a release. s3s-fs checks signatures and checksums, but its create-only
//! PUT looks before it writes, so here one lock makes that one step, and it makes missing buckets, so they are refused here.

mod proxy;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::{S3Credentials, S3Options, Timing};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{random, to_hex};

pub use proxy::{ConnectionFault, FaultProxy};

/// The only key pair that the server knows.
const ACCESS_KEY: &str = "AKIATESTONLY";
const SECRET_KEY: &str = "only-for-tests";

/// Requests remembered at most.
const REMEMBERED: usize = 4096;

/// How the server differs from a good one.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// Speaks TLS with a certificate of its own authority.
    pub tls: bool,
    /// Ignores `If-None-Match`, as old servers do: every create succeeds.
    pub ignores_conditions: bool,
    /// Answers 501 to requests with one of these header values; an empty value stands for any.
    pub refuses: Vec<(String, String)>,
}

/// Head of a request as it came in.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, with their values.
    pub headers: Vec<(String, String)>,
}

impl SeenRequest {
    /// Value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
struct Shared {
    service: S3Service,
    root: PathBuf,
    quirks: Quirks,
    creating: tokio::sync::Mutex<()>,
    seen: Mutex<Vec<SeenRequest>>,
}

/// The running server; stops and forgets everything when dropped.
#[derive(Debug)]
pub struct InProcessServer {
    address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl InProcessServer {
    /// Starts a server with one empty bucket, `test`.
    ///
    /// # Errors
    /// `Io` if there is no port or folder to be had.
    pub fn start(quirks: Quirks) -> Result<Self> {
        Self::try_start(quirks).map_err(|e| {
            Error::new(ErrorKind::Io, "start an S3 server for tests").source(e.to_string())
        })
    }

    fn try_start(quirks: Quirks) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("buckets");
        std::fs::create_dir_all(root.join("test"))?;
        let files = FileSystem::new(&root).map_err(|e| format!("{e:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let acceptor = quirks
            .tls
            .then(|| make_acceptor(&folder.path().join("ca.pem")))
            .transpose()?;
        let shared = Arc::new(Shared {
            service: builder.build(),
            root,
            quirks,
            creating: tokio::sync::Mutex::new(()),
            seen: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Ok(Self {
            address,
            folder,
            shared,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// PEM file of its authority, with [`Quirks::tls`].
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Options that reach its bucket under `prefix`, with short deadlines.
    #[must_use]
    pub fn options(&self, prefix: &str) -> S3Options {
        self.options_at(self.address, prefix)
    }

    /// The same through a proxy that listens at `address`.
    #[must_use]
    pub fn options_at(&self, address: SocketAddr, prefix: &str) -> S3Options {
        let scheme = if self.shared.quirks.tls {
            "https"
        } else {
            "http"
        };
        S3Options {
            bucket: "test".to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(format!("{scheme}://{address}")),
            region: Some("us-east-1".to_owned()),
            path_style: true,
            ca_file: self.shared.quirks.tls.then(|| self.ca_file()),
            ca_pem: None,
            credentials: Some(S3Credentials::new(ACCESS_KEY, SECRET_KEY)),
            timing: Timing {
                connect: Duration::from_secs(5),
                first_byte: Duration::from_secs(20),
                slowest: 1 << 20,
                attempts: 6,
                first_attempts: 3,
                pause: Duration::from_millis(5),
                longest_pause: Duration::from_millis(50),
            },
        }
    }

    /// Requests so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Every file that the bucket holds, whoever put it there.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join("buckets/test")
    }
}

impl Drop for InProcessServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A certificate for 127.0.0.1 that signs itself; its PEM goes to `ca_file`.
fn make_acceptor(ca_file: &std::path::Path) -> Result<TlsAcceptor, Box<dyn std::error::Error>> {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let signing_key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(names)?;
    // Each server's authority has a name of its own, so that another one is unknown and not just wrong.
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, to_hex(&random::<8>()));
    let certificate = params.self_signed(&signing_key)?;
    std::fs::write(ca_file, certificate.pem())?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((connection, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A client that leaves in the middle is what tests are about; nobody waits for the outcome.
            match acceptor {
                None => serve(connection, shared).await,
                Some(acceptor) => {
                    if let Ok(connection) = acceptor.accept(connection).await {
                        serve::<tokio_rustls::server::TlsStream<TcpStream>>(connection, shared)
                            .await;
                    }
                }
            }
        });
    }
}

async fn serve<C: AsyncRead + AsyncWrite + Unpin>(connection: C, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(e) = served {
        tracing::debug!(error = %e, "a test connection ended early");
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    remember(shared, &request);
    if shared
        .quirks
        .refuses
        .iter()
        .any(|(name, value)| carries(&request, name, value))
    {
        return plain(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    // s3s-fs would make the bucket.
    let bucket = request.uri().path().split('/').nth(1).unwrap_or_default();
    if !shared.root.join(bucket).is_dir() {
        return plain(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let conditional = request.headers().contains_key(IF_NONE_MATCH);
    let _one_at_a_time = if conditional {
        Some(shared.creating.lock().await)
    } else {
        None
    };
    if conditional && shared.quirks.ignores_conditions {
        // The header is signed and has to stay, so the object goes; a missing one is what a create expects.
        let _ = std::fs::remove_file(format!("{}{}", shared.root.display(), request.uri().path()));
    }
    match hyper::service::Service::call(&shared.service, request).await {
        Ok(response) => response,
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e:?}")),
    }
}

fn remember(shared: &Shared, request: &Request<Incoming>) {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    let seen = SeenRequest {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request.headers().iter().map(header).collect(),
    };
    let mut all = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < REMEMBERED {
        all.push(seen);
    }
}

fn carries(request: &Request<Incoming>, name: &str, value: &str) -> bool {
    request
        .headers()
        .get(name)
        .is_some_and(|found| value.is_empty() || found.as_bytes() == value.as_bytes())
}

fn plain(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>refused by a test</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

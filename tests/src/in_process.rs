//! An S3 server inside the test process: the crate `s3s-fs` behind a loopback port.
//!
//! Owns: its runtime and its end. Must not: stand in for the real servers where their behaviour is the question.
//!
//! `s3s-fs` looks whether a name is free and only then writes, so two create-only PUTs at once can both win. Behind
//! [`InProcess::start`] they are put in a row, which gives a store that keeps the promise; [`InProcess::start_racy`]
//! leaves the hole open, for tests that want a store that lies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::scratch::Scratch;
use crate::server::{Endpoint, Login, S3Server};

/// A running server; dropping it ends every connection.
#[derive(Debug)]
pub struct InProcess {
    endpoint: Endpoint,
    runtime: Option<Runtime>,
    _folder: Scratch,
}

impl InProcess {
    /// Starts a server with atomic create-only PUTs and an empty store.
    ///
    /// # Errors
    /// Where no port or folder can be had.
    pub fn start() -> Result<Self> {
        Self::start_with(Some(Arc::new(Mutex::new(()))))
    }

    /// Starts a server whose create-only PUT looks first and writes later.
    ///
    /// # Errors
    /// Where no port or folder can be had.
    pub fn start_racy() -> Result<Self> {
        Self::start_with(None)
    }

    fn start_with(row: Option<Arc<Mutex<()>>>) -> Result<Self> {
        let folder = Scratch::new("s3s")?;
        let owner = Login::new("snaphaulowner", "owner-secret-key");
        let files = s3s_fs::FileSystem::new(folder.path())
            .map_err(|error| anyhow::anyhow!("open the store: {error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(
            owner.access.clone(),
            owner.secret.clone(),
        ));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let listener =
            runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let url = format!("http://{}", listener.local_addr()?);
        runtime.spawn(accept(listener, service, row));
        let endpoint = Endpoint {
            name: "s3s-fs".to_owned(),
            url,
            ca_file: None,
            owner,
            reader: None,
            reader_needs_policy: false,
        };
        Ok(Self {
            endpoint,
            runtime: Some(runtime),
            _folder: folder,
        })
    }
}

impl S3Server for InProcess {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service, row: Option<Arc<Mutex<()>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (service, row) = (service.clone(), row.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, row) = (service.clone(), row.clone());
            async move {
                let create_only =
                    request.headers().contains_key("if-none-match") && request.method() == "PUT";
                let _turn = match &row {
                    Some(row) if create_only => Some(row.lock().await),
                    _ => None,
                };
                service.call(request.map(s3s::Body::from)).await
            }
        });
        tokio::spawn(async move {
            // A client that goes away in the middle is its own business.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

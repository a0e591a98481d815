//! `/metrics`, `/healthz` and `/readyz` of a process in the cluster.
//!
//! Owns: the listener and what is answered to what. Must not: know metrics or decide who is ready ([`Pages`] does), or speak TLS.
//!
//! Nothing that is served here is a secret, and nothing can be changed: there is no authentication, and a body is never read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Whoever sends no whole request in this time is cut off.
const REQUEST: Duration = Duration::from_secs(10);
/// After this a connection is closed, however busy it is.
const CONNECTION: Duration = Duration::from_secs(120);
/// The form of `/metrics`, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a process says of itself. Asked on a thread of the runtime: must not wait.
pub trait Pages: Send + Sync + 'static {
    /// All metrics, in the text form of Prometheus.
    ///
    /// # Errors
    /// `Internal` where they cannot be written.
    fn metrics(&self) -> Result<String>;
    /// Why the process must be started again; `None` while it works.
    fn unhealthy(&self) -> Option<String> {
        None
    }
    /// Why the process takes no work yet, or no more; `None` once it does.
    fn not_ready(&self) -> Option<String>;
    /// What a person should know of a process that works all the same.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// `InvalidRequest` where the address is not ours or in use.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error| {
            Error::new(ErrorKind::InvalidRequest, "listen for HTTP")
                .object(address)
                .hint("give a free address with --listen, e.g. 0.0.0.0:9117")
                .source(error)
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stopped` is over. Connections that are open then are dropped.
    pub async fn serve(self, pages: Arc<dyn Pages>, stopped: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.socket.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(stream, Arc::clone(&pages)));
                    }
                    // Out of descriptors, or the peer has gone: neither may become a busy loop.
                    Err(error) => {
                        tracing::debug!(%error, "accept no connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Arc<dyn Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(pages.as_ref(), request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, served).await {
        tracing::debug!(%error, "serve a connection");
    }
}

fn answer(pages: &dyn Pages, method: &Method, path: &str) -> Response<String> {
    if *method != Method::GET && *method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
        refused
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => match pages.metrics() {
            Ok(text) => typed(StatusCode::OK, text, METRICS_TYPE),
            Err(error) => {
                tracing::error!(%error, "write the metrics");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n")
            }
        },
        "/healthz" => state(pages.unhealthy(), None),
        "/readyz" => state(pages.not_ready(), pages.remark()),
        _ => plain(
            StatusCode::NOT_FOUND,
            "/metrics, /healthz and /readyz are served\n",
        ),
    }
}

fn state(obstacle: Option<String>, remark: Option<String>) -> Response<String> {
    match obstacle {
        None => plain(
            StatusCode::OK,
            remark.map_or_else(|| "ok\n".to_owned(), |remark| format!("ok: {remark}\n")),
        ),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<String> {
    typed(status, text.into(), "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, text: String, kind: &'static str) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream as StdStream;

    use super::*;

    struct Half;

    impl Pages for Half {
        fn metrics(&self) -> Result<String> {
            Ok("snaphaul_x 1\n".to_owned())
        }

        fn not_ready(&self) -> Option<String> {
            Some("drains".to_owned())
        }
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = StdStream::connect(address).unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_asked_is_answered_and_nothing_else() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = runtime.block_on(Listener::bind(address)).unwrap();
        let address = listener.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = runtime.spawn(listener.serve(Arc::new(Half), async {
            let _ = stopped.await;
        }));
        for (request, status, part) in [
            ("GET /metrics", "200", "\r\n\r\nsnaphaul_x 1\n"),
            ("GET /metrics?x=1", "200", "version=0.0.4"),
            ("GET /healthz", "200", "\r\n\r\nok\n"),
            ("GET /readyz", "503", "\r\n\r\ndrains\n"),
            ("GET /", "404", "/metrics"),
            ("POST /metrics", "405", "allow: GET, HEAD"),
        ] {
            let text = ask(address, request);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status}")),
                "{request}: {text}"
            );
            assert!(text.contains(part), "{request}: {text}");
        }
        stop.send(()).unwrap();
        runtime.block_on(server).unwrap();
        assert!(StdStream::connect(address).is_err());
    }

    #[test]
    fn an_address_in_use_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let first = Listener::bind("127.0.0.1:0".parse().unwrap())
                .await
                .unwrap();
            let error = Listener::bind(first.address()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        });
    }
}

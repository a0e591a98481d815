//! A SnapshotMetadata service that answers as it is told to, in both interfaces.
//!
//! Owns: the servers, and the list of what they were asked. Must not: be fair.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use changed_blocks::csi::{BlockType, MetadataMessage};
use csi_proto::csi::snapshot_metadata_server as driver;
use csi_proto::snapshot_metadata::snapshot_metadata_server as cluster;
use csi_proto::{Status, csi, snapshot_metadata};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response};

/// A call, as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Calls before this one.
    pub(crate) number: usize,
    /// Handle or name of the target.
    pub(crate) snapshot: String,
    /// Of a delta.
    pub(crate) base: Option<String>,
    pub(crate) offset: i64,
    pub(crate) max_results: i32,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) namespace: String,
    pub(crate) token: String,
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Message(MetadataMessage),
    /// Ends the stream with an error. As the first item it refuses the call.
    Fail(Status),
    /// Says nothing any more.
    Hang,
}

type Script = dyn Fn(&Asked) -> Vec<Item> + Send + Sync;

/// A service, and what it was asked.
#[derive(Clone)]
pub(crate) struct Scripted {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(crate) fn new(script: impl Fn(&Asked) -> Vec<Item> + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            asked: Arc::default(),
        }
    }

    /// Every call so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Where each call so far started.
    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.asked().iter().map(|asked| asked.offset).collect()
    }

    /// Serves `csi.v1` on a socket until the runtime is shut down.
    pub(crate) fn serve_driver(&self, runtime: &Runtime, socket: &Path) {
        let service = driver::SnapshotMetadataServer::new(self.clone());
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
    }

    /// Serves the Kubernetes interface with TLS on a free port, which is returned.
    pub(crate) fn serve_cluster(&self, runtime: &Runtime, identity: Identity) -> u16 {
        let service = cluster::SnapshotMetadataServer::new(self.clone());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap();
        let router = server.add_service(service);
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        port
    }

    fn answer<R>(&self, mut asked: Asked) -> Result<Response<Answers<R>>, Status>
    where
        R: From<Wire> + Send + 'static,
    {
        let mut list = self.asked.lock().unwrap();
        asked.number = list.len();
        list.push(asked.clone());
        drop(list);
        let items = (self.script)(&asked);
        if let Some(Item::Fail(status)) = items.first() {
            return Err(status.clone());
        }
        let hangs = items.iter().any(|item| matches!(item, Item::Hang));
        let items = items.into_iter().filter_map(|item| match item {
            Item::Message(message) => Some(Ok(R::from(Wire(message)))),
            Item::Fail(status) => Some(Err(status)),
            Item::Hang => None,
        });
        let items = tokio_stream::iter(items.collect::<Vec<_>>());
        Ok(Response::new(if hangs {
            Box::pin(items.chain(tokio_stream::pending()))
        } else {
            Box::pin(items)
        }))
    }
}

type Answers<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// A message on its way into one of the four types of responses.
struct Wire(MetadataMessage);

macro_rules! responses {
    ($($module:ident :: $response:ident),*) => {$(
        impl From<Wire> for $module::$response {
            fn from(Wire(message): Wire) -> Self {
                Self {
                    block_metadata_type: match message.block_type {
                        BlockType::Fixed => 1,
                        BlockType::Variable => 2,
                        BlockType::Other(number) => number,
                    },
                    volume_capacity_bytes: message.capacity,
                    block_metadata: message
                        .ranges
                        .into_iter()
                        .map(|(byte_offset, size_bytes)| $module::BlockMetadata {
                            byte_offset,
                            size_bytes,
                        })
                        .collect(),
                }
            }
        }
    )*};
}

responses!(
    csi::GetMetadataAllocatedResponse,
    csi::GetMetadataDeltaResponse,
    snapshot_metadata::GetMetadataAllocatedResponse,
    snapshot_metadata::GetMetadataDeltaResponse
);

#[tonic::async_trait]
impl driver::SnapshotMetadata for Scripted {
    type GetMetadataAllocatedStream = Answers<csi::GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Answers<csi::GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = request.into_inner();
        self.answer(Asked {
            snapshot: request.snapshot_id,
            offset: request.starting_offset,
            max_results: request.max_results,
            secrets: request.secrets,
            ..Asked::default()
        })
    }

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = request.into_inner();
        self.answer(Asked {
            snapshot: request.target_snapshot_id,
            base: Some(request.base_snapshot_id),
            offset: request.starting_offset,
            max_results: request.max_results,
            secrets: request.secrets,
            ..Asked::default()
        })
    }
}

#[tonic::async_trait]
impl cluster::SnapshotMetadata for Scripted {
    type GetMetadataAllocatedStream = Answers<snapshot_metadata::GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Answers<snapshot_metadata::GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<snapshot_metadata::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = request.into_inner();
        self.answer(Asked {
            snapshot: request.snapshot_name,
            offset: request.starting_offset,
            max_results: request.max_results,
            namespace: request.namespace,
            token: request.security_token,
            ..Asked::default()
        })
    }

    async fn get_metadata_delta(
        &self,
        request: Request<snapshot_metadata::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = request.into_inner();
        self.answer(Asked {
            snapshot: request.target_snapshot_name,
            base: Some(request.base_snapshot_id),
            offset: request.starting_offset,
            max_results: request.max_results,
            namespace: request.namespace,
            token: request.security_token,
            ..Asked::default()
        })
    }
}

//! SnapshotMetadata of a Kubernetes cluster: the sidecar of a driver, with TLS and a token in each request.
//!
//! Owns: the form of the two calls, and when a token is too old. Must not: know the API server (who makes tokens does), or log a
//! token.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use csi_proto::snapshot_metadata::snapshot_metadata_client::SnapshotMetadataClient;
use csi_proto::snapshot_metadata::{
    GetMetadataAllocatedRequest, GetMetadataAllocatedResponse, GetMetadataDeltaRequest,
    GetMetadataDeltaResponse,
};
use csi_proto::{Channel, Code, Status};

use super::service::{CallError, MetadataCall, MetadataQuestion, MetadataService};
use super::stream::{Answers, MAX_MESSAGE_BYTES, Responses, without_secrets};

/// A token with less life than this is not used for a new call. It is checked once, when the call starts.
const MIN_LIFE: Duration = Duration::from_secs(60);

/// A token for the audience that the service names, and when it ends.
#[derive(Clone)]
pub struct Token {
    /// What is sent.
    pub secret: String,
    /// When it ends, by the clock of whoever made it.
    pub expires: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nobody answered: a later try may succeed.
    #[error("cannot ask for a token: {0}")]
    Unreachable(String),
    /// It was refused.
    #[error("no token: {0}")]
    Refused(String),
}

/// A token, soon.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send + 'a>>;

/// Makes tokens: the TokenRequest of a service account, or a projected volume.
pub trait TokenSource: Send {
    /// A token that nobody was given before, where that can be had.
    fn token(&mut self) -> TokenFuture<'_>;
}

/// A VolumeSnapshot, as the service is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// Its namespace.
    pub namespace: String,
    /// Its name. Its status must say that it is ready: the sidecar does not look before it goes on.
    pub name: String,
}

/// What the service of a cluster says of a VolumeSnapshot.
pub struct ClusterMetadata {
    client: SnapshotMetadataClient<Channel>,
    snapshot: ClusterSnapshot,
    tokens: Box<dyn TokenSource>,
    token: Option<Token>,
}

impl fmt::Debug for ClusterMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterMetadata")
            .field("snapshot", &self.snapshot)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl ClusterMetadata {
    /// Asks the service behind `channel` (`csi_proto::connect::tls`) about `snapshot`.
    #[must_use]
    pub fn new(channel: Channel, snapshot: ClusterSnapshot, tokens: Box<dyn TokenSource>) -> Self {
        Self {
            client: SnapshotMetadataClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            snapshot,
            tokens,
            token: None,
        }
    }

    /// A token that lives long enough for a call to be let in.
    async fn fresh_token(&mut self) -> Result<String, CallError> {
        let soon = SystemTime::now() + MIN_LIFE;
        if let Some(token) = self.token.as_ref().filter(|token| token.expires > soon) {
            return Ok(token.secret.clone());
        }
        let made = self.tokens.token().await;
        let token = made.map_err(|error| {
            let code = match error {
                TokenError::Unreachable(_) => Code::Unavailable,
                TokenError::Refused(_) => Code::PermissionDenied,
            };
            CallError::new(code, error.to_string())
        })?;
        Ok(self.token.insert(token).secret.clone())
    }
}

/// The service asks the API server whether who holds the token may get snapshots: a refusal names the rule.
fn refused(status: &Status, namespace: &str, secrets: &[String]) -> CallError {
    let is_refusal = status.code() == Code::PermissionDenied;
    let mut error = without_secrets(status, secrets);
    if is_refusal {
        error.message.push_str(&format!(
            " (a role must allow in namespace {namespace}: get volumesnapshots, apiGroup snapshot.storage.k8s.io)"
        ));
    }
    error
}

impl MetadataService for ClusterMetadata {
    type Stream = Answers<GetMetadataAllocatedResponse, GetMetadataDeltaResponse>;

    async fn call(&mut self, call: &MetadataCall) -> Result<Self::Stream, CallError> {
        let security_token = self.fresh_token().await?;
        let ClusterSnapshot { namespace, name } = self.snapshot.clone();
        let client = &mut self.client;
        let place = namespace.clone();
        let secrets = vec![security_token.clone()];
        let responses = match &call.question {
            MetadataQuestion::Allocated => {
                let request = GetMetadataAllocatedRequest {
                    security_token,
                    namespace,
                    snapshot_name: name,
                    starting_offset: call.starting_offset,
                    max_results: call.max_results,
                };
                let response = client.get_metadata_allocated(request).await;
                let response = response.map_err(|status| refused(&status, &place, &secrets))?;
                Responses::Allocated(response.into_inner())
            }
            MetadataQuestion::Delta { base } => {
                let request = GetMetadataDeltaRequest {
                    security_token,
                    namespace,
                    base_snapshot_id: base.clone(),
                    target_snapshot_name: name,
                    starting_offset: call.starting_offset,
                    max_results: call.max_results,
                };
                let response = client.get_metadata_delta(request).await;
                let response = response.map_err(|status| refused(&status, &place, &secrets))?;
                Responses::Delta(response.into_inner())
            }
        };
        Ok(Answers { responses, secrets })
    }

    fn renew(&mut self) {
        self.token = None;
    }
}

//! Blocking requests to the API server, in plain JSON, for tests that stand for parts of a cluster or look at what a product left.
//!
//! Owns: the requests. Must not: use the product's types, whose mistakes it would share, or repeat what failed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A request that takes longer counts as failed: a frozen API server must not freeze those who only look.
const LIMIT: Duration = Duration::from_secs(60);

/// A client of one user. Paths are those of the API, e.g. `/api/v1/nodes`.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Api")
    }
}

/// The list of a namespaced kind: `list("/api/v1", "ns", "pods")`.
#[must_use]
pub fn in_namespace(group: &str, namespace: &str, kind: &str) -> String {
    format!("{group}/namespaces/{namespace}/{kind}")
}

impl Api {
    /// A client as whoever the kubeconfig names.
    ///
    /// # Errors
    /// Where the file cannot be used.
    pub fn connect(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let file = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(file, &options).await?;
            config.read_timeout = Some(LIMIT);
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// The object, if it exists.
    ///
    /// # Errors
    /// On every other answer.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        absent(self.send("GET", path, None))
    }

    /// The objects of a list, whose path may carry a selector.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self.send("GET", path, None)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => anyhow::bail!("{path} is no list"),
        }
    }

    /// Makes an object in a list.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("POST", path, Some(object))
    }

    /// The same where it may exist already.
    ///
    /// # Errors
    /// On every other refusal.
    pub fn create_once(&self, path: &str, object: &Value) -> Result<()> {
        match self.create(path, object) {
            Err(error) if status_code(&error) == Some(409) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Changes fields: a JSON merge patch.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        self.send("PATCH", path, Some(change))
    }

    /// Changes the status: the value of its field `status`, merged.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn set_status(&self, path: &str, status: &Value) -> Result<Value> {
        self.merge(&format!("{path}/status"), &json!({"status": status}))
    }

    /// Asks for the end of an object; one that is gone is no error.
    ///
    /// # Errors
    /// On every other refusal.
    pub fn delete(&self, path: &str) -> Result<()> {
        absent(self.send("DELETE", path, None)).map(drop)
    }

    /// Says that this object, and no later one of its name, has ended.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn remove(&self, path: &str, uid: &str) -> Result<()> {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        match self.send("DELETE", path, Some(&options)) {
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let bytes = body.map(serde_json::to_vec).transpose()?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(bytes.unwrap_or_default())?;
        self.runtime
            .block_on(self.client.request(request))
            .with_context(|| format!("{method} {path}"))
    }
}

/// The code of the API server's refusal.
#[must_use]
pub fn status_code(error: &anyhow::Error) -> Option<u16> {
    match error.downcast_ref::<Error>() {
        Some(Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn absent(answer: Result<Value>) -> Result<Option<Value>> {
    match answer {
        Err(error) if status_code(&error) == Some(404) => Ok(None),
        answer => answer.map(Some),
    }
}

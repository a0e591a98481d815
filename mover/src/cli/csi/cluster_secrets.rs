//! `--csi-secrets k8s:…`: the secrets of a driver, from the cluster of the kubeconfig.
//!
//! Owns: the two forms. Must not: show a value.

use kube::Client;

use super::super::config::invalid;
use crate::attach::csi::secrets::Secrets;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::secrets::{self, SecretPlace};

/// What is meant.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    One(SecretPlace),
    Classes {
        storage: String,
        snapshot: Option<String>,
    },
}

/// Reads what `text` names: `k8s:NAMESPACE/NAME` or `k8s-class:STORAGECLASS[/SNAPSHOTCLASS]`.
pub(super) fn read(text: &str) -> Result<Secrets> {
    let meant = parse(text)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Io, "speak to the cluster").source(error))?;
    runtime.block_on(async {
        let client = Client::try_default().await.map_err(|error| {
            invalid("find a cluster to read secrets from")
                .object(text)
                .hint("set KUBECONFIG, or run in a pod with a service account")
                .source(error)
        })?;
        match meant {
            Meant::One(place) => secrets::read_for_all(&client, &place).await,
            Meant::Classes { storage, snapshot } => {
                secrets::read_of_classes(&client, &storage, snapshot.as_deref()).await
            }
        }
    })
}

fn parse(text: &str) -> Result<Meant> {
    let parts = |rest: &str| -> Vec<String> { rest.split('/').map(str::to_owned).collect() };
    let meant = if let Some(rest) = text.strip_prefix("k8s:") {
        match &*parts(rest) {
            [namespace, name] => Some(Meant::One(SecretPlace {
                namespace: namespace.clone(),
                name: name.clone(),
            })),
            _ => None,
        }
    } else {
        match &*parts(text.strip_prefix("k8s-class:").unwrap_or_default()) {
            [storage] => Some(Meant::Classes {
                storage: storage.clone(),
                snapshot: None,
            }),
            [storage, snapshot] => Some(Meant::Classes {
                storage: storage.clone(),
                snapshot: Some(snapshot.clone()),
            }),
            _ => None,
        }
    };
    let is_empty = text.ends_with([':', '/']) || text.contains(":/") || text.contains("//");
    meant.filter(|_| !is_empty).ok_or_else(|| {
        invalid("read the place of a secret")
            .object(text)
            .hint("write k8s:NAMESPACE/NAME or k8s-class:STORAGECLASS[/SNAPSHOTCLASS]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forms_name_secrets() {
        let one = SecretPlace {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        };
        assert_eq!(parse("k8s:a/b").unwrap(), Meant::One(one));
        let classes = |snapshot: Option<&str>| Meant::Classes {
            storage: "s".to_owned(),
            snapshot: snapshot.map(str::to_owned),
        };
        assert_eq!(parse("k8s-class:s").unwrap(), classes(None));
        assert_eq!(parse("k8s-class:s/t").unwrap(), classes(Some("t")));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "k8s:",
            "k8s:a",
            "k8s:a/",
            "k8s:/b",
            "k8s:a/b/c",
            "k8s-class:",
            "k8s-class:a/",
            "k8s-class:a/b/c",
        ] {
            assert_eq!(
                parse(text).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{text}"
            );
        }
    }
}

//! `SnapshotMetadataService` of `cbt.storage.k8s.io`: who tells what changed in the snapshots of a driver.
//!
//! Owns: its fields, and in which version of its group it is read. Must not: connect to it.
//!
//! Facts: KEP-3314 and the definition in <https://github.com/kubernetes-csi/external-snapshot-metadata>: v1beta1 came with 1.0 of that
//! sidecar and took v1alpha1 away; both have the same fields.

use k8s_openapi::ByteString;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::kube::refusal::{Rule, failed};

const GROUP: &str = "cbt.storage.k8s.io";
const KIND: &str = "SnapshotMetadataService";
const PLURAL: &str = "snapshotmetadataservices";
/// Best first.
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];

/// What is needed to read one.
pub const READ: Rule = Rule {
    verb: "get",
    group: GROUP,
    resource: PLURAL,
};

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataService {
    /// `host:port` of the service.
    pub address: String,
    /// What tokens are to be made for.
    pub audience: String,
    /// PEM of the authorities that sign its certificate.
    pub ca_cert: ByteString,
    /// Whether a base snapshot must exist when a delta is asked for. No release up to 1.1 has the field (pull request 258 of the sidecar
    /// proposes it); where it is absent, the driver's profile says.
    #[serde(default)]
    pub require_base_snapshot_for_delta: Option<bool>,
}

/// Whether there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is, read in this version.
    Found(MetadataService, &'static str),
    /// There is none: nobody tells what changed, and why.
    Absent(String),
}

/// Reads the one of this name, in the newest version that the cluster serves.
///
/// # Errors
/// `AccessDenied` with the rule that is missing; `Unavailable` where the API server does not answer; `InvalidRequest` where the
/// object is not in the form.
pub async fn find(client: &Client, name: &str) -> Result<Lookup> {
    let Some(version) = served_version(client).await? else {
        return Ok(Lookup::Absent(format!(
            "the cluster does not know {KIND} ({GROUP} in {})",
            VERSIONS.join(" or ")
        )));
    };
    let kind = GroupVersionKind::gvk(GROUP, version, KIND);
    let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
    let services: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let object = match services.get_opt(name).await {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(Lookup::Absent(format!("there is no {KIND} named {name}"))),
        Err(error) => return Err(failed(error, &READ, name)),
    };
    Ok(Lookup::Found(read(&object, name)?, version))
}

/// The best version that the API server has, by discovery: an object that is not found does not tell a missing kind from a missing
/// object.
async fn served_version(client: &Client) -> Result<Option<&'static str>> {
    let groups = client.list_api_groups().await;
    let groups = groups.map_err(|error| failed(error, &READ, GROUP))?;
    let ours = groups.groups.iter().find(|group| group.name == GROUP);
    Ok(VERSIONS.into_iter().find(|version| {
        ours.is_some_and(|group| {
            group
                .versions
                .iter()
                .any(|served| served.version == *version)
        })
    }))
}

fn read(object: &DynamicObject, name: &str) -> Result<MetadataService> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let service: MetadataService = serde_json::from_value(spec)
        .map_err(|error| unusable(name, "understand the SnapshotMetadataService").source(error))?;
    for (field, empty) in [
        ("address", service.address.is_empty()),
        ("audience", service.audience.is_empty()),
        ("caCert", service.ca_cert.0.is_empty()),
    ] {
        if empty {
            return Err(unusable(
                name,
                &format!("use a SnapshotMetadataService whose {field} is empty"),
            ));
        }
    }
    Ok(service)
}

fn unusable(name: &str, message: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
        .object(name)
        .hint("its fields come with the driver's sidecar: address host:port, audience, and caCert as base64 of a PEM bundle")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: &serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_authority_is_decoded_and_unknown_fields_are_let_pass() {
        let spec = json!({"address": "a:1", "audience": "b", "caCert": "UEVN", "more": 1});
        let service = read(&object(&spec), "d").unwrap();
        assert_eq!(service.ca_cert.0, b"PEM");
        assert_eq!(service.require_base_snapshot_for_delta, None);
    }

    #[test]
    fn whether_a_base_must_exist_is_read() {
        let spec = json!({"address": "a:1", "audience": "b", "caCert": "UEVN", "requireBaseSnapshotForDelta": false});
        let service = read(&object(&spec), "d").unwrap();
        assert_eq!(service.require_base_snapshot_for_delta, Some(false));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for spec in [
            json!(null),
            json!({"address": "a:1", "audience": "b"}),
            json!({"address": "", "audience": "b", "caCert": "UEVN"}),
            json!({"address": "a:1", "audience": "b", "caCert": ""}),
            json!({"address": "a:1", "audience": "b", "caCert": "%"}),
        ] {
            let error = read(&object(&spec), "d").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{spec}");
        }
    }
}

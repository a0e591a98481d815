//! Calls that change the cluster, each of which can be repeated.
//!
//! Owns: create if absent, merge patch, delete with a precondition, finalizers. Must not: decide.
//!
//! Two leaders for a moment are harmless: names follow from UIDs, so the second create finds the first one's object; a delete names the
//! UID it was decided for; a status is written only over the version that was read.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::owner::owner_uid;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;
use crate::kube::api::names;

/// Field manager of everything that the controller writes.
pub const FIELD_MANAGER: &str = "snaphaul-controller";

/// What can be applied: any typed object.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// `Kind namespace/name` for messages.
pub fn title<K: Object>(metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or("?");
    match &metadata.namespace {
        Some(namespace) => format!("{} {namespace}/{name}", K::kind(&())),
        None => format!("{} {name}", K::kind(&())),
    }
}

/// Creates an object unless one of its name and owner exists, and gives the one that does.
///
/// # Errors
/// `InvalidRequest` where somebody else's object has the name, `Unavailable` where ours is just being deleted, and what the server
/// answers.
pub async fn ensure<K: Object>(api: &Api<K>, object: &K) -> Result<K> {
    let name = object.name_any();
    let about = title::<K>(object.meta());
    let found = match api.create(&post(), object).await {
        Ok(created) => return Ok(created),
        Err(error) if answer::is_conflict(&error) => api
            .get(&name)
            .await
            .map_err(|error| answer::failed("read", &about, error))?,
        Err(error) => return Err(answer::failed("create", &about, error)),
    };
    if owner_uid(found.meta()) != owner_uid(object.meta()) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "create an object whose name somebody else uses",
        )
        .object(about)
        .hint("remove or rename the object that stands there"));
    }
    if found.meta().deletion_timestamp.is_some() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "create an object that is just being deleted",
        )
        .object(about));
    }
    Ok(found)
}

/// Creates an object; nothing where its name is taken, by whomever.
///
/// # Errors
/// What the server answers.
pub async fn create<K: Object>(api: &Api<K>, object: &K) -> Result<Option<K>> {
    match api.create(&post(), object).await {
        Ok(created) => Ok(Some(created)),
        Err(error) if answer::is_conflict(&error) => Ok(None),
        Err(error) => Err(answer::failed("create", &title::<K>(object.meta()), error)),
    }
}

/// Changes fields of an object. Succeeds where it is gone, which leaves nothing to change.
///
/// # Errors
/// What the server answers.
pub async fn merge<K: Object>(api: &Api<K>, name: &str, change: &Value) -> Result<Option<K>> {
    match api.patch(name, &patch(), &Patch::Merge(change)).await {
        Ok(changed) => Ok(Some(changed)),
        Err(error) if answer::is_missing(&error) => Ok(None),
        Err(error) => Err(answer::failed(
            "change",
            &format!("{} {name}", K::kind(&())),
            error,
        )),
    }
}

/// Changes fields of the object that was looked at, in the version that was. Whether it was changed: one that is gone, or changed since, is
/// looked at anew by whoever is concerned.
///
/// # Errors
/// What the server answers.
pub async fn merge_seen<K: Object>(api: &Api<K>, seen: &K, change: &Value) -> Result<bool> {
    let name = seen.name_any();
    let mut change = change.clone();
    change["metadata"]["uid"] = seen.meta().uid.clone().into();
    change["metadata"]["resourceVersion"] = seen.meta().resource_version.clone().into();
    match api.patch(&name, &patch(), &Patch::Merge(&change)).await {
        Ok(_) => Ok(true),
        Err(error) if answer::is_missing(&error) || answer::is_conflict(&error) => Ok(false),
        Err(error) => Err(answer::failed(
            "change",
            &format!("{} {name}", K::kind(&())),
            error,
        )),
    }
}

/// Deletes the object that was looked at: the one with this UID. Succeeds where it is gone or another has its place.
///
/// # Errors
/// What the server answers.
pub async fn delete<K: Object>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    grace_seconds: Option<u32>,
) -> Result<()> {
    let parameters = DeleteParams {
        grace_period_seconds: grace_seconds,
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if answer::is_missing(&error) || answer::is_conflict(&error) => Ok(()),
        Err(error) => Err(answer::failed(
            "delete",
            &format!("{} {name}", K::kind(&())),
            error,
        )),
    }
}

/// Deletes the object in the version that was looked at. Whether it did: one that is gone, or changed since, is looked at anew by whoever
/// is concerned.
///
/// # Errors
/// What the server answers.
pub async fn delete_seen<K: Object>(api: &Api<K>, seen: &K) -> Result<bool> {
    let name = seen.name_any();
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: seen.meta().uid.clone(),
            resource_version: seen.meta().resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &parameters).await {
        Ok(_) => Ok(true),
        Err(error) if answer::is_missing(&error) || answer::is_conflict(&error) => Ok(false),
        Err(error) => Err(answer::failed(
            "delete",
            &format!("{} {name}", K::kind(&())),
            error,
        )),
    }
}

/// Adds or removes our finalizer. The version that was read is a condition: finalizers are a list, which a merge replaces whole.
///
/// # Errors
/// `Unavailable` where the object changed meanwhile, and what the server answers.
pub async fn set_finalizer<K>(api: &Api<K>, metadata: &ObjectMeta, present: bool) -> Result<()>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == names::FINALIZER) == present {
        return Ok(());
    }
    if present {
        finalizers.push(names::FINALIZER.to_owned());
    } else {
        finalizers.retain(|name| name != names::FINALIZER);
    }
    let name = metadata.name.clone().unwrap_or_default();
    let change = json!({"metadata": {
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }});
    merge(api, &name, &change).await.map(|_| ())
}

/// Writes what differs between two statuses over the version that was read; gives the object as it then is, or nothing where
/// nothing differs or it is gone.
///
/// # Errors
/// `Unavailable` where the object changed meanwhile, and what the server answers.
pub async fn status<K: Object, S: Serialize>(
    api: &Api<K>,
    metadata: &ObjectMeta,
    old: &S,
    new: &S,
) -> Result<Option<K>> {
    let Some(change) = merge_patch(&to_value(old)?, &to_value(new)?) else {
        return Ok(None);
    };
    let name = metadata.name.clone().unwrap_or_default();
    let body = json!({
        "metadata": {"resourceVersion": metadata.resource_version},
        "status": change,
    });
    match api
        .patch_status(&name, &patch(), &Patch::Merge(&body))
        .await
    {
        Ok(changed) => Ok(Some(changed)),
        Err(error) if answer::is_missing(&error) => Ok(None),
        Err(error) => Err(answer::failed(
            "write the status of",
            &title::<K>(metadata),
            error,
        )),
    }
}

fn to_value(status: &impl Serialize) -> Result<Value> {
    serde_json::to_value(status)
        .map_err(|error| Error::new(ErrorKind::Internal, "write a status").source(error))
}

/// The JSON merge patch (RFC 7386) from one value to another; nothing where they are equal.
#[must_use]
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(known) => {
                if let Some(change) = merge_patch(known, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_only_what_differs() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1], "f": null});
        let new = json!({"a": 1, "b": {"c": 2, "d": 4}, "e": [1, 2], "g": "x"});
        assert_eq!(
            merge_patch(&old, &new),
            Some(json!({"b": {"d": 4}, "e": [1, 2], "f": null, "g": "x"}))
        );
        assert_eq!(merge_patch(&old, &old), None);
    }
}

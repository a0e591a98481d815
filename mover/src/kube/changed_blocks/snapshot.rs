//! The VolumeSnapshot that is asked about: whether it is ready, and the change id that its driver wrote on it.
//!
//! Owns: what of it matters here. Must not: wait for it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

use super::Subject;
use crate::attach::csi::profile::Profile;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::refusal::{Rule, failed};

const READ: Rule = Rule {
    verb: "get",
    group: "snapshot.storage.k8s.io",
    resource: "volumesnapshots",
};

/// What matters of a VolumeSnapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// What the driver takes as a base in place of the handle, where its profile knows of such a thing.
    pub change_id: Option<String>,
    /// When it was taken, in seconds and nanoseconds since 1970: an older one than the last point's goes back (R10).
    pub created: Option<(i64, i32)>,
}

/// Looks at it.
pub(super) async fn facts(client: &Client, subject: &Subject, profile: &Profile) -> Result<Facts> {
    let kind = GroupVersionKind::gvk(READ.group, "v1", "VolumeSnapshot");
    let resource = ApiResource::from_gvk_with_plural(&kind, READ.resource);
    let snapshots: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &subject.namespace, &resource);
    let object = format!("{}/{}", subject.namespace, subject.name);
    let found = snapshots
        .get(&subject.name)
        .await
        .map_err(|error| failed(error, &READ, &object))?;
    let ready = found.data.pointer("/status/readyToUse");
    // The sidecar is known to fall over one without a status.
    if ready.and_then(serde_json::Value::as_bool) != Some(true) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "ask what changed in a snapshot that is not ready",
        )
        .object(object)
        .hint("wait until status.readyToUse of the VolumeSnapshot is true"));
    }
    let created = found.data.pointer("/status/creationTime");
    let created = created
        .and_then(serde_json::Value::as_str)
        .and_then(|time| time.parse::<Timestamp>().ok())
        .map(|time| (time.as_second(), time.subsec_nanosecond()));
    let annotations = found.metadata.annotations.unwrap_or_default();
    Ok(Facts {
        change_id: from_annotations(profile, &annotations).map(str::to_owned),
        created,
    })
}

/// Longest change id in bytes: what a point records has a limit, and those of drivers are well below it.
const MAX_CHANGE_ID_BYTES: usize = 1024;

/// The change id among the annotations of a VolumeSnapshot. A driver whose profile names an annotation that is not there has no
/// change ids here: then the handle counts, as for one that nobody could record.
#[must_use]
pub(super) fn from_annotations<'a>(
    profile: &Profile,
    annotations: &'a BTreeMap<String, String>,
) -> Option<&'a str> {
    let name = profile.change_id_annotation.as_deref()?;
    let id = annotations.get(name)?;
    (1..=MAX_CHANGE_ID_BYTES).contains(&id.len()).then_some(id)
}

//! `spec.sync` of a repository: what it holds becomes PodVolumeBackups again in a cluster that lost them.
//!
//! ```text
//!   points ──(held: a thread, page by page)──┐
//!   namespaces ──────────────────────────────┼─► plan (pure) ─► create, write down, remove ─► outcome (pure): status, `Synced`, event
//!   backups (watched) ───────────────────────┘
//! ```
//!
//! Owns: which resources it makes and how they are told from others. Must not: touch a point, or a resource that it did not make.
//!
//! A resource and its status are two requests, and a crash may come between them: the label that is there from the first request on says
//! that the backup was made elsewhere and is never run (`backup::next`), and only the controller may set it (a policy).
//!
//! Each namespace is offered each origin of points once, so that what somebody deletes does not come back. What was offered is in the status
//! of the repository as one fingerprint for each pair of namespaces: bounded by namespaces, not by points.

mod held;
mod outcome;
mod plan;
mod record;
mod run;

pub use outcome::Done;
pub use run::run;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kube::api::names;

/// What the name of each of its resources begins with; the id of the point follows.
const PREFIX: &str = "point-";

/// Whether `sync` made this backup of a point that was there before: it is never run.
#[must_use]
pub fn is_synced(metadata: &ObjectMeta) -> bool {
    label(metadata, names::SYNCED).is_some()
}

/// Whether it is one of another namespace's point: that is not for this namespace to forget.
#[must_use]
pub fn is_granted(metadata: &ObjectMeta) -> bool {
    label(metadata, names::SYNCED).is_some_and(|value| value != names::SYNCED_OWN)
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Name of the resource of a point.
fn name_of(point: &str) -> String {
    format!("{PREFIX}{point}")
}

/// The point that a name was made of.
fn point_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

//! What the API server tells of the orders of this node.
//!
//! Owns: the two watches. Must not: decide anything.

use std::pin::Pin;

use ::kube::api::{Api, ApiResource, DynamicObject};
use ::kube::runtime::WatchStreamExt as _;
use ::kube::runtime::watcher::{self, Event, watcher};
use ::kube::{Client, ResourceExt as _};
use futures::{Stream, StreamExt as _};

use super::work::{Kind, Work};
use crate::kube::answer::is_missing;
use crate::kube::api::backup::PodVolumeBackup;
use crate::kube::api::restore::PodVolumeRestore;

/// One thing that was told.
#[derive(Debug)]
pub(super) enum Seen {
    /// A list of all orders of this kind follows.
    ListBegins(Kind),
    Listed(Kind, String, Option<Work>),
    /// What was not listed is gone.
    ListEnds(Kind),
    /// A resource, with its order if it has one.
    Changed(String, Option<Work>),
    Gone(String),
    /// The API server has no such kind. What is known of it stays: no list said that it is gone.
    Undefined(Kind),
    Failed(String),
}

/// Orders as they come, as long as this is asked.
pub(super) type Orders = Pin<Box<dyn Stream<Item = Seen> + Send>>;

/// Watches backups and restores of a node.
pub(super) fn all(client: &Client, node: &str) -> Orders {
    let backups = one(
        client,
        node,
        Kind::Backup,
        &ApiResource::erase::<PodVolumeBackup>(&()),
    );
    let restores = one(
        client,
        node,
        Kind::Restore,
        &ApiResource::erase::<PodVolumeRestore>(&()),
    );
    Box::pin(futures::stream::select(backups, restores))
}

/// The server filters: an agent neither sees nor stores what other nodes do. Lists come in pages, by a plain list, which every
/// supported etcd can serve. They are taken as they are: one resource that is not understood must not hide the others of its list.
fn one(
    client: &Client,
    node: &str,
    kind: Kind,
    resource: &ApiResource,
) -> impl Stream<Item = Seen> + Send + use<> {
    let work = move |resource: &DynamicObject| Work::of(kind, resource);
    let config = watcher::Config::default().fields(&format!("status.node={node}"));
    let all = Api::<DynamicObject>::all_with(client.clone(), resource);
    watcher(all, config)
        .default_backoff()
        .map(move |event| match event {
            Ok(Event::Init) => Seen::ListBegins(kind),
            Ok(Event::InitApply(resource)) => {
                Seen::Listed(kind, resource.uid().unwrap_or_default(), work(&resource))
            }
            Ok(Event::InitDone) => Seen::ListEnds(kind),
            Ok(Event::Apply(resource)) => {
                Seen::Changed(resource.uid().unwrap_or_default(), work(&resource))
            }
            Ok(Event::Delete(resource)) => Seen::Gone(resource.uid().unwrap_or_default()),
            Err(watcher::Error::InitialListFailed(error)) if is_missing(&error) => {
                Seen::Undefined(kind)
            }
            Err(error) => Seen::Failed(error.to_string()),
        })
}

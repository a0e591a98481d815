//! Looking up in what the controller lists.
//!
//! Owns: the request, and reading on until it is found or the list ends. Must not: judge what is found.

use std::cell::RefCell;
use std::time::Instant;

use csi_proto::{Code, csi};

use super::super::answer::{Outcome, Rpc};
use super::super::call::CallError;
use super::super::secrets::Group;
use super::pages::{Endless, Pages};
use super::{Answer, Driver, MadeSnapshot, MadeVolume};
use crate::error::{Error, ErrorKind};

impl Driver {
    /// The snapshot of this id, and of this volume, if there is one.
    pub(in crate::attach::csi) fn find_snapshot(
        &self,
        id: &str,
        volume: &str,
    ) -> Answer<Option<MadeSnapshot>> {
        // By both, so that a driver that looks at one of them alone answers, too.
        self.find((id, volume), &|snapshot| {
            snapshot.snapshot_id == id && snapshot.source_volume_id == volume
        })
    }

    /// The snapshot of this id, of whatever volume.
    pub(in crate::attach::csi) fn find_any_snapshot(
        &self,
        id: &str,
    ) -> Answer<Option<MadeSnapshot>> {
        self.find((id, ""), &|snapshot| snapshot.snapshot_id == id)
    }

    /// The ids of every snapshot of a volume, and of those of which the driver does not say what they are of.
    pub(in crate::attach::csi) fn snapshots_of(&self, volume: &str) -> Answer<Vec<String>> {
        let ids = RefCell::new(Vec::new());
        self.find(("", volume), &|snapshot| {
            if snapshot.source_volume_id.is_empty() || snapshot.source_volume_id == volume {
                ids.borrow_mut().push(snapshot.snapshot_id.clone());
            }
            false
        })?;
        Ok(ids.into_inner())
    }

    /// The first volume that is listed and is it.
    pub(in crate::attach::csi) fn find_volume(
        &self,
        object: &str,
        is_it: &dyn Fn(&MadeVolume) -> bool,
    ) -> Answer<Option<MadeVolume>> {
        let mut found = None;
        self.walk(Rpc::ListVolumes, object, &mut |token| {
            let page = self.volumes(object, token)?.unwrap_or_default();
            let volumes = page.entries.into_iter().filter_map(|entry| entry.volume);
            found = volumes.map(MadeVolume::from).find(is_it);
            Ok(found.is_none().then_some(page.next_token))
        })?;
        Ok(found)
    }

    /// Not every driver looks at the filters of the request: what it lists is looked through.
    fn find(
        &self,
        (id, volume): (&str, &str),
        is_it: &dyn Fn(&csi::Snapshot) -> bool,
    ) -> Answer<Option<MadeSnapshot>> {
        let mut found = None;
        let object = if id.is_empty() { volume } else { id };
        self.walk(Rpc::ListSnapshots, object, &mut |token| {
            let page = self.page((id, volume), token)?.unwrap_or_default();
            let mut snapshots = page.entries.into_iter().filter_map(|entry| entry.snapshot);
            found = snapshots.find(is_it).map(MadeSnapshot::from);
            Ok(found.is_none().then_some(page.next_token))
        })?;
        Ok(found)
    }

    /// Reads a list page by page: `ask` takes the token of a page and gives that of the next, or none where it needs no more.
    fn walk(
        &self,
        rpc: Rpc,
        object: &str,
        ask: &mut dyn FnMut(&str) -> Answer<Option<String>>,
    ) -> Answer<()> {
        let (started, mut pages) = (Instant::now(), Pages::default());
        let endless = |why| self.endless(rpc, object, why);
        loop {
            let next = match ask(pages.token()) {
                // The specification wants an empty list; not every driver has read it.
                Err(failed) if failed.code == Some(Code::NotFound) && pages.token().is_empty() => {
                    return Ok(());
                }
                Err(failed) if failed.code == Some(Code::Aborted) && !pages.token().is_empty() => {
                    pages.restart().map_err(endless)?;
                    continue;
                }
                next => next?,
            };
            let Some(next) = next else {
                return Ok(());
            };
            if !pages.follow(next).map_err(endless)? {
                return Ok(());
            }
            if started.elapsed() > self.caller.deadlines.expose {
                return Err(endless(Endless::TooMany));
            }
        }
    }

    fn page(
        &self,
        (id, volume): (&str, &str),
        token: &str,
    ) -> Answer<Option<csi::ListSnapshotsResponse>> {
        let message = csi::ListSnapshotsRequest {
            snapshot_id: id.to_owned(),
            source_volume_id: volume.to_owned(),
            starting_token: token.to_owned(),
            secrets: self.caller.secrets.of(Group::SnapshotterList),
            ..csi::ListSnapshotsRequest::default()
        };
        let rpc = if token.is_empty() {
            Rpc::ListSnapshots
        } else {
            Rpc::NextSnapshots
        };
        let client = self.controller_client();
        self.caller.call(rpc, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.list_snapshots(request).await }
        })
    }

    fn volumes(&self, object: &str, token: &str) -> Answer<Option<csi::ListVolumesResponse>> {
        let message = csi::ListVolumesRequest {
            starting_token: token.to_owned(),
            ..csi::ListVolumesRequest::default()
        };
        let rpc = if token.is_empty() {
            Rpc::ListVolumes
        } else {
            Rpc::NextVolumes
        };
        let client = self.controller_client();
        self.caller.call(rpc, object, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.list_volumes(request).await }
        })
    }

    fn endless(&self, rpc: Rpc, object: &str, why: Endless) -> CallError {
        let message = format!("{} by {}: {}", rpc.name(), self.name, why.why());
        let error = Error::new(ErrorKind::Io, message)
            .object(object)
            .hint("look at the log of the driver, and report it to its makers if it comes again");
        CallError {
            error,
            outcome: Outcome::NotDone,
            code: None,
        }
    }
}

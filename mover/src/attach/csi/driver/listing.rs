//! Looking a snapshot up in what the controller lists.
//!
//! Owns: the request, and reading on until it is found or the list ends. Must not: judge what is found.

use std::time::Instant;

use csi_proto::{Code, csi};

use super::super::answer::{Outcome, Rpc};
use super::super::call::CallError;
use super::super::secrets::Group;
use super::pages::{Endless, Pages};
use super::{Answer, Driver, MadeSnapshot};
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

    /// Not every driver looks at the filters of the request: what it lists is looked through.
    fn find(
        &self,
        (id, volume): (&str, &str),
        is_it: &dyn Fn(&csi::Snapshot) -> bool,
    ) -> Answer<Option<MadeSnapshot>> {
        let (started, mut pages) = (Instant::now(), Pages::default());
        loop {
            let page = match self.page((id, volume), pages.token()) {
                // The specification wants an empty list; not every driver has read it.
                Err(failed) if failed.code == Some(Code::NotFound) && pages.token().is_empty() => {
                    return Ok(None);
                }
                Err(failed) if failed.code == Some(Code::Aborted) && !pages.token().is_empty() => {
                    pages.restart().map_err(|why| self.endless(id, why))?;
                    continue;
                }
                page => page?.unwrap_or_default(),
            };
            let mut snapshots = page.entries.into_iter().filter_map(|entry| entry.snapshot);
            if let Some(found) = snapshots.find(is_it) {
                return Ok(Some(MadeSnapshot::from(found)));
            }
            let goes_on = pages.follow(page.next_token);
            if !goes_on.map_err(|why| self.endless(id, why))? {
                return Ok(None);
            }
            if started.elapsed() > self.caller.deadlines.expose {
                return Err(self.endless(id, Endless::TooMany));
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

    fn endless(&self, id: &str, why: Endless) -> CallError {
        let message = format!(
            "{} by {}: {}",
            Rpc::ListSnapshots.name(),
            self.name,
            why.why()
        );
        let error = Error::new(ErrorKind::Io, message)
            .object(id)
            .hint("look at the log of the driver, and report it to its makers if it comes again");
        CallError {
            error,
            outcome: Outcome::NotDone,
            code: None,
        }
    }
}

//! How large a volume is, where its driver tells.
//!
//! Owns: the two calls that tell it, the one for one volume first. Must not: fail: what is not told is not known.

use std::time::{Duration, Instant};

use csi_proto::csi;

use super::super::answer::Rpc;
use super::pages::Pages;
use super::{Answer, Driver};
use crate::pipeline::progress::StopFlag;

/// A backup does well without the answer in most cases, so that nobody waits for it for long.
const PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Bytes of a volume; 0 where the driver does not tell.
    pub(in crate::attach::csi) fn capacity(&self, volume: &str, stop: Option<&StopFlag>) -> i64 {
        let hurried = self.with_patience(PATIENCE);
        let told = if self.abilities.get_volume {
            hurried.get_capacity(volume, stop)
        } else if self.abilities.list_volumes {
            hurried.list_capacity(volume, stop)
        } else {
            Ok(None)
        };
        let told = told.unwrap_or_else(|failed| {
            tracing::info!(volume, error = %failed.error, "how large the volume is stays unknown");
            None
        });
        told.map_or(0, |volume| volume.capacity_bytes.max(0))
    }

    fn get_capacity(&self, volume: &str, stop: Option<&StopFlag>) -> Answer<Option<csi::Volume>> {
        let rpc = Rpc::ControllerGetVolume;
        let message = csi::ControllerGetVolumeRequest {
            volume_id: volume.to_owned(),
        };
        let client = self.controller_client();
        let answer = self.caller.call(rpc, volume, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.controller_get_volume(request).await }
        })?;
        let told = answer.and_then(|answer| answer.volume);
        Ok(told.filter(|told| told.volume_id == volume))
    }

    fn list_capacity(&self, volume: &str, stop: Option<&StopFlag>) -> Answer<Option<csi::Volume>> {
        let (started, mut pages) = (Instant::now(), Pages::default());
        loop {
            let message = csi::ListVolumesRequest {
                max_entries: 0,
                starting_token: pages.token().to_owned(),
            };
            let client = self.controller_client();
            let page = self.caller.call(Rpc::ListVolumes, volume, stop, || {
                let (mut client, request) = (client.clone(), self.request(message.clone()));
                async move { client.list_volumes(request).await }
            })?;
            let page = page.unwrap_or_default();
            let mut volumes = page.entries.into_iter().filter_map(|entry| entry.volume);
            if let Some(found) = volumes.find(|found| found.volume_id == volume) {
                return Ok(Some(found));
            }
            // A list that does not end, or takes too long, tells nothing.
            if !pages.follow(page.next_token).unwrap_or(false) || started.elapsed() > PATIENCE {
                return Ok(None);
            }
        }
    }
}

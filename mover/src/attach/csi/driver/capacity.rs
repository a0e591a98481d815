//! How large a volume is, where its driver tells.
//!
//! Owns: the two calls that tell it, the one for one volume first. Must not: fail: what is not told is not known.

use std::time::Duration;

use csi_proto::csi;

use super::super::answer::Rpc;
use super::{Answer, Driver, MadeVolume};
use crate::pipeline::progress::StopFlag;

/// A backup does well without the answer in most cases, so that nobody waits for it for long.
const PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Bytes of a volume; 0 where the driver does not tell.
    pub(in crate::attach::csi) fn capacity(&self, volume: &str, stop: Option<&StopFlag>) -> i64 {
        let hurried = self.with_patience(PATIENCE);
        let told = if self.abilities.get_volume {
            hurried.get_volume(volume, stop)
        } else if self.abilities.list_volumes {
            hurried.find_volume(volume, &|found| found.id == volume)
        } else {
            Ok(None)
        };
        let told = told.unwrap_or_else(|failed| {
            tracing::info!(volume, error = %failed.error, "how large the volume is stays unknown");
            None
        });
        told.map_or(0, |volume| volume.bytes)
    }

    fn get_volume(&self, volume: &str, stop: Option<&StopFlag>) -> Answer<Option<MadeVolume>> {
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
        let told = told.filter(|told| told.volume_id == volume);
        Ok(told.map(MadeVolume::from))
    }
}

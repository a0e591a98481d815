//! What everybody else does in the simulated cluster: one rule for each of its controllers.
//!
//! Owns: the rules. Must not: be gentler than Kubernetes: an object with dependants stays until they are gone.

use super::{World, content};
use crate::kube::api::backup::PointStatus;
use crate::kube::api::transfer::{TransferState, TransferStatus};
use crate::kube::controller::backup::view::*;
use crate::kube::foreign::snapshot::SnapshotDeletion;

/// Number of rules.
pub(super) const RULES: u8 = 12;

impl World {
    /// One rule of the cluster.
    pub(super) fn progress(&mut self, luck: u8) {
        match luck % RULES {
            0 => self.snapshot_controller(),
            1 => {
                if let (Some(copy), Some(_)) =
                    (&mut self.seen.copy_snapshot, &self.seen.copy_content)
                {
                    copy.ready = true;
                }
            }
            2 => self.provisioner(),
            3 => {
                if let Some(holder) = self.seen.holder.as_mut().filter(|holder| !holder.deleting) {
                    holder.node = Some("n1".to_owned());
                    holder.ready = self.seen.claim.as_ref().is_some_and(|claim| claim.bound);
                }
            }
            4 if !self.agent_frozen => self.answer(TransferState::Running),
            5 if !self.agent_frozen => self.agent_works(),
            6 if self.pods_stuck => {}
            6 => self.seen.holder = self.seen.holder.take().filter(|holder| !holder.deleting),
            7 => {
                // The claim is protected while a pod uses it; the volume goes after it, if it may.
                if self.seen.holder.is_none() {
                    let goes = self.seen.claim.as_ref().is_some_and(|claim| claim.deleting);
                    if goes {
                        self.seen.claim = None;
                        let lost = self.seen.foreign.take().is_some_and(|found| !found.kept);
                        assert!(!lost, "a volume of somebody else went with our claim");
                        if !self.driver_gone {
                            self.seen.volume =
                                self.seen.volume.take().filter(|volume| !volume.secured);
                        }
                    }
                }
            }
            8 => Self::snapshot_goes(&mut self.seen.copy_snapshot, &mut self.seen.copy_content),
            9 => Self::snapshot_goes(&mut self.seen.snapshot, &mut self.seen.content),
            10 => Self::snapshot_goes(&mut self.seen.base_snapshot, &mut self.seen.base_content),
            _ => self.contents_go(),
        }
    }

    fn snapshot_controller(&mut self) {
        if self.shape.user_snapshot || self.driver_gone {
            return;
        }
        let Some(snapshot) = self
            .seen
            .snapshot
            .as_mut()
            .filter(|snapshot| !snapshot.deleting)
        else {
            return;
        };
        if self.seen.content.is_none() {
            let policy = if self.shape.class_retains {
                SnapshotDeletion::Retain
            } else {
                SnapshotDeletion::Delete
            };
            self.seen.content = Some(content("snapcontent-1", "o0", "s-new", policy));
            self.backend.insert("s-new".to_owned());
        } else {
            snapshot.ready = true;
        }
    }

    fn provisioner(&mut self) {
        let Some(claim) = self.seen.claim.as_mut().filter(|claim| !claim.deleting) else {
            return;
        };
        if !claim.bound && self.seen.holder.is_some() && !self.driver_gone {
            claim.bound = true;
            if self.binder_prefers_others {
                self.seen.foreign = Some(ForeignVolume {
                    name: "theirs".to_owned(),
                    kept: false,
                });
            } else {
                self.seen.volume = Some(VolumeView {
                    name: "pv".to_owned(),
                    secured: false,
                });
            }
        }
    }

    pub(super) fn answer(&mut self, state: TransferState) {
        let up = self.agent_up && (!self.agent_deaf || self.taken());
        let Some(status) = self
            .backup
            .as_mut()
            .and_then(|backup| backup.status.as_mut())
        else {
            return;
        };
        let Some(order) = status.order.clone().filter(|_| up) else {
            return;
        };
        let known = status
            .transfer
            .as_ref()
            .filter(|known| known.attempt == order.attempt);
        if known.is_some_and(|known| known.state != TransferState::Running)
            || status.phase.unwrap_or_default().is_terminal()
            || (order.stop.is_some() && known.is_none() && state != TransferState::Stopped)
        {
            return;
        }
        status.transfer = Some(TransferStatus {
            attempt: order.attempt,
            state,
            last_progress: Some(self.now.to_string()),
            ..TransferStatus::default()
        });
        if state == TransferState::Succeeded {
            status.point = Some(PointStatus {
                id: "p".to_owned(),
                repository_id: "r".to_owned(),
            });
        }
    }

    fn agent_works(&mut self) {
        let stop = self
            .backup
            .as_ref()
            .and_then(|backup| backup.status.as_ref()?.order.as_ref()?.stop.clone());
        let open = self.seen.holder.as_ref().is_some_and(|holder| holder.ready);
        self.answer(match (stop, open) {
            (Some(_), _) => TransferState::Stopped,
            (None, true) => TransferState::Succeeded,
            (None, false) => TransferState::Interrupted,
        });
    }

    fn snapshot_goes(snapshot: &mut Option<SnapshotView>, content: &mut Option<ContentView>) {
        if snapshot.as_ref().is_some_and(|snapshot| snapshot.deleting) {
            *snapshot = None;
            if let Some(content) = content.as_mut() {
                content.deleting |= content.policy == SnapshotDeletion::Delete;
            }
        }
    }

    fn contents_go(&mut self) {
        if self.driver_gone {
            return;
        }
        let with = [
            (&mut self.seen.content, self.seen.snapshot.is_some()),
            (
                &mut self.seen.copy_content,
                self.seen.copy_snapshot.is_some(),
            ),
            (
                &mut self.seen.base_content,
                self.seen.base_snapshot.is_some(),
            ),
        ];
        for (content, has_snapshot) in with {
            let goes = content
                .as_ref()
                .is_some_and(|content| content.deleting && !has_snapshot);
            if let Some(content) = content.take_if(|_| goes)
                && content.policy == SnapshotDeletion::Delete
            {
                let original = content.original.unwrap();
                self.backend.remove(&original.handle);
            }
        }
    }
}

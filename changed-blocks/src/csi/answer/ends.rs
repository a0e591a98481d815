//! What follows the end of a call, good or bad.
//!
//! Owns: when an answer is complete, and when it is given up. Must not: look at a range.

use std::time::Duration;

use csi_proto::Code;

use super::super::reaction::{self, Reaction};
use super::super::service::CallError;
use super::{Answer, Doubt, MAX_BACK_OFF, MAX_FAILURES, Next, doubt};

impl Answer {
    /// The stream ended without an error.
    pub(in crate::csi) fn ended(&mut self) -> Next {
        let confirmed = self.ended_at.replace(self.end) == Some(self.end);
        if confirmed || self.reaches_the_end() {
            return Next::Complete;
        }
        Next::Call {
            wait: Duration::ZERO,
            renew: false,
        }
    }

    /// The call failed, at its start or later.
    pub(in crate::csi) fn failed(&mut self, error: &CallError) -> Result<Next, Doubt> {
        let renew = match reaction::to(error.code) {
            Reaction::Stop(why) => return doubt(format!("{error}: {why}")),
            Reaction::BehindTheEnd => return self.behind_the_end(error),
            Reaction::NewToken if self.renewed => {
                return doubt(format!("{error}: refused again with new credentials"));
            }
            Reaction::NewToken => {
                self.renewed = true;
                return Ok(Next::Call {
                    wait: Duration::ZERO,
                    renew: true,
                });
            }
            Reaction::Again => false,
            Reaction::AgainWithToken => true,
        };
        self.failures += 1;
        self.failures_in_a_row += 1;
        let (all, row) = (self.failures, self.failures_in_a_row);
        if row >= self.patience.attempts || all >= MAX_FAILURES {
            return doubt(format!(
                "{error}: {all} calls failed, {row} of them in a row"
            ));
        }
        Ok(Next::Call {
            wait: self.back_off(),
            renew,
        })
    }

    fn back_off(&self) -> Duration {
        let doubled = 1_u32
            .checked_shl(self.failures_in_a_row.saturating_sub(1))
            .and_then(|factor| self.patience.back_off.checked_mul(factor));
        doubled.unwrap_or(MAX_BACK_OFF).min(MAX_BACK_OFF)
    }

    /// Servers differ in how they answer a call that starts at the end: without ranges, or with this error. In the middle of a
    /// volume it contradicts what was told before.
    fn behind_the_end(&self, error: &CallError) -> Result<Next, Doubt> {
        debug_assert_eq!(error.code, Code::OutOfRange);
        let confirms = self.ended_at == Some(self.end) || self.reaches_the_end();
        if self.call.has_ranges || self.end == 0 || !confirms {
            let end = self.end;
            return doubt(format!(
                "{error}: although the volume does not end at {end}"
            ));
        }
        Ok(Next::Complete)
    }

    /// Whether nothing can follow.
    fn reaches_the_end(&self) -> bool {
        self.end >= self.device || self.capacity.is_some_and(|capacity| self.end >= capacity)
    }
}

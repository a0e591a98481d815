//! While an agent has an order.
//!
//! Owns: what each answer means, stops, and deadlines of the transfer. Must not: act on an answer to another attempt than the order's.

use super::{Step, Verdict, elapsed};
use crate::kube::api::Phase;
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::api::transfer::{TransferOrder, TransferState, TransferStatus};
use crate::kube::controller::attempts;
use crate::kube::controller::conditions::{self, Is};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

impl Step<'_> {
    pub(super) fn supervise(&mut self) {
        let status = &self.next.status;
        let Some(order) = status.order.clone() else {
            return;
        };
        let answer = status
            .transfer
            .clone()
            .filter(|answer| answer.attempt == order.attempt);
        let state = answer.as_ref().map(|answer| answer.state);
        if state == Some(TransferState::Succeeded) {
            self.succeeded();
            return;
        }
        if !conditions::is(&status.conditions, kinds::DEVICE_READY, Is::True) {
            // The attempt was given up and is being made again; nobody is there to be stopped.
            match self.stop_wanted() {
                Some((reason, why)) => self.decide(Verdict::Canceled, reason, &why),
                None => {
                    if self.has_snapshot() {
                        self.expose();
                    }
                }
            }
            return;
        }
        match (state, answer) {
            (Some(TransferState::Failed), Some(answer)) => self.failed(&answer),
            (Some(TransferState::Stopped | TransferState::Interrupted), Some(answer)) => {
                self.ended_early(&order, &answer);
            }
            (state, answer) => self.runs(&order, state.is_some(), answer.as_ref()),
        }
    }

    fn succeeded(&mut self) {
        if self.next.status.point.is_none() {
            self.decide(
                Verdict::Failed,
                Reason::TransferFailed,
                "the agent reported success and named no point",
            );
            return;
        }
        self.decide(Verdict::Succeeded, Reason::Done, "the point is stored");
    }

    fn failed(&mut self, answer: &TransferStatus) {
        let message = answer
            .message
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned());
        let why = match &answer.error_kind {
            Some(kind) => format!("{message} ({kind})"),
            None => message,
        };
        self.decide(Verdict::Failed, Reason::TransferFailed, &why);
    }

    fn ended_early(&mut self, order: &TransferOrder, answer: &TransferStatus) {
        if order.stop.is_some() {
            self.decide_stopped(order);
            return;
        }
        if let Some((reason, why)) = self.stop_wanted() {
            self.decide(Verdict::Canceled, reason, &why);
            return;
        }
        let why = answer
            .message
            .clone()
            .unwrap_or_else(|| "the agent was interrupted".to_owned());
        let holder = self.seen.holder.as_ref();
        let stands = holder.is_some_and(|holder| holder.ready && !holder.deleting)
            && holder.and_then(|holder| holder.node.as_ref()) == self.next.status.node.as_ref();
        if !stands || self.seen.agent_lost.is_some() || order.attempt >= attempts::MOST {
            self.lose(&why);
            return;
        }
        let pause = attempts::pause_after(order.attempt);
        let since = order.since.as_ref().map_or(self.now, |time| time.0);
        if !self.is_over(since, pause) {
            self.say(&format!("another attempt is made soon: {why}"));
            self.look_in(pause.saturating_sub(elapsed(since, self.now)));
            return;
        }
        // Pod and device stand: the next attempt takes them as they are.
        let mut again = order.clone();
        again.attempt += 1;
        again.since = Some(Time(self.now));
        self.next.status.order = Some(again);
        self.next.status.phase = Some(Phase::Prepared);
        self.wait(&format!(
            "attempt {} of {}: {why}",
            order.attempt + 1,
            attempts::MOST
        ));
    }

    /// The agent works, or has not answered yet.
    fn runs(&mut self, order: &TransferOrder, answered: bool, answer: Option<&TransferStatus>) {
        let since = order.since.as_ref().map_or(self.now, |time| time.0);
        let lost = self
            .seen
            .agent_lost
            .is_some_and(|time| time >= self.limits.agent_lost);
        if order.stop.is_some() {
            if lost || self.is_over(since, self.limits.stop) {
                self.decide_stopped(order);
            } else {
                self.wait("waiting for the agent to stop");
            }
            return;
        }
        if let Some((reason, why)) = self.stop_wanted() {
            self.stop(order, reason, &why);
            self.next.status.phase = Some(Phase::Canceling);
            return;
        }
        if lost {
            self.lose(
                "the node has no ready agent any more; another attempt is made where there is one",
            );
            return;
        }
        if !answered && self.seen.untaken >= self.limits.no_progress {
            let node = self.next.status.node.clone().unwrap_or_default();
            self.lose(&format!(
                "the agent of node {node} is ready and moves nothing, and did not take the order in time; another attempt is made"
            ));
            return;
        }
        if !answered && !self.seen.untaken.is_zero() {
            self.wait("the device is open; waiting for the agent, which has nothing else to do, to take the order");
            return;
        }
        if !answered {
            // An agent does so many at once as it has slots, and whoever waits for one waits for as long as they take.
            self.wait("the device is open; waiting for a free slot of the agent");
            if self.seen.agent_lost.is_some() {
                self.look_in(self.limits.agent_lost);
            }
            return;
        }
        let moved = answer
            .and_then(|answer| answer.last_progress.as_deref()?.parse::<Timestamp>().ok())
            .map_or(since, |moved| moved.max(since));
        if self.is_over(moved, self.limits.no_progress) {
            let why = "no byte was moved for longer than allowed";
            self.stop(order, Reason::NoProgress, why);
            return;
        }
        self.next.status.phase = Some(Phase::InProgress);
        let why = "the agent moves data";
        self.set(kinds::SUCCEEDED, Is::Unknown, Reason::Moving, why);
        self.wait(why);
        if self.seen.agent_lost.is_some() {
            self.look_in(self.limits.agent_lost);
        }
    }

    fn stop(&mut self, order: &TransferOrder, reason: Reason, why: &str) {
        let mut stopped = order.clone();
        stopped.stop = Some(format!("{}: {why}", reason.as_str()));
        stopped.since = Some(Time(self.now));
        self.next.status.order = Some(stopped);
        self.wait(&format!("waiting for the agent to stop: {why}"));
    }

    fn decide_stopped(&mut self, order: &TransferOrder) {
        let text = order.stop.as_deref().unwrap_or_default();
        let (word, why) = text.split_once(": ").unwrap_or((text, text));
        match Reason::parse(word) {
            Some(reason @ (Reason::Cancelled | Reason::DeadlineExceeded)) => {
                self.decide(Verdict::Canceled, reason, why);
            }
            reason => self.decide(
                Verdict::Failed,
                reason.unwrap_or(Reason::TransferFailed),
                why,
            ),
        }
    }
}

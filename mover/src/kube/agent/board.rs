//! What is ordered of this node, what runs, and what should happen next.
//!
//! Owns: these decisions, free of I/O. Must not: start or stop anything.

use std::collections::{BTreeMap, BTreeSet};

use super::stopper::Cause;
use super::turns::{Turns, Waiting};
use super::watch::Seen;
use super::work::{Kind, Work};

/// What to do about an order.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Carry it out.
    Run(Work),
    /// Answer that it was stopped before it began.
    Decline(Work, String),
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Board {
    node: String,
    slots: usize,
    works: BTreeMap<String, Work>,
    /// Attempt that runs, by UID. An answer that was not needed a slot counts none.
    running: BTreeMap<String, (i64, bool)>,
    /// Last attempt that ended here, by UID: the watch may not have told of the answer yet.
    ended: BTreeMap<String, i64>,
    /// What a list that is still coming has named.
    listing: BTreeMap<Kind, BTreeSet<String>>,
    complete: BTreeSet<Kind>,
    turns: Turns,
}

impl Board {
    pub(super) fn new(node: &str, slots: usize) -> Self {
        Self {
            node: node.to_owned(),
            slots,
            works: BTreeMap::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            listing: BTreeMap::new(),
            complete: BTreeSet::new(),
            turns: Turns::default(),
        }
    }

    /// Takes over what a watch told.
    pub(super) fn see(&mut self, seen: Seen) {
        match seen {
            Seen::ListBegins(kind) => {
                self.listing.insert(kind, BTreeSet::new());
            }
            Seen::Listed(kind, uid, work) => {
                self.listing.entry(kind).or_default().insert(uid.clone());
                self.put(uid, work);
            }
            Seen::ListEnds(kind) => {
                let listed = self.listing.remove(&kind).unwrap_or_default();
                self.works
                    .retain(|uid, work| work.kind != kind || listed.contains(uid));
                self.complete.insert(kind);
                self.forget();
            }
            Seen::Changed(uid, work) => self.put(uid, work),
            Seen::Gone(uid) => {
                self.works.remove(&uid);
                self.forget();
            }
            // Nobody orders anything of it, and the other kind's orders do not wait for it.
            Seen::Undefined(kind) => {
                self.listing.remove(&kind);
                self.complete.insert(kind);
            }
            Seen::Failed(_) => {}
        }
    }

    fn put(&mut self, uid: String, work: Option<Work>) {
        match work.filter(|work| work.node == self.node) {
            Some(work) => {
                self.works.insert(uid, work);
            }
            None => {
                self.works.remove(&uid);
            }
        }
    }

    /// Of what is gone nothing need be remembered.
    fn forget(&mut self) {
        let works = &self.works;
        self.ended.retain(|uid, _| works.contains_key(uid));
    }

    /// Whether everything that is ordered is known.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.contains(&Kind::Backup) && self.complete.contains(&Kind::Restore)
    }

    /// An attempt ended, whatever came of it.
    pub(super) fn ended(&mut self, uid: &str, attempt: i64) {
        self.running.remove(uid);
        self.ended.insert(uid.to_owned(), attempt);
        self.forget();
    }

    /// What runs and should not.
    pub(super) fn to_stop(&self) -> Vec<(String, Cause)> {
        let running = self.running.iter();
        running
            .filter_map(|(uid, (attempt, _))| {
                let cause = match self.works.get(uid) {
                    None => Cause::Superseded,
                    Some(work) if work.order.attempt != *attempt => Cause::Superseded,
                    Some(work) => Cause::Order(work.order.stop.clone()?),
                };
                Some((uid.clone(), cause))
            })
            .collect()
    }

    /// What to begin now, if anything. The caller begins it.
    pub(super) fn next(&mut self) -> Option<Step> {
        let stopped = self
            .open()
            .find_map(|work| Some((work.clone(), work.order.stop.clone()?)));
        if let Some((work, why)) = stopped {
            self.running
                .insert(work.uid.clone(), (work.order.attempt, false));
            return Some(Step::Decline(work, why));
        }
        if self.running() >= self.slots {
            return None;
        }
        let mut turns = std::mem::take(&mut self.turns);
        let chosen = turns.next(self.open().map(|work| Waiting {
            since: work.since,
            uid: &work.uid,
            namespace: &work.namespace,
        }));
        let work = chosen.and_then(|uid| self.works.get(uid)).cloned();
        self.turns = turns;
        let work = work?;
        self.running
            .insert(work.uid.clone(), (work.order.attempt, true));
        Some(Step::Run(work))
    }

    /// Orders that nobody has begun.
    fn open(&self) -> impl Iterator<Item = &Work> {
        self.works.values().filter(|work| {
            let ended = self.ended.get(&work.uid);
            work.is_open()
                && !self.running.contains_key(&work.uid)
                && ended.is_none_or(|ended| *ended < work.order.attempt)
        })
    }

    /// Slots in use.
    pub(super) fn running(&self) -> usize {
        self.running.values().filter(|(_, slot)| *slot).count()
    }

    /// Orders without a slot.
    pub(super) fn waiting(&self) -> usize {
        self.open().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::agent::work::example;
    use crate::kube::api::transfer::{TransferState, TransferStatus};

    fn board(slots: usize, works: &[(&str, &str, i64)]) -> Board {
        let mut board = Board::new("node", slots);
        for (uid, namespace, since) in works {
            board.see(Seen::Changed(
                (*uid).to_owned(),
                Some(example(uid, namespace, *since)),
            ));
        }
        board
    }

    fn started(board: &mut Board) -> Option<String> {
        match board.next()? {
            Step::Run(work) => Some(work.uid),
            Step::Decline(work, why) => Some(format!("-{} {why}", work.uid)),
        }
    }

    #[test]
    fn slots_are_kept_and_namespaces_take_turns() {
        let works = [
            ("a1", "a", 1),
            ("a2", "a", 2),
            ("a3", "a", 3),
            ("b1", "b", 9),
        ];
        let mut board = board(2, &works);
        assert_eq!(started(&mut board).as_deref(), Some("a1"));
        assert_eq!(started(&mut board).as_deref(), Some("b1"));
        assert_eq!(started(&mut board), None);
        assert_eq!((board.running(), board.waiting()), (2, 2));
        board.ended("b1", 1);
        assert_eq!(started(&mut board).as_deref(), Some("a2"));
    }

    #[test]
    fn an_attempt_runs_once_and_the_next_one_again() {
        let mut board = board(1, &[("a", "a", 1)]);
        assert_eq!(started(&mut board).as_deref(), Some("a"));
        board.ended("a", 1);
        assert_eq!(started(&mut board), None);
        let mut again = example("a", "a", 1);
        again.order.attempt = 2;
        board.see(Seen::Changed("a".to_owned(), Some(again.clone())));
        assert_eq!(started(&mut board).as_deref(), Some("a"));
        assert!(board.to_stop().is_empty());
        again.order.attempt = 3;
        board.see(Seen::Changed("a".to_owned(), Some(again)));
        assert_eq!(board.to_stop(), [("a".to_owned(), Cause::Superseded)]);
        assert_eq!(
            started(&mut board),
            None,
            "the old attempt has to end first"
        );
    }

    #[test]
    fn a_final_answer_is_the_end_and_another_attempts_is_none() {
        let answer = |attempt, state| TransferStatus {
            attempt,
            state,
            ..TransferStatus::default()
        };
        for (answer, open) in [
            (answer(1, TransferState::Running), true),
            (answer(0, TransferState::Succeeded), true),
            (answer(1, TransferState::Succeeded), false),
            (answer(1, TransferState::Interrupted), false),
        ] {
            let mut work = example("a", "a", 1);
            work.answer = Some(answer);
            let mut board = Board::new("node", 1);
            board.see(Seen::Changed("a".to_owned(), Some(work)));
            assert_eq!(started(&mut board).is_some(), open);
        }
    }

    #[test]
    fn stop_reaches_what_runs_and_what_waits() {
        let mut board = board(1, &[("a", "a", 1), ("b", "b", 2)]);
        assert_eq!(started(&mut board).as_deref(), Some("a"));
        for uid in ["a", "b"] {
            let mut stopped = example(uid, uid, 1);
            stopped.order.stop = Some("cancelled".to_owned());
            board.see(Seen::Changed(uid.to_owned(), Some(stopped)));
        }
        assert_eq!(
            board.to_stop(),
            [("a".to_owned(), Cause::Order("cancelled".to_owned()))]
        );
        assert_eq!(started(&mut board).as_deref(), Some("-b cancelled"));
        assert_eq!(board.running(), 1, "an answer takes no slot");
    }

    #[test]
    fn a_kind_that_is_not_defined_holds_up_no_other_and_takes_nothing_away() {
        let mut board = Board::new("node", 1);
        board.see(Seen::ListBegins(Kind::Backup));
        board.see(Seen::Listed(
            Kind::Backup,
            "a".to_owned(),
            Some(example("a", "a", 1)),
        ));
        board.see(Seen::ListEnds(Kind::Backup));
        assert!(!board.is_complete());
        board.see(Seen::ListBegins(Kind::Restore));
        board.see(Seen::Undefined(Kind::Restore));
        assert!(board.is_complete());
        assert_eq!(started(&mut board).as_deref(), Some("a"));
        board.see(Seen::ListBegins(Kind::Backup));
        board.see(Seen::Undefined(Kind::Backup));
        assert!(board.to_stop().is_empty());
    }

    #[test]
    fn a_list_says_what_is_gone() {
        let mut board = board(2, &[("a", "a", 1), ("b", "b", 2)]);
        assert_eq!(started(&mut board).as_deref(), Some("a"));
        board.see(Seen::ListBegins(Kind::Backup));
        board.see(Seen::Listed(
            Kind::Backup,
            "b".to_owned(),
            Some(example("b", "b", 2)),
        ));
        assert!(board.to_stop().is_empty(), "the list is not at its end");
        board.see(Seen::ListEnds(Kind::Backup));
        assert_eq!(board.to_stop(), [("a".to_owned(), Cause::Superseded)]);
        assert!(!board.is_complete());
        board.see(Seen::ListBegins(Kind::Restore));
        board.see(Seen::ListEnds(Kind::Restore));
        assert!(board.is_complete());
        assert_eq!(
            started(&mut board).as_deref(),
            Some("b"),
            "the list of another kind takes nothing away"
        );
        let mut moved = example("b", "b", 2);
        moved.node = "other".to_owned();
        board.see(Seen::Changed("b".to_owned(), Some(moved)));
        assert_eq!(board.to_stop().len(), 2);
    }
}

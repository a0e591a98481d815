//! The order of a backup or restore, with the answer to it.
//!
//! Owns: which answer counts: that of the same attempt. Must not: judge it.

use crate::kube::api::transfer::{TransferOrder, TransferState, TransferStatus};

/// An order that a node has.
#[derive(Clone, Copy, Debug)]
pub struct Ordered<'a> {
    /// The node.
    pub node: &'a str,
    /// What its agent answered to this attempt; nothing before it has begun.
    pub answer: Option<TransferState>,
}

impl<'a> Ordered<'a> {
    /// Of a status; nothing where no node has an order.
    #[must_use]
    pub fn of(
        order: &Option<TransferOrder>,
        answer: &Option<TransferStatus>,
        node: Option<&'a str>,
    ) -> Option<Self> {
        let attempt = order.as_ref()?.attempt;
        let answer = answer.as_ref().filter(|answer| answer.attempt == attempt);
        Some(Self {
            node: node?,
            answer: answer.map(|answer| answer.state),
        })
    }

    /// Whether the agent of this node moves data for it.
    #[must_use]
    pub fn moves_on(&self, node: &str) -> bool {
        self.node == node && self.answer == Some(TransferState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_same_attempt_counts() {
        let order = Some(TransferOrder {
            attempt: 2,
            ..TransferOrder::default()
        });
        let answer = |attempt| {
            Some(TransferStatus {
                attempt,
                state: TransferState::Running,
                ..TransferStatus::default()
            })
        };
        let moves = |attempt, node| {
            let (order, answer) = (order.clone(), answer(attempt));
            Ordered::of(&order, &answer, Some("a")).is_some_and(|open| open.moves_on(node))
        };
        assert!(moves(2, "a"));
        assert!(!moves(2, "b"));
        assert!(!moves(1, "a"));
        assert!(Ordered::of(&None, &answer(1), Some("a")).is_none());
        assert!(Ordered::of(&order, &None, None).is_none());
    }
}

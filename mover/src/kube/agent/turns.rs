//! Whose turn it is: namespaces one after the other, the oldest first in each.
//!
//! Owns: the choice. Must not: know what is chosen, or look at clocks.

use std::collections::BTreeMap;

/// Namespaces that are remembered; more are forgotten, those served longest ago first.
const REMEMBERED: usize = 4096;

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting<'a> {
    /// When he came.
    pub(super) since: i64,
    /// Who he is; breaks ties.
    pub(super) uid: &'a str,
    pub(super) namespace: &'a str,
}

/// When each namespace was served last.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    served: BTreeMap<String, u64>,
    turn: u64,
}

impl Turns {
    /// Chooses the next one: of the namespace that was served longest ago, or never, whoever came first.
    pub(super) fn next<'a>(
        &mut self,
        waiting: impl Iterator<Item = Waiting<'a>>,
    ) -> Option<&'a str> {
        let served = |namespace: &str| self.served.get(namespace).copied().unwrap_or(0);
        let chosen = waiting.min_by_key(|one| (served(one.namespace), *one))?;
        self.turn += 1;
        self.served.insert(chosen.namespace.to_owned(), self.turn);
        if self.served.len() > REMEMBERED {
            let oldest = self.served.iter().min_by_key(|(_, turn)| **turn);
            if let Some(oldest) = oldest.map(|(namespace, _)| namespace.clone()) {
                self.served.remove(&oldest);
            }
        }
        Some(chosen.uid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Namespace and arrival of each.
    fn queue() -> impl Strategy<Value = Vec<(u8, i64)>> {
        proptest::collection::vec((0_u8..5, 0_i64..50), 1..40)
    }

    fn order_of(queue: &[(u8, i64)]) -> Vec<usize> {
        let names: Vec<(String, String)> = queue
            .iter()
            .enumerate()
            .map(|(index, (namespace, _))| (format!("{index:03}"), format!("ns{namespace}")))
            .collect();
        let mut left: Vec<usize> = (0..queue.len()).collect();
        let mut turns = Turns::default();
        let mut order = Vec::new();
        loop {
            let waiting = left.iter().map(|index| Waiting {
                since: queue[*index].1,
                uid: &names[*index].0,
                namespace: &names[*index].1,
            });
            let Some(chosen) = turns.next(waiting) else {
                return order;
            };
            let chosen: usize = chosen.parse().unwrap();
            left.retain(|index| *index != chosen);
            order.push(chosen);
        }
    }

    proptest! {
        #[test]
        fn everybody_is_served_once_and_the_oldest_of_a_namespace_first(queue in queue()) {
            let order = order_of(&queue);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..queue.len()).collect::<Vec<_>>());
            for (place, first) in order.iter().enumerate() {
                for second in &order[place + 1..] {
                    if queue[*first].0 == queue[*second].0 {
                        prop_assert!(queue[*first].1 <= queue[*second].1);
                    }
                }
            }
        }

        /// Between two turns of a namespace, everybody else who waits has one.
        #[test]
        fn nobody_has_two_turns_while_another_waits(queue in queue()) {
            let order = order_of(&queue);
            for (place, chosen) in order.iter().enumerate() {
                let own = queue[*chosen].0;
                let Some(next) = order[place + 1..].iter().position(|later| queue[*later].0 == own) else {
                    continue;
                };
                let between: Vec<u8> = order[place + 1..=place + next].iter().map(|index| queue[*index].0).collect();
                for later in &order[place + 1 + next..] {
                    let other = queue[*later].0;
                    prop_assert!(other == own || between.contains(&other), "{order:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut turns = Turns::default();
        for number in 0..REMEMBERED + 10 {
            let namespace = number.to_string();
            let one = Waiting {
                since: 0,
                uid: "u",
                namespace: &namespace,
            };
            assert_eq!(turns.next(std::iter::once(one)), Some("u"));
        }
        assert_eq!(turns.served.len(), REMEMBERED);
        assert_eq!(turns.next(std::iter::empty()), None);
    }
}

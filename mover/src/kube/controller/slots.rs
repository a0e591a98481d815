//! How many volumes are exposed at a time.
//!
//! Owns: who may make a working copy now, on which nodes, and who is before whom. Must not: ask the API server, or choose a node: the
//! scheduler does.
//!
//! A node serves `slots` volumes at once and prepares one more. Where a pod will land is unknown until it is scheduled, so an exposure
//! counts on every node that it may land on until it has one: no node ever gets more than its share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// The answer to who asks for a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// It may be exposed on one of these nodes.
    Granted(BTreeSet<String>),
    /// So many others are before it.
    Waiting {
        /// Volumes that get a place earlier.
        ahead: usize,
    },
    /// No node that could serve the volume has an agent.
    NoNode,
}

/// Order of waiting: by creation, then by UID.
type Place = (i64, String);

#[derive(Debug, Default)]
struct Ledger {
    /// Exposed volumes by UID, with the nodes that they are or may land on.
    held: BTreeMap<String, BTreeSet<String>>,
    waiting: BTreeMap<Place, BTreeSet<String>>,
}

/// The places of the cluster. Rebuilt after a start by everybody who holds one: [`Slots::hold`].
#[derive(Debug)]
pub struct Slots {
    per_node: usize,
    ledger: Mutex<Ledger>,
}

impl Slots {
    /// With so many volumes served at once on each node.
    #[must_use]
    pub fn new(slots_per_node: usize) -> Self {
        Self {
            per_node: slots_per_node.saturating_add(1),
            ledger: Mutex::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        change(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for a place for the object `uid`, created at `created` (any clock that orders), on one of `eligible` nodes. Who was granted one keeps it.
    pub fn request(&self, uid: &str, created: i64, eligible: &BTreeSet<String>) -> Slot {
        self.with(|ledger| {
            if let Some(nodes) = ledger.held.get(uid) {
                return Slot::Granted(nodes.clone());
            }
            let place = (created, uid.to_owned());
            ledger.waiting.insert(place.clone(), eligible.clone());
            if eligible.is_empty() {
                return Slot::NoNode;
            }
            let before = ledger.earlier(&place);
            // Those before get theirs first, where they compete for the same nodes.
            let mut used = ledger.used();
            for (_, nodes) in &before {
                claim(&mut used, nodes, self.per_node);
            }
            let free = free_of(&used, eligible, self.per_node);
            if free.is_empty() {
                let ahead = before
                    .iter()
                    .filter(|(_, nodes)| !nodes.is_disjoint(eligible))
                    .count();
                return Slot::Waiting { ahead };
            }
            ledger.waiting.remove(&place);
            ledger.held.insert(uid.to_owned(), free.clone());
            Slot::Granted(free)
        })
    }

    /// The object is exposed, on one of these nodes; after a start, when nobody remembers that it was granted.
    pub fn hold(&self, uid: &str, nodes: BTreeSet<String>) {
        self.with(|ledger| {
            ledger.waiting.retain(|(_, waiting), _| waiting != uid);
            ledger.held.insert(uid.to_owned(), nodes);
        });
    }

    /// The object's pod has a node: its claim on the others ends. Whether that freed anything.
    pub fn settle(&self, uid: &str, node: &str) -> bool {
        self.with(|ledger| {
            let settled = BTreeSet::from([node.to_owned()]);
            ledger.waiting.retain(|(_, waiting), _| waiting != uid);
            let before = ledger.held.insert(uid.to_owned(), settled);
            before.is_some_and(|nodes| nodes.len() > 1)
        })
    }

    /// The object waits no more; what it holds it keeps. Whether it waited.
    pub fn withdraw(&self, uid: &str) -> bool {
        self.with(|ledger| {
            let waited = ledger.waiting.len();
            ledger.waiting.retain(|(_, waiting), _| waiting != uid);
            waited != ledger.waiting.len()
        })
    }

    /// The object is exposed no more, and waits no more. Whether that freed anything.
    pub fn release(&self, uid: &str) -> bool {
        self.with(|ledger| {
            let waited = ledger.waiting.len();
            ledger.waiting.retain(|(_, waiting), _| waiting != uid);
            let freed = ledger.held.remove(uid).is_some();
            freed || waited != ledger.waiting.len()
        })
    }

    /// UIDs of those who wait, first come first.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.with(|ledger| ledger.waiting.keys().map(|(_, uid)| uid.clone()).collect())
    }

    /// Number of exposed volumes.
    #[must_use]
    pub fn exposed(&self) -> usize {
        self.with(|ledger| ledger.held.len())
    }
}

impl Ledger {
    fn used(&self) -> BTreeMap<String, usize> {
        let mut used = BTreeMap::new();
        for node in self.held.values().flatten() {
            *used.entry(node.clone()).or_default() += 1;
        }
        used
    }

    fn earlier(&self, place: &Place) -> Vec<(Place, BTreeSet<String>)> {
        self.waiting
            .range(..place.clone())
            .map(|(place, nodes)| (place.clone(), nodes.clone()))
            .collect()
    }
}

fn free_of(
    used: &BTreeMap<String, usize>,
    eligible: &BTreeSet<String>,
    per_node: usize,
) -> BTreeSet<String> {
    eligible
        .iter()
        .filter(|node| used.get(*node).copied().unwrap_or(0) < per_node)
        .cloned()
        .collect()
}

fn claim(used: &mut BTreeMap<String, usize>, nodes: &BTreeSet<String>, per_node: usize) {
    for node in free_of(used, nodes, per_node) {
        *used.entry(node).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_node_prepares_one_more_than_it_serves() {
        let slots = Slots::new(1);
        let node = nodes(&["a"]);
        assert_eq!(slots.request("1", 1, &node), Slot::Granted(node.clone()));
        assert_eq!(slots.request("2", 2, &node), Slot::Granted(node.clone()));
        assert_eq!(slots.request("3", 3, &node), Slot::Waiting { ahead: 0 });
        assert_eq!(slots.request("4", 4, &node), Slot::Waiting { ahead: 1 });
        assert!(slots.release("1"));
        assert_eq!(
            slots.request("4", 4, &node),
            Slot::Waiting { ahead: 1 },
            "who came first is served first"
        );
        assert_eq!(slots.request("3", 3, &node), Slot::Granted(node));
    }

    #[test]
    fn who_may_land_anywhere_counts_everywhere_until_it_landed() {
        let slots = Slots::new(0);
        let both = nodes(&["a", "b"]);
        assert_eq!(slots.request("1", 1, &both), Slot::Granted(both.clone()));
        assert_eq!(slots.request("2", 2, &both), Slot::Waiting { ahead: 0 });
        assert!(slots.settle("1", "a"));
        assert_eq!(slots.request("2", 2, &both), Slot::Granted(nodes(&["b"])));
    }

    #[test]
    fn without_an_agent_there_is_no_place_and_nobody_is_held_up() {
        let slots = Slots::new(0);
        assert_eq!(slots.request("1", 1, &nodes(&[])), Slot::NoNode);
        assert_eq!(
            slots.request("2", 2, &nodes(&["a"])),
            Slot::Granted(nodes(&["a"]))
        );
    }

    proptest! {
        /// Whatever happens in whatever order, no node has more pods than it may, wherever the scheduler puts them.
        #[test]
        fn no_node_gets_more_than_its_share(
            events in proptest::collection::vec((0_u8..4, 0_u8..12, 1_u8..8), 1..200),
            per_node in 0_usize..3,
        ) {
            let slots = Slots::new(per_node);
            let mut landed: BTreeMap<String, String> = BTreeMap::new();
            let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (event, who, mask) in events {
                let uid = who.to_string();
                match event {
                    0 | 1 => {
                        let eligible: BTreeSet<String> =
                            (0..3).filter(|bit| mask & (1 << bit) != 0).map(|bit| bit.to_string()).collect();
                        if let Slot::Granted(nodes) = slots.request(&uid, i64::from(who), &eligible) {
                            granted.insert(uid, nodes);
                        }
                    }
                    2 => {
                        if let Some(nodes) = granted.get(&uid) {
                            // The scheduler chooses, and never moves a pod.
                            let chosen = nodes.iter().nth(usize::from(mask) % nodes.len()).unwrap().clone();
                            let node = landed.entry(uid.clone()).or_insert(chosen).clone();
                            slots.settle(&uid, &node);
                            granted.insert(uid, BTreeSet::from([node]));
                        }
                    }
                    _ => {
                        slots.release(&uid);
                        granted.remove(&uid);
                        landed.remove(&uid);
                    }
                }
                let mut used: BTreeMap<&String, usize> = BTreeMap::new();
                for node in landed.values() {
                    *used.entry(node).or_default() += 1;
                }
                prop_assert!(used.values().all(|count| *count <= per_node + 1));
            }
        }
    }
}

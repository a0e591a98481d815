//! Bounds within which every state was seen and no property is violated.

use super::super::Stage;
use super::bounds::{Adoption, Bounds, Parents};
use super::mutation::Mutation;
use super::search::World;

fn complete(bounds: Bounds) {
    let outcome = World {
        bounds,
        mutation: Mutation::Sound,
    }
    .explore();
    eprintln!("{} states, depth {}", outcome.states, outcome.depth);
    if let Some(found) = outcome.violation {
        panic!("{} steps to: {}", found.steps, found.trace);
    }
}

macro_rules! complete {
    ($($name:ident: $bounds:expr;)*) => {
        $(#[test] fn $name() { complete($bounds); })*
    };
}

complete! {
    one_session: Bounds::new(1, (3, 3), 1, 1);
    pages: Bounds::new(2, (1, 2), 1, 1).parents(Parents::Previous).pages(2);
    parents: Bounds::new(2, (1, 2), 2, 1).parents(Parents::Any);
    parents_2: Bounds::new(2, (2, 2), 1, 1).parents(Parents::Previous);
    grandchildren: Bounds::new(3, (1, 2), 2, 0).parents(Parents::Previous).founded();
    adoption: Bounds::new(2, (1, 2), 1, 1).adoption(Adoption::Any);
    adoption_parents: Bounds::new(2, (1, 1), 1, 1).adoption(Adoption::Any).parents(Parents::Any);
    adoption_2: Bounds::new(2, (2, 2), 0, 1).adoption(Adoption::Previous);
    chain_3: Bounds::new(3, (1, 1), 0, 1).adoption(Adoption::Previous);
    reader: Bounds::new(1, (2, 2), 1, 1).readers(1);
    // One that never moves again has crashed: its record holds the point until somebody fences it.
    readers_2: Bounds::new(1, (1, 2), 1, 1).readers(2);
    compaction: Bounds::new(1, (2, 2), 1, 1).compaction().any_order();
    compaction_reader: Bounds::new(1, (1, 2), 1, 1).readers(1).compaction();
    compaction_child: Bounds::new(2, (1, 2), 1, 0).parents(Parents::Previous).compaction();
    copies: Bounds::new(1, (2, 2), 1, 1).copies().duplicates(1);
    copies_child: Bounds::new(2, (1, 2), 1, 0).parents(Parents::Previous).copies();
    mends: Bounds::new(1, (2, 2), 1, 1).copies().mends().duplicates(1);
    mends_child: Bounds::new(2, (1, 2), 1, 0).parents(Parents::Previous).copies().mends();
    mends_losses: Bounds::new(1, (2, 2), 1, 0).copies().mends().losses(1);
    losses: Bounds::new(1, (2, 2), 1, 1).copies().losses(1);
    losses_reader: Bounds::new(1, (1, 2), 1, 0).copies().losses(1).readers(1);
    duplicates: Bounds::new(2, (1, 2), 1, 1).duplicates(1).parents(Parents::Previous);
    register: Bounds::new(2, (1, 2), 1, 1).parents(Parents::Any).register();
    register_adoption: Bounds::new(2, (1, 2), 1, 1).adoption(Adoption::Previous).register();
    register_compaction: Bounds::new(1, (1, 2), 1, 1).readers(1).compaction().register();
    losses_adoption: Bounds::new(2, (1, 2), 1, 1).adoption(Adoption::Any).copies().losses(1);
    // Nothing decides: a store without create-only PUT, and no cluster.
    no_fences: Bounds::new(2, (1, 2), 2, 0).parents(Parents::Any).duplicates(1);
}

/// Runs a search of millions of states, for minutes, if `SNAPHAUL_TEST_LONG` is set.
///
/// All of them end. Measured in a debug build on one core of a busy machine: `long_generations`, three generations of points that are all
/// forgotten, has 10,982,683 states to depth 55 (8.5 minutes, 0.9 GiB); `long_adoption_parents`, two sessions that may build on and
/// take over one another, 6,726,097 to depth 42 (5 minutes, 0.7 GiB).
fn long(bounds: Bounds) {
    if std::env::var_os("SNAPHAUL_TEST_LONG").is_some() {
        complete(bounds);
    }
}

macro_rules! long {
    ($($name:ident: $bounds:expr;)*) => {
        $(#[test] fn $name() { long($bounds); })*
    };
}

long! {
    long_chain_4: Bounds::new(4, (1, 1), 0, 0).adoption(Adoption::Previous);
    long_adoption_3: Bounds::new(3, (1, 1), 0, 2).adoption(Adoption::Any);
    long_adoption_3_runs: Bounds::new(3, (1, 2), 1, 1).adoption(Adoption::Any);
    long_adoption_parents: Bounds::new(2, (2, 2), 2, 1).adoption(Adoption::Any).parents(Parents::Any);
    long_pages: Bounds::new(2, (2, 2), 1, 1).parents(Parents::Any).duplicates(1).pages(3);
    long_generations: Bounds::new(3, (2, 2), 3, 0).parents(Parents::Previous);
    long_readers: Bounds::new(2, (2, 2), 2, 0).parents(Parents::Previous).readers(1);
    long_compaction: Bounds::new(1, (3, 3), 1, 1).compaction();
    long_compaction_reader: Bounds::new(1, (2, 3), 1, 1).readers(1).compaction().any_order();
    long_compaction_child: Bounds::new(2, (2, 2), 1, 0).parents(Parents::Previous).readers(1).compaction();
    long_copies: Bounds::new(2, (2, 2), 1, 1).parents(Parents::Previous).copies().duplicates(1);
    long_mends: Bounds::new(1, (2, 2), 1, 1).copies().mends().duplicates(1).readers(1);
    long_mends_losses: Bounds::new(1, (2, 2), 1, 1).copies().mends().losses(1);
    long_losses: Bounds::new(2, (2, 2), 1, 1).parents(Parents::Previous).copies().losses(1);
    long_register: Bounds::new(2, (2, 2), 1, 1).adoption(Adoption::Any).register();
    long_register_fences: Bounds::new(2, (1, 2), 1, 2).adoption(Adoption::Any).parents(Parents::Any).register();
    long_register_compaction: Bounds::new(1, (2, 2), 1, 1).readers(1).compaction().register();
}

/// The order of the listings carries the proof: of all 60, two are right.
#[test]
fn long_orders() {
    use super::super::Stage::{Objects, OpensAfter, OpensBefore, Slots, Tombs};
    if std::env::var_os("SNAPHAUL_TEST_LONG").is_none() {
        return;
    }
    let bounds = [
        Bounds::new(1, (2, 2), 1, 1),
        Bounds::new(2, (1, 1), 0, 1).adoption(Adoption::Previous),
        Bounds::new(2, (2, 2), 1, 0).parents(Parents::Previous),
        Bounds::new(2, (2, 2), 0, 1).adoption(Adoption::Previous),
        Bounds::new(3, (2, 2), 2, 0)
            .parents(Parents::Previous)
            .founded(),
    ];
    let right = |order: [_; 5]| {
        bounds.iter().all(|bounds| {
            let mutation = Mutation::Order(order);
            World {
                bounds: *bounds,
                mutation,
            }
            .explore()
            .violation
            .is_none()
        })
    };
    let found: Vec<_> = orders([Objects, Tombs, OpensBefore, Slots, OpensAfter])
        .into_iter()
        .filter(|order| right(*order))
        .collect();
    let one = [Objects, Tombs, OpensBefore, Slots, OpensAfter];
    let other = [Tombs, Objects, OpensBefore, Slots, OpensAfter];
    assert_eq!(found, [one, other]);
}

/// All orders in which the first listing of start records comes before the second.
fn orders(stages: [Stage; 5]) -> Vec<[Stage; 5]> {
    let mut orders = vec![Vec::new()];
    for _ in 0..stages.len() {
        orders = orders
            .into_iter()
            .flat_map(|begun: Vec<Stage>| {
                stages
                    .iter()
                    .filter(|stage| !begun.contains(stage))
                    .map(|stage| [begun.as_slice(), &[*stage]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    let place = |order: &[Stage], wanted| order.iter().position(|stage| *stage == wanted);
    orders
        .into_iter()
        .filter(|order| place(order, Stage::OpensBefore) < place(order, Stage::OpensAfter))
        .map(|order| order.try_into().expect("five of five"))
        .collect()
}

//! Bounds within which every state was seen and no property is violated.

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
    assert!(outcome.complete, "cut off at {} states", outcome.states);
}

#[test]
fn parents_one_collector() {
    complete(Bounds::new(2, (1, 2), 1, 1).parents(Parents::Any));
}

#[test]
fn adoption() {
    complete(Bounds::new(2, (1, 2), 0, 1).adoption(Adoption::Any));
}

#[test]
fn two_collectors() {
    complete(Bounds::new(1, (2, 2), 1, 1));
}

#[test]
fn reader() {
    complete(Bounds::new(1, (1, 2), 1, 1).readers(1));
}

#[test]
fn compaction() {
    complete(Bounds::new(1, (2, 2), 1, 1).compaction());
}

#[test]
fn copies() {
    complete(Bounds::new(1, (2, 2), 1, 1).copies());
}

#[test]
fn losses() {
    complete(Bounds::new(1, (1, 2), 1, 1).copies().losses(1));
}

#[test]
fn register() {
    complete(
        Bounds::new(2, (1, 2), 1, 1)
            .parents(Parents::Any)
            .register(),
    );
}

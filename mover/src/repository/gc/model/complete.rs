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
    chain_4: Bounds::new(4, (1, 1), 0, 0).adoption(Adoption::Previous);
    reader: Bounds::new(1, (2, 2), 1, 1).readers(1);
    compaction: Bounds::new(1, (2, 2), 1, 1).compaction().any_order();
    compaction_reader: Bounds::new(1, (1, 2), 1, 1).readers(1).compaction();
    compaction_child: Bounds::new(2, (1, 2), 1, 0).parents(Parents::Previous).compaction();
    copies: Bounds::new(1, (2, 2), 1, 1).copies().duplicates(1);
    copies_child: Bounds::new(2, (1, 2), 1, 0).parents(Parents::Previous).copies();
    losses: Bounds::new(1, (2, 2), 1, 1).copies().losses(1);
    losses_reader: Bounds::new(1, (1, 2), 1, 0).copies().losses(1).readers(1);
    duplicates: Bounds::new(2, (1, 2), 1, 1).duplicates(1).parents(Parents::Previous);
    register: Bounds::new(2, (1, 2), 1, 1).parents(Parents::Any).register();
    register_adoption: Bounds::new(2, (1, 2), 1, 1).adoption(Adoption::Previous).register();
    register_compaction: Bounds::new(1, (1, 2), 1, 1).readers(1).compaction().register();
    alive: Bounds::new(2, (1, 2), 2, 0).parents(Parents::Any).duplicates(1);
}

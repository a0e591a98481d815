//! What must hold at every moment of a schedule, and after it.

use std::collections::HashSet;
use std::sync::Mutex;

use super::super::world::{Judge, World};
use super::actors::{Told, stepwise};
use crate::pipeline::gc;
use crate::repository::ids::name;
use crate::repository::store::faulty::Operation;
use crate::repository::store::stepped::Waiting;

/// What must hold at every moment.
#[derive(Default)]
pub(super) struct Watch {
    judge: Judge,
    forgotten: HashSet<String>,
    opened: HashSet<String>,
}

impl Watch {
    /// Before a request: the order of a purge, and that no start record comes twice.
    pub(super) fn before(&mut self, world: &World, next: &Waiting) -> Result<(), String> {
        let name = &next.name;
        let open_of = |kind: &str| {
            name.strip_prefix(kind)
                .map(|rest| format!("{}{rest}", name::OPEN))
        };
        match next.operation {
            Operation::Delete => {
                let open = open_of(name::SNAP).or_else(|| open_of(name::TOMB));
                match open.filter(|open| world.has(open)) {
                    Some(open) => Err(format!("I3: {name} is deleted before {open}")),
                    None => Ok(()),
                }
            }
            Operation::PutOnce if !self.opened.insert(name.clone()) => {
                Err(format!("I4: {name} is sent twice"))
            }
            Operation::Create if name.starts_with(name::TOMB) => {
                self.forgotten.insert(name.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// After a request: nothing that anybody may use is lost.
    pub(super) fn after(&mut self, world: &World, told: &Mutex<Told>) -> Result<(), String> {
        for key in world.valid() {
            self.judge
                .check(world, &key)
                .map_err(|lost| format!("I2: {lost}"))?;
        }
        let told = told.lock().unwrap();
        for key in &told.acknowledged {
            if !self.forgotten.contains(&name::tomb(key)) && !world.is_point(key) {
                return Err(format!(
                    "I1: the acknowledged point {} is gone",
                    key.point()
                ));
            }
        }
        match told.failures.first() {
            Some(failure) => Err(format!("I5: {failure}")),
            None => Ok(()),
        }
    }
}

/// When all sessions have ended, two runs leave the living points and nothing else.
pub(super) fn settle(world: &World, watch: &mut Watch, told: &Mutex<Told>) -> Result<(), String> {
    for _ in 0..2 {
        gc::run(&world.context(), &stepwise())
            .map_err(|error| format!("I6: gc fails: {error:?}"))?;
        watch.after(world, told)?;
    }
    let mut expected = HashSet::new();
    for key in world.valid() {
        expected.extend([
            name::open(&key),
            name::slot(&key),
            name::copy(&key),
            name::live(&key),
        ]);
        let liveness = world.liveness(&key)?;
        let segments = liveness.segments().map(|(id, _)| name::segment(id, 0));
        expected.extend(segments.map(|name| name.trim_end_matches("00").to_owned()));
        expected.extend(liveness.map_segments().map(|(id, _)| name::map_segment(id)));
    }
    let mut left = HashSet::new();
    for name in world.objects() {
        let known = match name.starts_with(name::SEG) {
            true => name[..name.len() - 2].to_owned(),
            false => name.clone(),
        };
        if !expected.contains(&known) {
            return Err(format!("I6: {name} is left"));
        }
        if !left.insert(known) {
            return Err(format!("I6: {name} is there in two generations"));
        }
    }
    match expected.difference(&left).next() {
        Some(missing) => Err(format!("I6: {missing} is gone")),
        None => Ok(()),
    }
}

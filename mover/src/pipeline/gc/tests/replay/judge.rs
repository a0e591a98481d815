//! The real store in the model's words, and the judgement at the end of a trace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::world::{self, Judge};
use super::Replay;
use super::actors;
use super::bent::{Bend, BentStore};
use crate::pipeline::gc;
use crate::repository::gc::OpenKey;
use crate::repository::gc::model::traces::Object;
use crate::repository::ids::{SessionId, name};
use crate::repository::map::Location;
use crate::repository::session::records::MAX_ABORT_LEN;
use crate::repository::store::Store;

impl Replay<'_> {
    /// The real store in the model's words. Maps live as long as data does; signs of life mean nothing.
    pub(super) fn objects(&self) -> Result<BTreeSet<Object>, String> {
        let shared = self.shared();
        let mut by_rest = HashMap::new();
        let mut by_id = HashMap::new();
        for (session, key) in &shared.keys {
            by_rest.insert(key.open_name().split_off(name::OPEN.len()), *session);
            by_id.insert(key.session(), *session);
        }
        let mut objects = BTreeSet::new();
        for object in self.world.objects() {
            let (kind, rest) = object.split_at(object.find('/').unwrap() + 1);
            if [name::MAP, name::BEAT].contains(&kind) {
                continue;
            }
            let stranger = || format!("{object} is nobody's");
            if kind == name::SEG {
                let (id, generation) = name::parse_segment(&object).ok_or_else(stranger)?;
                let owner = by_id.get(&id.session).ok_or_else(stranger)?;
                objects.insert(Object::Data(*owner, generation));
                continue;
            }
            let owner = *by_rest.get(rest).ok_or_else(stranger)?;
            let len = self.world.store.peek(&object).unwrap().len() as u64;
            objects.insert(match kind {
                name::OPEN => Object::Open(owner),
                name::TOMB => Object::Tomb(owner),
                name::COPY => Object::Copy(owner),
                name::LIVE => Object::Live(owner),
                name::SNAP if len > MAX_ABORT_LEN => Object::Manifest(owner),
                name::SNAP => Object::Abort(owner),
                _ => return Err(stranger()),
            });
        }
        Ok(objects)
    }

    /// All processes are dead: who was told what, what every point gives, and what two runs leave.
    pub(super) fn judge(&self) -> Result<(), String> {
        let acknowledged: BTreeSet<usize> = self.trace.acknowledged.iter().copied().collect();
        if self.shared().acknowledged != acknowledged {
            return Err(format!(
                "{:?} were told that they committed, in the model {acknowledged:?}",
                self.shared().acknowledged
            ));
        }
        self.judge_points()?;
        let Some(settled) = &self.trace.settled else {
            return Ok(());
        };
        let keys: Vec<OpenKey> = self.shared().keys.values().copied().collect();
        for key in keys {
            if self.world.has(&key.open_name()) && !self.world.has(&key.slot_name()) {
                self.fence(&key);
            }
        }
        let store = Arc::clone(&self.world.store) as Arc<dyn Store>;
        let store = Arc::new(BentStore::new(store, Bend::Sound, true));
        let context = world::context(&self.world.repository_over(store));
        for _ in 0..2 {
            gc::run(&context, &actors::stepwise()).map_err(|error| format!("gc: {error:?}"))?;
        }
        let left = self.objects()?;
        if left != *settled {
            return Err(format!("two runs leave {left:?} instead of {settled:?}"));
        }
        self.judge_points()?;
        self.judge_maps(settled)
    }

    /// Every point is whole, and references what the model says.
    fn judge_points(&self) -> Result<(), String> {
        let mut judge = Judge::default();
        let shared = self.shared();
        for session in 0..self.trace.cast.writers {
            let Some(OpenKey::Writer(key)) = shared.keys.get(&session) else {
                continue;
            };
            if !self.world.is_point(key) || self.world.has(&name::tomb(key)) {
                continue;
            }
            judge.check(self.world, key)?;
            let found: BTreeSet<Location> = world::chunks_of(&self.world.liveness(key)?)
                .into_iter()
                .collect();
            let references = &self.trace.scripts[session].references;
            let expected: BTreeSet<Location> = shared.chunks(references).into_iter().collect();
            if found != expected {
                return Err(format!("{session} references {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Maps that are left belong to points that are left.
    fn judge_maps(&self, settled: &BTreeSet<Object>) -> Result<(), String> {
        let shared = self.shared();
        let living = settled.iter().filter_map(|object| match object {
            Object::Live(session) => Some(shared.keys[session].session()),
            _ => None,
        });
        let living: BTreeSet<SessionId> = living.collect();
        let maps = self.world.objects().into_iter();
        for map in maps.filter(|object| object.starts_with(name::MAP)) {
            let id = name::parse_map_segment(&map).unwrap();
            if !living.contains(&id.session) {
                return Err(format!("{map} is left"));
            }
        }
        Ok(())
    }
}

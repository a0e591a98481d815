//! The real store in the model's words, and the judgement at the end of a trace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::world::{self, Judge};
use super::Replay;
use super::actors::{self, Shared};
use super::bent::{Bend, BentStore};
use crate::pipeline::gc;
use crate::repository::gc::OpenKey;
use crate::repository::gc::model::traces::Object;
use crate::repository::ids::{SessionId, name};
use crate::repository::map::Location;
use crate::repository::session::records::MAX_ABORT_LEN;
use crate::repository::store::Store;

/// Whose an object is, by its name.
pub(super) struct Owners {
    /// By what follows on the kind in the names of control objects.
    by_rest: HashMap<String, usize>,
    by_id: HashMap<SessionId, usize>,
}

impl Owners {
    pub(super) fn new(shared: &Shared) -> Self {
        let keys = || shared.keys.iter();
        Self {
            by_rest: keys()
                .map(|(at, key)| (key.open_name().split_off(name::OPEN.len()), *at))
                .collect(),
            by_id: keys().map(|(at, key)| (key.session(), *at)).collect(),
        }
    }

    pub(super) fn of(&self, object: &str) -> Option<usize> {
        let kind = kind_of(object);
        let data = match kind {
            name::SEG => name::parse_segment(object).map(|(id, _)| id),
            name::MAP => name::parse_map_segment(object),
            _ => return self.by_rest.get(&object[kind.len()..]).copied(),
        };
        self.by_id.get(&data?.session).copied()
    }
}

/// The first part of a name, with its slash.
fn kind_of(object: &str) -> &str {
    &object[..=object.find('/').expect("it is in a folder")]
}

impl Replay<'_> {
    /// The real store in the model's words. Maps live as long as data does; signs of life mean nothing.
    pub(super) fn objects(&self) -> Result<BTreeSet<Object>, String> {
        let owners = Owners::new(&self.shared());
        let mut objects = BTreeSet::new();
        for object in self.world.objects() {
            let kind = kind_of(&object);
            if [name::MAP, name::BEAT].contains(&kind) {
                continue;
            }
            let stranger = || format!("{object} is nobody's");
            let owner = owners.of(&object).ok_or_else(stranger)?;
            if kind == name::SEG {
                let (_, generation) = name::parse_segment(&object).ok_or_else(stranger)?;
                objects.insert(Object::Data(owner, generation));
                continue;
            }
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
        let store = BentStore::new(store, Bend::Sound, true).with_mends(self.trace.cast.mends);
        let store = Arc::new(store);
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

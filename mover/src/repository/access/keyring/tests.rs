//! Keys come and go; crashes and rivals at every step leave one that opens.

use bytes::Bytes;

use super::super::super::format::key_slot::tests::CHEAP;
use super::super::super::store::faulty::{Fault, FaultyStore, Operation, Rule};
use super::super::super::store::stepped::{Schedule, Waiting};
use super::super::tests::{
    MemoryStore, assert_fails, encrypted, key_file, passphrase, unencrypted,
};
use super::super::{Opener, mend_roots, open, open_with};
use super::*;
use crate::repository::ids::RepositoryId;

const OLD: &str = "open sesame";

fn ring_over(store: Arc<dyn Store>, secret: &Secret) -> Result<Keyring> {
    let opened = open_with(store, Opener::Secret(secret))?;
    Ok(opened.keyring.unwrap().at_cost(CHEAP))
}

fn ring(store: &Arc<MemoryStore>, secret: &Secret) -> Keyring {
    ring_over(as_store(store), secret).unwrap()
}

fn as_store(store: &Arc<MemoryStore>) -> Arc<dyn Store> {
    Arc::<MemoryStore>::clone(store)
}

fn opens(store: &Arc<MemoryStore>, secret: &Secret) -> bool {
    open(as_store(store), Some(secret)).is_ok()
}

fn other_key_file(byte: u8) -> Secret {
    Secret::KeyFile(vec![byte; 40].into())
}

fn slots(store: &MemoryStore) -> Vec<String> {
    let mut names = store.names();
    names.retain(|name| name.starts_with("keys/"));
    names
}

#[test]
fn added_keys_open_and_are_listed() {
    let (store, _) = encrypted();
    let ring = ring(&store, &passphrase(OLD));
    let first = ring.add(&passphrase("another"), 7).unwrap();
    let second = ring.add(&key_file(), 8).unwrap();
    for secret in [passphrase(OLD), passphrase("another"), key_file()] {
        let (_, warnings) = open(as_store(&store), Some(&secret)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let infos = key_slots(&*store, &ring.config).unwrap();
    assert_eq!(infos.len(), 3);
    let made = |id: &str| {
        infos
            .iter()
            .find(|info| info.id == id)
            .unwrap()
            .created_unix_secs
    };
    assert_eq!((made(&first), made(&second)), (Some(7), Some(8)));
    assert_eq!(slots(&store).len(), 6);
    let opened = open_with(as_store(&store), Opener::Secret(&key_file())).unwrap();
    assert_eq!(opened.keyring.unwrap().opened_by(), Some(second.as_str()));
}

#[test]
fn keys_that_add_nothing_are_refused() {
    let (store, slot) = encrypted();
    let ring = ring(&store, &passphrase(OLD));
    let before = store.names();
    assert_fails(
        ring.add(&passphrase(OLD), 0),
        ErrorKind::InvalidRequest,
        id_of(&slot),
    );
    assert_fails(
        ring.add(&passphrase(""), 0),
        ErrorKind::InvalidRequest,
        "empty",
    );
    let short = Secret::KeyFile(vec![1; 31].into());
    assert_fails(ring.add(&short, 0), ErrorKind::InvalidRequest, "31 bytes");
    for n in 0..MAX_SLOTS - 1 {
        store.set(&format!("keys/{n:032x}"), &b"?"[..]);
    }
    assert_fails(ring.add(&key_file(), 0), ErrorKind::InvalidRequest, "limit");
    assert_fails(
        ring.rotate(&key_file(), 0),
        ErrorKind::InvalidRequest,
        "limit",
    );
    for n in 0..MAX_SLOTS - 1 {
        store.remove(&format!("keys/{n:032x}"));
    }
    assert_eq!(store.names(), before);
}

#[test]
fn a_key_is_removed_by_the_holder_of_another() {
    let (store, slot) = encrypted();
    let old = id_of(&slot);
    let by_old = ring(&store, &passphrase(OLD));
    assert_fails(by_old.remove(old), ErrorKind::InvalidRequest, "another key");
    assert_fails(by_old.remove("0123"), ErrorKind::NotFound, "key list");
    assert_fails(by_old.remove(""), ErrorKind::NotFound, "key list");
    let new = by_old.add(&key_file(), 0).unwrap();
    assert_fails(
        by_old.remove(old),
        ErrorKind::InvalidRequest,
        "opened the repository",
    );
    let by_new = ring(&store, &key_file());
    assert_eq!(by_new.remove(&old[..8]).unwrap(), old);
    assert!(!opens(&store, &passphrase(OLD)) && opens(&store, &key_file()));
    assert_eq!(slots(&store).len(), 2);
    assert_fails(
        by_new.remove(&new),
        ErrorKind::InvalidRequest,
        "opened the repository",
    );
    assert_fails(by_old.remove(&new), ErrorKind::InvalidRequest, "last one");
    assert!(opens(&store, &key_file()));
}

#[test]
fn ambiguous_ids_and_other_repositories_slots_are_left_alone() {
    let (store, slot) = encrypted();
    let (foreign, foreign_slot) = encrypted();
    store.set(&foreign_slot, foreign.object(&foreign_slot));
    let ring = ring(&store, &passphrase(OLD));
    let id = id_of(&foreign_slot);
    assert_fails(ring.remove(id), ErrorKind::NotFound, "key list");
    let infos = [id_of(&slot), &id_of(&slot)[..31]].map(|id| KeySlotInfo {
        id: format!("{id:0<32}"),
        kind: None,
        kdf: None,
        created_unix_secs: None,
        fault: None,
    });
    assert_fails(
        find(&infos, &id_of(&slot)[..6]),
        ErrorKind::InvalidRequest,
        "more digits",
    );
}

#[test]
fn slots_of_other_repositories_are_not_counted() {
    let (store, _) = loop {
        let (store, slot) = encrypted();
        if slot.as_str() > "keys/8" {
            break (store, slot);
        }
    };
    let ring = ring(&store, &passphrase(OLD));
    let mut foreign = ring.config.clone();
    foreign.repository = RepositoryId([7; 16]);
    for _ in 0..4 * MAX_SLOTS {
        let secret = (&passphrase(OLD), &ring.master);
        super::super::put_slot(&*store, &foreign, secret, CHEAP, 0).unwrap();
    }
    let before = slots(&store);
    let before = before.iter().filter(|name| name.as_str() < "keys/8");
    assert!(before.count() > 2 * MAX_SLOTS);
    assert!(opens(&store, &passphrase(OLD)));
    ring.add(&key_file(), 0).unwrap();
    assert!(opens(&store, &key_file()));
}

/// A repair that writes a copy of a slot again while the slot is removed, in every order.
#[test]
fn a_repair_does_not_bring_a_removed_key_back() {
    repairs_beside_a_removal(&name::second_copy);
}

#[test]
fn nor_from_the_second_copy() {
    repairs_beside_a_removal(&str::to_owned);
}

fn repairs_beside_a_removal(damaged: &dyn Fn(&str) -> String) {
    let (origin, slot) = encrypted();
    let first = ring(&origin, &passphrase(OLD));
    first.add(&key_file(), 0).unwrap();
    origin.damage(&damaged(&slot));
    let objects: Vec<(String, Bytes)> = origin
        .names()
        .into_iter()
        .map(|name| (name.clone(), origin.object(&name)))
        .collect();
    let mut mended = 0;
    for schedule in schedules(2, 5) {
        let store = Arc::new(MemoryStore::default());
        for (name, object) in &objects {
            store.set(name, object.clone());
        }
        let turns = Schedule::new(2);
        let (mut repository, _) = open(as_store(&store), Some(&key_file())).unwrap();
        repository.store = stepped(&turns, 0, &store);
        let mut remover = ring(&store, &key_file());
        remover.store = stepped(&turns, 1, &store);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _done = Done(&turns, 0);
                mended += mend_roots(&repository, false).unwrap().mended.len();
            });
            scope.spawn(|| {
                let _done = Done(&turns, 1);
                remover.remove(id_of(&slot)).unwrap();
            });
            direct(&turns, &schedule);
        });
        let left = slots(&store);
        assert!(
            !left.iter().any(|name| name.starts_with(&slot)),
            "{schedule:?}: {left:?}"
        );
    }
    assert!(mended > 0);
}

#[test]
fn a_recovery_sheet_opens_what_lost_all_its_keys() {
    let (store, slot) = encrypted();
    let sheet = ring(&store, &passphrase(OLD)).recovery_key();
    for name in [slot.clone(), name::second_copy(&slot)] {
        store.remove(&name);
    }
    let lost = open(as_store(&store), Some(&passphrase(OLD)));
    assert_fails(lost, ErrorKind::Corrupt, "--recovery-sheet");
    let opened = open_with(as_store(&store), Opener::Sheet(&sheet)).unwrap();
    let ring = opened.keyring.unwrap().at_cost(CHEAP);
    assert_eq!(ring.opened_by(), None);
    assert_fails(
        ring.rotate(&key_file(), 0),
        ErrorKind::InvalidRequest,
        "no slot",
    );
    ring.add(&passphrase("new"), 0).unwrap();
    assert!(opens(&store, &passphrase("new")));
    // With the sheet in hand the last key still stays.
    let only = id_of(&slots(&store)[0]).to_owned();
    assert_fails(ring.remove(&only), ErrorKind::InvalidRequest, "last one");
    ring.add(&key_file(), 0).unwrap();
    ring.remove(&only).unwrap();
    assert!(opens(&store, &key_file()) && !opens(&store, &passphrase("new")));
}

#[test]
fn a_sheet_opens_only_its_own_repository() {
    let (store, _) = encrypted();
    let (other, _) = encrypted();
    let sheet = ring(&store, &passphrase(OLD)).recovery_key();
    let opened = open_with(as_store(&other), Opener::Sheet(&sheet));
    assert_fails(opened, ErrorKind::InvalidRequest, "another repository");
    let opened = open_with(as_store(&unencrypted()), Opener::Sheet(&sheet));
    assert_fails(opened, ErrorKind::InvalidRequest, "unencrypted");
    // The right id with another master key: the config is not signed with it.
    let forged = RecoveryKey::new(sheet.repository(), MasterKey::from_bytes([5; 32]));
    assert!(open_with(as_store(&store), Opener::Sheet(&forged)).is_err());
}

#[test]
fn rotation_changes_the_key_and_keeps_the_master() {
    let (store, slot) = encrypted();
    let before = ring(&store, &passphrase(OLD)).recovery_key();
    let done = ring(&store, &passphrase(OLD))
        .rotate(&passphrase("new"), 9)
        .unwrap();
    assert_eq!(done.removed, id_of(&slot));
    assert!(!opens(&store, &passphrase(OLD)));
    let ring = ring(&store, &passphrase("new"));
    assert_eq!(ring.opened_by(), Some(done.added.as_str()));
    assert!(ring.recovery_key().master().is_same(before.master()));
    assert_eq!(slots(&store).len(), 2);
    // The same passphrase again gets a new slot with new salts.
    let again = ring.rotate(&passphrase("new"), 9).unwrap();
    assert_eq!(again.removed, done.added);
    assert!(opens(&store, &passphrase("new")));
}

/// Every request of a change fails or loses its answer once, as if the process died there; afterwards a key opens, and the
/// same command, run again, ends the work.
#[test]
fn a_crash_at_any_step_leaves_a_key() {
    for lost_answer in [false, true] {
        for step in 0..20 {
            let (store, _) = encrypted();
            let fault = if lost_answer {
                Fault::LostAnswer(ErrorKind::Unavailable)
            } else {
                Fault::Fail(ErrorKind::Unavailable)
            };
            let crashing = Keyring {
                store: Arc::new(dying(as_store(&store), step, fault)),
                ..ring(&store, &passphrase(OLD))
            };
            let crashed = crashing.rotate(&key_file(), 0).is_err();
            let old = opens(&store, &passphrase(OLD));
            assert!(
                old || opens(&store, &key_file()),
                "step {step}, lost {lost_answer}"
            );
            if old {
                ring(&store, &passphrase(OLD))
                    .rotate(&key_file(), 0)
                    .unwrap();
            }
            assert!(
                opens(&store, &key_file()),
                "step {step}, lost {lost_answer}"
            );
            assert!(
                !opens(&store, &passphrase(OLD)),
                "step {step}, lost {lost_answer}"
            );
            assert!(crashed || step > 8, "step {step} was never reached");
        }
    }
}

/// From one request on every request fails: what a killed process does to a store.
fn dying(inner: Arc<dyn Store>, step: u64, last: Fault) -> FaultyStore {
    let store = FaultyStore::new(inner);
    let rule = |calls, fault| Rule {
        operation: None,
        name: String::new(),
        calls,
        fault,
    };
    store.add(rule(step..step + 1, last));
    store.add(rule(
        step + 1..u64::MAX,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    store
}

/// Tells the schedule that a player has ended, also by a panic.
struct Done<'a>(&'a Schedule, usize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}

/// Lets players change the store, or look whether an object is there, in this order; what is left comes in any order.
fn direct(schedule: &Schedule, order: &[usize]) {
    let counts = |next: &Waiting| {
        use Operation::{Delete, Head, Put};
        matches!(next.operation, Put | Head | Delete)
    };
    for player in order {
        let next = || {
            let mut waiting = schedule.waiting().into_iter();
            waiting.find(|next| next.actor == *player)
        };
        while let Some(next) = next() {
            schedule.step(*player);
            if counts(&next) {
                break;
            }
        }
    }
    while let Some(next) = schedule.waiting().pop() {
        schedule.step(next.actor);
    }
}

fn stepped(schedule: &Arc<Schedule>, player: usize, store: &Arc<MemoryStore>) -> Arc<dyn Store> {
    Arc::new(schedule.store(player, as_store(store)))
}

/// All orders of `steps` steps of each of `players` players.
fn schedules(players: usize, steps: usize) -> Vec<Vec<usize>> {
    fn extend(left: &mut [usize], prefix: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if left.iter().all(|left| *left == 0) {
            all.push(prefix.clone());
        }
        for player in 0..left.len() {
            if left[player] > 0 {
                left[player] -= 1;
                prefix.push(player);
                extend(left, prefix, all);
                prefix.pop();
                left[player] += 1;
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut vec![steps; players], &mut Vec::new(), &mut all);
    all
}

/// Player `n` opens with key `n` (or with a sheet) and takes away the key of the next one, all at once, in every order.
fn play(players: usize, by_sheet: bool) {
    let (origin, slot) = encrypted();
    let first = ring(&origin, &passphrase(OLD));
    let secrets: Vec<Secret> = (1..=players)
        .map(|n| other_key_file(u8::try_from(n).unwrap()))
        .collect();
    let ids: Vec<String> = secrets
        .iter()
        .map(|secret| first.add(secret, 0).unwrap())
        .collect();
    for name in [slot.clone(), name::second_copy(&slot)] {
        origin.remove(&name);
    }
    let objects: Vec<(String, Bytes)> = origin
        .names()
        .into_iter()
        .map(|name| (name.clone(), origin.object(&name)))
        .collect();
    let mut refused = 0;
    for schedule in schedules(players, 3) {
        let store = Arc::new(MemoryStore::default());
        for (name, object) in &objects {
            store.set(name, object.clone());
        }
        let turns = Schedule::new(players);
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..players)
                .map(|player| {
                    let ring = Keyring {
                        store: stepped(&turns, player, &store),
                        config: first.config.clone(),
                        master: first.master.clone(),
                        opened: (!by_sheet).then(|| format!("{}{}", name::KEYS, ids[player])),
                        cost: CHEAP,
                    };
                    let (turns, victim) = (&turns, &ids[(player + 1) % players]);
                    let start = (key_slots(&*store, &first.config).unwrap(), victim);
                    scope.spawn(move || {
                        // Everybody has looked before anybody acts.
                        let _done = Done(turns, player);
                        ring.remove_of(start.0, start.1).is_ok()
                    })
                })
                .collect();
            direct(&turns, &schedule);
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let left = secrets
            .iter()
            .filter(|secret| opens(&store, secret))
            .count();
        assert!(left > 0, "{schedule:?} left no key: {outcomes:?}");
        refused += usize::from(outcomes.contains(&false));
        for (player, done) in outcomes.iter().enumerate() {
            let victim = &secrets[(player + 1) % players];
            assert_eq!(!opens(&store, victim), *done, "{schedule:?}: {outcomes:?}");
        }
    }
    assert!(refused > 0, "no two removals met");
}

#[test]
fn of_all_who_remove_the_last_keys_at_once_one_keeps_its_own() {
    play(2, false);
    play(2, true);
    play(3, false);
    play(3, true);
}

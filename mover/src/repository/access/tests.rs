//! Making and opening repositories, with each root object damaged, missing, forged or foreign.

use super::super::format::key_slot::SecretKind;
use super::super::format::key_slot::tests::CHEAP;
use super::super::store::faulty::Operation;
pub(super) use super::super::store::memory::MemoryStore;
use super::super::store::stepped::Schedule;
use super::*;

pub(super) fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(text.to_owned().into())
}

pub(super) fn key_file() -> Secret {
    Secret::KeyFile(vec![3; 32].into())
}

pub(super) fn options(cipher: Cipher) -> InitOptions {
    InitOptions {
        cipher,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile: StoreProfile {
            kind: "memory".to_owned(),
            ..StoreProfile::default()
        },
        created_unix_secs: 1_700_000_000,
    }
}

fn init_on(
    store: &Arc<MemoryStore>,
    cipher: Cipher,
    secret: Option<&Secret>,
) -> Result<Repository> {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    init_at_cost(store, &options(cipher), secret, CHEAP)
}

pub(super) fn open_on(
    store: &Arc<MemoryStore>,
    secret: Option<&Secret>,
) -> Result<(Repository, Vec<String>)> {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    open(store, secret)
}

/// An encrypted repository for `open sesame`, and the name of its slot.
pub(super) fn encrypted() -> (Arc<MemoryStore>, String) {
    let store = Arc::new(MemoryStore::default());
    init_on(&store, Cipher::Aes256Gcm, Some(&passphrase("open sesame"))).unwrap();
    let slot = store
        .names()
        .into_iter()
        .find(|name| name.starts_with("keys/"))
        .unwrap();
    (store, slot)
}

pub(super) fn unencrypted() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    init_on(&store, Cipher::None, None).unwrap();
    store
}

pub(super) fn assert_fails<T: std::fmt::Debug>(
    result: Result<T>,
    kind: ErrorKind,
    words: &str,
) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = format!("{error} {:?}", error.hint_text());
    assert!(text.contains(words), "{text}");
    error
}

#[test]
fn what_init_made_opens() {
    let (store, slot) = encrypted();
    let names = ["config", "config.b", &slot, &format!("{slot}.b")].map(str::to_owned);
    assert_eq!(store.names(), names);
    let (repository, warnings) = open_on(&store, Some(&passphrase("open sesame"))).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(repository.config.chunk_size, 128 << 10);
    assert_eq!(store.adopted().unwrap().kind, "memory");
    assert!(check_roots(&*store).unwrap().is_empty());

    let store = unencrypted();
    assert_eq!(store.names(), ["config", "config.b"]);
    open_on(&store, None).unwrap();
}

#[test]
fn both_see_the_same_keys() {
    let store = Arc::new(MemoryStore::default());
    let made = init_on(&store, Cipher::Aes256Gcm, Some(&key_file())).unwrap();
    let (opened, _) = open_on(&store, Some(&key_file())).unwrap();
    assert_eq!(made.keys.volume_id("v"), opened.keys.volume_id("v"));
    assert_eq!(made.config, opened.config);
    let other = Arc::new(MemoryStore::default());
    let other = init_on(&other, Cipher::Aes256Gcm, Some(&key_file())).unwrap();
    assert_ne!(made.keys.volume_id("v"), other.keys.volume_id("v"));
}

#[test]
fn no_repository_is_not_found() {
    let store = Arc::new(MemoryStore::default());
    assert_fails(open_on(&store, None), ErrorKind::NotFound, "snaphaul init");
    assert_fails(read_config(&*store), ErrorKind::NotFound, "memory:");
}

#[test]
fn wrong_and_missing_secrets_are_told_apart() {
    let (store, _) = encrypted();
    let wrong = open_on(&store, Some(&passphrase("sesame")));
    assert_fails(wrong, ErrorKind::WrongKey, "wrong passphrase");
    let other = open_on(&store, Some(&key_file()));
    assert_fails(other, ErrorKind::WrongKey, "no key slot takes a key file");
    assert_fails(
        open_on(&store, None),
        ErrorKind::InvalidRequest,
        "--passphrase-file",
    );
    let short = Secret::KeyFile(vec![3; 31].into());
    assert_fails(
        open_on(&store, Some(&short)),
        ErrorKind::InvalidRequest,
        "31 bytes",
    );
}

#[test]
fn a_key_for_an_unencrypted_repository_is_refused() {
    let store = unencrypted();
    let opened = open_on(&store, Some(&passphrase("x")));
    assert_fails(
        opened,
        ErrorKind::InvalidRequest,
        "claims to be unencrypted",
    );
}

#[test]
fn init_needs_a_secret_exactly_when_it_encrypts() {
    let store = Arc::new(MemoryStore::default());
    let made = init_on(&store, Cipher::Aes256Gcm, None);
    assert_fails(made, ErrorKind::InvalidRequest, "--key-file");
    let made = init_on(&store, Cipher::None, Some(&key_file()));
    assert_fails(made, ErrorKind::InvalidRequest, "--no-encryption");
    let made = init_on(&store, Cipher::Aes256Gcm, Some(&passphrase("")));
    assert_fails(made, ErrorKind::InvalidRequest, "empty");
    let odd = InitOptions {
        chunk_size: 100_000,
        ..options(Cipher::None)
    };
    let target: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    assert_fails(
        init(target, &odd, None),
        ErrorKind::InvalidRequest,
        "chunk size",
    );
    assert!(store.names().is_empty(), "nothing is left behind");
}

#[test]
fn one_damaged_or_missing_copy_is_a_warning() {
    let secret = passphrase("open sesame");
    for missing in [false, true] {
        let (store, slot) = encrypted();
        for name in ["config", &slot] {
            if missing {
                store.remove(name);
            } else {
                store.damage(name);
            }
        }
        let (_, warnings) = open_on(&store, Some(&secret)).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("`config`") && warnings[0].contains("`config.b`"));
        assert!(warnings[1].contains(&slot));
        assert_eq!(check_roots(&*store).unwrap().len(), 2);
    }
    let (store, slot) = encrypted();
    for name in ["config.b".to_owned(), format!("{slot}.b")] {
        store.damage(&name);
    }
    assert!(open_on(&store, Some(&secret)).unwrap().1.is_empty());
    let findings = check_roots(&*store).unwrap();
    let objects: Vec<_> = findings.iter().filter_map(Error::object_name).collect();
    assert_eq!(objects, ["config.b", &format!("{slot}.b")]);
}

#[test]
fn two_damaged_copies_are_corrupt_and_no_wrong_key() {
    let secret = passphrase("open sesame");
    let (store, _) = encrypted();
    store.damage("config");
    store.damage("config.b");
    assert_fails(open_on(&store, Some(&secret)), ErrorKind::Corrupt, "config");
    let (store, slot) = encrypted();
    store.damage(&slot);
    store.remove(&format!("{slot}.b"));
    let error = assert_fails(
        open_on(&store, Some(&secret)),
        ErrorKind::Corrupt,
        "key slot",
    );
    assert_eq!(error.object_name(), Some(&slot[..]));
    let config = read_config(&*store).unwrap().0;
    let infos = key_slots(&*store, &config).unwrap();
    assert!(
        infos[0].kind.is_none() && infos[0].fault.is_some(),
        "{infos:?}"
    );
}

#[test]
fn key_slots_are_listed() {
    let (store, slot) = encrypted();
    let config = read_config(&*store).unwrap().0;
    let infos = key_slots(&*store, &config).unwrap();
    let expected = KeySlotInfo {
        id: slot["keys/".len()..].to_owned(),
        kind: Some(SecretKind::Passphrase),
        kdf: Some(CHEAP),
        created_unix_secs: Some(1_700_000_000),
        fault: None,
    };
    assert_eq!(infos, [expected]);
    // What an `init` that lost did not get to remove belongs to another repository.
    let (other, foreign) = encrypted();
    store.set(&foreign, other.object(&foreign));
    assert_eq!(key_slots(&*store, &config).unwrap().len(), 1);
    open_on(&store, Some(&passphrase("open sesame"))).unwrap();
}

#[test]
fn a_forged_config_is_refused_and_its_intact_copy_used() {
    let secret = passphrase("open sesame");
    let (store, _) = encrypted();
    let (config, _) = read_config(&*store).unwrap();
    let attacker = MasterKey::from_bytes([0; 32]);
    let weaker = Config {
        chunk_size: 1 << 20,
        ..config.clone()
    };
    let forged = weaker.seal(&weaker.keys(&attacker), [1; 32]).unwrap();
    store.set("config", forged.clone());
    let (repository, warnings) = open_on(&store, Some(&secret)).unwrap();
    assert_eq!(repository.config, config);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    store.set("config.b", forged);
    assert_fails(open_on(&store, Some(&secret)), ErrorKind::Corrupt, "forged");
    // A config that says that nothing is encrypted needs no forged key, only a victim that believes it.
    let public = Config {
        cipher: Cipher::None,
        public_salt: Some([0; 32]),
        ..config
    };
    store.set(
        "config",
        public.seal(&public.keys(&attacker), [1; 32]).unwrap(),
    );
    assert_fails(
        open_on(&store, Some(&secret)),
        ErrorKind::InvalidRequest,
        "unencrypted",
    );
}

#[test]
fn a_second_init_is_refused_and_adds_what_the_first_left_out() {
    let (store, _) = encrypted();
    store.remove("config.b");
    let before = store.object("config");
    let made = init_on(&store, Cipher::Aes256Gcm, Some(&key_file()));
    assert_fails(made, ErrorKind::InvalidRequest, "second init");
    assert_eq!(store.object("config"), before);
    assert_eq!(store.object("config.b"), before);
    open_on(&store, Some(&passphrase("open sesame"))).unwrap();
}

#[test]
fn of_two_inits_at_once_one_wins_and_the_other_leaves_nothing() {
    let (rival, _) = encrypted();
    let store = Arc::new(MemoryStore::default());
    let schedule = Schedule::new(1);
    let inner: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    let stepped: Arc<dyn Store> = Arc::new(schedule.store(0, inner));
    let made = std::thread::scope(|scope| {
        let ours = scope.spawn(|| {
            let cipher = options(Cipher::Aes256Gcm);
            let made = init_at_cost(stepped, &cipher, Some(&key_file()), CHEAP);
            schedule.done(0);
            made
        });
        while let [next] = &schedule.waiting()[..] {
            // The other one is faster by one request.
            if next.operation == Operation::Create && !store.names().contains(&next.name) {
                for name in rival.names() {
                    store.set(&name, rival.object(&name));
                }
            }
            schedule.step(0);
        }
        ours.join().unwrap()
    });
    assert_fails(made, ErrorKind::InvalidRequest, "second init");
    assert_eq!(store.names(), rival.names());
    open_on(&store, Some(&passphrase("open sesame"))).unwrap();
}

#[test]
fn init_takes_only_a_vacant_place() {
    for foreign in ["photo.jpg", "a/b", "config.json", "seg/x/1.g00", "config.b"] {
        let store = Arc::new(MemoryStore::default());
        store.set(foreign, &b"?"[..]);
        let made = init_on(&store, Cipher::None, None);
        assert_fails(made, ErrorKind::InvalidRequest, foreign);
        assert_eq!(store.names(), [foreign]);
    }
    // What interrupted and concurrent ones leave is no obstacle.
    let store = Arc::new(MemoryStore::default());
    store.set("keys/00", &b"?"[..]);
    store.set("probe/00", &b"?"[..]);
    init_on(&store, Cipher::None, None).unwrap();
}

#[test]
fn a_newer_config_is_not_passed_over_for_its_copy() {
    let store = unencrypted();
    let (config, _) = read_config(&*store).unwrap();
    let newer = Config {
        read_features: 1,
        ..config
    };
    let master = newer.public_master().unwrap();
    store.set("config", newer.seal(&newer.keys(&master), [1; 32]).unwrap());
    assert_fails(
        open_on(&store, None),
        ErrorKind::NewerFormat,
        "newer version",
    );
}

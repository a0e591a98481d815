//! An opened repository: store, configuration and keys together.
//!
//! ```text
//!   init:  vacant? ── key slot, twice ── create-only config (decides) ── second copy
//!   open:  config ── secret ── key slot ── master key ── MAC of the config ── Repository
//! ```
//!
//! Owns: `init`, opening, and the list of key slots. Must not: ask for secrets, or know bytes (`format`).

mod copies;
mod keyring;
mod slots;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use copies::{MendedRoots, check_roots, mend_roots};
pub use keyring::{Keyring, Rotated};
pub use slots::{KeySlotInfo, key_slots};

use super::format::config::{ConfigRecord, OBJECT_LOCK};
use super::format::key_slot::{KdfCost, SlotSeed};
use super::format::{Cipher, Config, KeySlot, Keys, MasterKey, RecoveryKey, Secret};
use super::ids::{RepositoryId, name, random};
use super::store::lock::ObjectLock;
use super::store::profile::StoreProfile;
use super::store::{Created, Store, discard};
use crate::error::{Error, ErrorKind, Result};

/// A repository whose key was given.
#[derive(Debug)]
pub struct Repository {
    /// Where its objects are.
    pub store: Arc<dyn Store>,
    /// What `init` decided, authenticated.
    pub config: Config,
    /// Its keys.
    pub keys: Arc<Keys>,
}

/// What a new repository should be.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Cipher of every object.
    pub cipher: Cipher,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// Bytes of bodies after which a segment is full.
    pub segment_size: u32,
    /// What the store was found to be able to do.
    pub profile: StoreProfile,
    /// Now, in seconds since 1970.
    pub created_unix_secs: i64,
}

const HOW_TO_GIVE: &str = "give it with --passphrase-file, --key-file or SNAPHAUL_PASSPHRASE";

/// Makes a repository at an empty place. `secret` goes into the first key slot; none for [`Cipher::None`].
///
/// # Errors
/// `InvalidRequest` where a repository or something foreign is there already, also when another `init` won at the same moment; and
/// what the store answers.
pub fn init(
    store: Arc<dyn Store>,
    options: &InitOptions,
    secret: Option<&Secret>,
) -> Result<Repository> {
    init_at_cost(store, options, secret, KdfCost::default())
}

/// As [`init`], with a KDF that tests can afford.
pub(crate) fn init_at_cost(
    store: Arc<dyn Store>,
    options: &InitOptions,
    secret: Option<&Secret>,
    cost: KdfCost,
) -> Result<Repository> {
    let (config, master) = plan(options, secret)?;
    copies::require_vacant(&*store)?;
    let keys = config.keys(&master);
    store.adopt_profile(&config.profile);
    let slot = match secret {
        Some(secret) => Some(put_slot(
            &*store,
            &config,
            (secret, &master),
            cost,
            config.created_unix_secs,
        )?),
        None => None,
    };
    store.sync()?;
    if !win_config(&*store, &config, &keys)? {
        // Our slot opens nothing: the repository that won has another master key.
        for name in slot
            .iter()
            .flat_map(|slot| [name::second_copy(slot), slot.clone()])
        {
            discard(&*store, &name)?;
        }
        return Err(copies::already_there(&*store));
    }
    store.sync()?;
    check_locked(&*store, &config)?;
    Ok(Repository {
        store,
        config,
        keys: Arc::new(keys),
    })
}

fn plan(options: &InitOptions, secret: Option<&Secret>) -> Result<(Config, MasterKey)> {
    let refuse = |what| Error::new(ErrorKind::InvalidRequest, what);
    let master = MasterKey::generate();
    let public_salt: [u8; 32] = random();
    let (public_salt, master) = match (options.cipher, secret) {
        (Cipher::None, None) => (Some(public_salt), MasterKey::from_bytes(public_salt)),
        (Cipher::None, Some(_)) => {
            return Err(refuse("refuse a key for a repository without encryption")
                .hint("leave out --no-encryption, or the passphrase or key file"));
        }
        (Cipher::Aes256Gcm, None) => {
            return Err(refuse("need a passphrase or key file").hint(HOW_TO_GIVE));
        }
        (Cipher::Aes256Gcm, Some(secret)) => {
            secret.check()?;
            (None, master)
        }
    };
    let config = Config {
        repository: RepositoryId(random()),
        cipher: options.cipher,
        chunk_size: options.chunk_size,
        segment_size: options.segment_size,
        read_features: 0,
        write_features: match options.profile.lock {
            Some(_) => OBJECT_LOCK,
            None => 0,
        },
        other_features: 0,
        profile: options.profile.clone(),
        created_unix_secs: options.created_unix_secs,
        public_salt,
    };
    config.check_request()?;
    Ok((config, master))
}

/// Stores a key slot twice and gives its name.
fn put_slot(
    store: &dyn Store,
    config: &Config,
    (secret, master): (&Secret, &MasterKey),
    cost: KdfCost,
    created_unix_secs: i64,
) -> Result<String> {
    let seed = SlotSeed {
        id: random(),
        salt: random(),
        kdf_salt: random(),
        cost,
        created_unix_secs,
    };
    let object = KeySlot::seal(config.repository, secret, master, &seed)?;
    let slot = KeySlot::object_name(&seed.id);
    store.put(&slot, object.clone())?;
    store.put(&name::second_copy(&slot), object)?;
    Ok(slot)
}

/// A server that does not know the headers of a lock ignores them: then nothing here is protected, and the user must know.
fn check_locked(store: &dyn Store, config: &Config) -> Result<()> {
    let Some(lock) = config.profile.lock else {
        return Ok(());
    };
    let promised = UNIX_EPOCH + Duration::from_secs(lock.keep_secs);
    let created = Duration::from_secs(u64::try_from(config.created_unix_secs).unwrap_or(0));
    if store
        .locked_until(name::CONFIG)?
        .is_some_and(|until| until >= promised + created)
    {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        "lock objects: the store took the locks and forgot them",
    )
    .object(store.url())
    .hint("do not rely on this repository: use a server with Object Lock, and let this user do s3:GetObjectRetention"))
}

/// Locks those of `objects` that are config or key slots: they were stored before the policy was known.
///
/// # Errors
/// What the store answers.
pub fn lock_roots(store: &dyn Store, objects: &[String], policy: Option<ObjectLock>) -> Result<()> {
    let Some(policy) = policy else { return Ok(()) };
    let until = policy.end(SystemTime::now());
    objects
        .iter()
        .filter(|object| object.starts_with(name::CONFIG) || object.starts_with(name::KEYS))
        .try_for_each(|object| store.lock(object, until))
}

/// Creates the config; whether ours is the one that stays.
fn win_config(store: &dyn Store, config: &Config, keys: &Keys) -> Result<bool> {
    let object = config.seal(keys, random())?;
    if store.create(name::CONFIG, object.clone())? == Created::Exists {
        return Ok(false);
    }
    // Without a create-only PUT both may believe that they won; then the bytes that are there decide.
    if !config.profile.conditional_writes && store.get(name::CONFIG)? != object {
        return Ok(false);
    }
    store.put(&name::second_copy(name::CONFIG), object)?;
    Ok(true)
}

/// Reads the config without a key, to see whether one is needed. Not authenticated. Also gives warnings for people.
///
/// # Errors
/// `NotFound` where there is no repository, `Corrupt` where both copies are damaged, `NewerFormat`, and what the store answers.
pub fn read_config(store: &dyn Store) -> Result<(Config, Vec<String>)> {
    let (record, warnings) = load_config(store)?;
    Ok((record.config().clone(), warnings))
}

fn load_config(store: &dyn Store) -> Result<(ConfigRecord, Vec<String>)> {
    let mut warnings = Vec::new();
    let found = copies::load(store, name::CONFIG, ConfigRecord::parse, &mut warnings);
    let record = found.map_err(|error| match error.kind() {
        ErrorKind::NotFound if copies::has_rest(store) => Error::new(
            ErrorKind::Corrupt,
            "read the config: both of its copies are gone, the rest of the repository is there",
        )
        .object(name::CONFIG)
        .hint("put `config` or `config.b` back from a backup of the store; without it the data cannot be read, and `init` refuses the place")
        .source(error),
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "find a repository")
            .object(store.url())
            .hint("check --repo, or make a repository there with `snaphaul init`")
            .source(error),
        _ => error,
    })?;
    Ok((record, warnings))
}

/// What a repository is opened with.
#[derive(Clone, Copy, Debug)]
pub enum Opener<'a> {
    /// Nothing: it is not encrypted.
    Nothing,
    /// A passphrase or key file.
    Secret(&'a Secret),
    /// The master key from paper.
    Sheet(&'a RecoveryKey),
}

/// A repository with what its opening brought to light.
#[derive(Debug)]
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Its keys; `None` where it is not encrypted.
    pub keyring: Option<Keyring>,
    /// For people: damaged second copies, for instance.
    pub warnings: Vec<String>,
}

/// Opens a repository and gives warnings for people: damaged second copies, for instance.
///
/// # Errors
/// As [`read_config`]; `InvalidRequest` where a key is needed and none given, or given and none needed; `WrongKey`; `Corrupt` where no
/// intact slot is left or the config was not written with the key.
pub fn open(store: Arc<dyn Store>, secret: Option<&Secret>) -> Result<(Repository, Vec<String>)> {
    let opened = open_with(store, secret.map_or(Opener::Nothing, Opener::Secret))?;
    Ok((opened.repository, opened.warnings))
}

/// As [`open`], with anything that opens a repository.
///
/// # Errors
/// As [`open`]; `InvalidRequest` for a sheet of another repository.
pub fn open_with(store: Arc<dyn Store>, opener: Opener<'_>) -> Result<Opened> {
    let (record, mut warnings) = load_config(&*store)?;
    let (master, slot) = master_key(&*store, record.config(), opener, &mut warnings)?;
    let (config, keys) = authenticate(&*store, &record, &master, &mut warnings)?;
    store.adopt_profile(&config.profile);
    let keyring = config
        .is_encrypted()
        .then(|| Keyring::new(Arc::clone(&store), config.clone(), master, slot));
    Ok(Opened {
        repository: Repository {
            store,
            config,
            keys: Arc::new(keys),
        },
        keyring,
        warnings,
    })
}

/// The master key, and the slot it came from, if any.
fn master_key(
    store: &dyn Store,
    config: &Config,
    opener: Opener<'_>,
    warnings: &mut Vec<String>,
) -> Result<(MasterKey, Option<String>)> {
    let refuse = |what| Error::new(ErrorKind::InvalidRequest, what).object(store.url());
    match (config.public_master(), opener) {
        (Some(master), Opener::Nothing) => Ok((master, None)),
        // Whoever took the repository's place must not get a backup in the clear from a user who expects encryption.
        (Some(_), _) => Err(refuse("refuse a repository that claims to be unencrypted")
            .hint("a passphrase or key is configured: remove it if you made this repository with --no-encryption, else find out who replaced it")),
        (None, Opener::Nothing) => Err(refuse("need the passphrase or key file of this repository")
            .hint(HOW_TO_GIVE)),
        (None, Opener::Secret(secret)) => {
            secret.check()?;
            let (master, slot) = slots::unlock(store, config, (secret, None), warnings)?;
            Ok((master, Some(slot)))
        }
        (None, Opener::Sheet(sheet)) if sheet.repository() != config.repository => {
            let (theirs, ours) = (sheet.repository(), config.repository);
            Err(refuse("refuse the recovery sheet of another repository")
                .hint(format!("the sheet is of repository {theirs}, here is {ours}: check --repo")))
        }
        (None, Opener::Sheet(sheet)) => Ok((sheet.master().clone(), None)),
    }
}

/// The config, if it or its second copy was written with the key.
fn authenticate(
    store: &dyn Store,
    record: &ConfigRecord,
    master: &MasterKey,
    warnings: &mut Vec<String>,
) -> Result<(Config, Keys)> {
    let keys = record.config().keys(master);
    let refusal = match record.authenticate(name::CONFIG, &keys) {
        Ok(config) => return Ok((config, keys)),
        Err(refusal) => refusal,
    };
    let second = name::second_copy(name::CONFIG);
    let copied = store.get(&second).and_then(|object| {
        let record = ConfigRecord::parse(&second, &object)?;
        let keys = record.config().keys(master);
        Ok((record.authenticate(&second, &keys)?, keys))
    });
    let Ok(authentic) = copied else {
        return Err(refusal);
    };
    warnings.push(format!("{refusal}; used its second copy `{second}`"));
    Ok(authentic)
}

#[cfg(test)]
mod tests;

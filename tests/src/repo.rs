//! A repository as a test sees it: where it is, which secret opens it, and one method per subcommand.
//!
//! Owns: the flags that every command line needs. Must not: judge results beyond the exit code asked for.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::bucket::{Bucket, REGION};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::server::Login;
use crate::snaphaul::{Outcome, Snaphaul};

/// What opens a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// `--key-file`: no key derivation, so it is the fast default of tests.
    KeyFile(PathBuf),
    /// `--passphrase-file`.
    PassphraseFile(PathBuf),
    /// Nothing is given.
    None,
}

/// A repository in a directory or bucket.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Value of `--repo`.
    pub url: String,
    /// What opens it.
    pub secret: Secret,
    /// Flags of every command, e.g. `--s3-endpoint`.
    pub flags: Vec<String>,
    /// Environment of every command, e.g. credentials.
    pub env: Vec<(String, String)>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Directory(PathBuf),
    Bucket(Box<Bucket>, String),
}

/// A new, empty repository in a scratch folder, and random numbers whose seed is printed.
///
/// # Errors
/// Where it cannot be made.
pub fn fresh(name: &str) -> Result<(Scratch, Repo, Random)> {
    let scratch = Scratch::new(name)?;
    let repo = Repo::directory(&scratch.join("repo"))?;
    repo.init()?;
    Ok((scratch, repo, Random::from_environment(name)))
}

impl Repo {
    /// A repository in `folder`, opened by a fresh key file beside it. Nothing is made in the folder itself.
    ///
    /// # Errors
    /// Where the key file cannot be written.
    pub fn directory(folder: &Path) -> Result<Self> {
        let url = format!("file://{}", folder.display());
        let secret = Secret::KeyFile(key_file(&folder.with_extension("key"))?);
        Ok(Self {
            url,
            secret,
            flags: Vec::new(),
            env: Vec::new(),
            place: Place::Directory(folder.to_owned()),
        })
    }

    /// A repository under `prefix` of a bucket, used as the bucket's owner. `keys` is a folder for its key file.
    ///
    /// # Errors
    /// Where the key file cannot be written.
    pub fn bucket(bucket: &Bucket, prefix: &str, keys: &Path) -> Result<Self> {
        let secret = Secret::KeyFile(key_file(&keys.join(format!(
            "{}-{}.key",
            bucket.name,
            prefix.replace('/', "-")
        )))?);
        let mut flags = vec![
            "--s3-path-style".to_owned(),
            "--s3-region".to_owned(),
            REGION.to_owned(),
        ];
        flags.extend(["--s3-endpoint".to_owned(), bucket.endpoint.url.clone()]);
        if let Some(ca) = &bucket.endpoint.ca_file {
            flags.extend(["--s3-ca-file".to_owned(), ca.display().to_string()]);
        }
        let url = format!("s3://{}/{prefix}", bucket.name);
        let place = Place::Bucket(Box::new(bucket.clone()), prefix.to_owned());
        let repo = Self {
            url,
            secret,
            flags,
            env: Vec::new(),
            place,
        };
        Ok(repo.with_login(&bucket.endpoint.owner))
    }

    /// The same repository as another S3 user.
    #[must_use]
    pub fn with_login(&self, login: &Login) -> Self {
        let mut env = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), login.access.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), login.secret.clone()),
        ];
        env.extend(
            login
                .token
                .iter()
                .map(|token| ("AWS_SESSION_TOKEN".to_owned(), token.clone())),
        );
        Self {
            env,
            ..self.clone()
        }
    }

    /// Another prefix of the same bucket, or another address, with everything else as here. Its objects are not looked at.
    #[must_use]
    pub fn with_url(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// The same repository with the environment emptied.
    #[must_use]
    pub fn without_env(&self) -> Self {
        Self {
            env: Vec::new(),
            ..self.clone()
        }
    }

    /// The same repository with another secret.
    #[must_use]
    pub fn with_secret(&self, secret: Secret) -> Self {
        Self {
            secret,
            ..self.clone()
        }
    }

    /// The same repository with the value of one flag replaced or added.
    #[must_use]
    pub fn with_flag(&self, flag: &str, value: &str) -> Self {
        let mut changed = self.clone();
        match changed.flags.iter().position(|word| word == flag) {
            Some(at) => value.clone_into(&mut changed.flags[at + 1]),
            None => changed.flags.extend([flag.to_owned(), value.to_owned()]),
        }
        changed
    }

    /// The same repository with a flag and its value, if it has one, taken away.
    #[must_use]
    pub fn without_flag(&self, flag: &str) -> Self {
        let mut changed = self.clone();
        if let Some(at) = changed.flags.iter().position(|word| word == flag) {
            let valued = changed
                .flags
                .get(at + 1)
                .is_some_and(|next| !next.starts_with("--"));
            changed.flags.drain(at..=at + usize::from(valued));
        }
        changed
    }

    /// `snaphaul WORDS… --json` with everything that reaches this repository.
    ///
    /// # Errors
    /// Where the binary is missing.
    pub fn command(&self, words: &[&str]) -> Result<Snaphaul> {
        Ok(self.plain(words)?.args(&["--json"]))
    }

    /// As [`Repo::command`], without `--json`.
    ///
    /// # Errors
    /// Where the binary is missing.
    pub fn plain(&self, words: &[&str]) -> Result<Snaphaul> {
        let mut command = Snaphaul::new(words)?
            .flag("--repo", &self.url)
            .args(&self.flags);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        Ok(match &self.secret {
            Secret::KeyFile(file) => command.flag("--key-file", file),
            Secret::PassphraseFile(file) => command.flag("--passphrase-file", file),
            Secret::None => command,
        })
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub fn ok(&self, words: &[&str]) -> Result<Outcome> {
        self.fails(0, words)
    }

    /// Runs a command that must end with `code`.
    ///
    /// # Errors
    /// Where it does not.
    pub fn fails(&self, code: i32, words: &[&str]) -> Result<Outcome> {
        let outcome = self.command(words)?.run()?.expect(code)?;
        outcome.json()?;
        Ok(outcome)
    }

    /// `init` with small segments, so that small images make several.
    ///
    /// # Errors
    /// Where it fails.
    pub fn init(&self) -> Result<Outcome> {
        self.ok(&["init", "--segment-size", "1MiB"])
    }

    /// `backup SOURCE --volume NAME FLAGS…`, which must succeed; gives the point.
    ///
    /// # Errors
    /// Where it fails.
    pub fn backup(&self, source: &Path, volume: &str, flags: &[&str]) -> Result<Outcome> {
        let source = source.display().to_string();
        let mut words = vec!["backup", source.as_str(), "--volume", volume];
        words.extend(flags);
        self.ok(&words)
    }

    /// `restore POINT TARGET FLAGS…`, which must succeed.
    ///
    /// # Errors
    /// Where it fails.
    pub fn restore(&self, point: &str, target: &Path, flags: &[&str]) -> Result<Outcome> {
        let target = target.display().to_string();
        let mut words = vec!["restore", point, target.as_str()];
        words.extend(flags);
        self.ok(&words)
    }

    /// Names of all objects that begin with `prefix`, ascending, read behind the product's back.
    ///
    /// # Errors
    /// Where the place cannot be read.
    pub fn objects(&self, prefix: &str) -> Result<Vec<String>> {
        match &self.place {
            Place::Directory(folder) => {
                let mut names = Vec::new();
                walk(folder, "", &mut names)?;
                names.retain(|name| name.starts_with(prefix));
                names.sort();
                Ok(names)
            }
            Place::Bucket(bucket, top) => {
                let keys = bucket.list(&format!("{top}/{prefix}"))?;
                let skip = top.len() + 1;
                Ok(keys
                    .into_iter()
                    .filter_map(|key| key.get(skip..).map(str::to_owned))
                    .collect())
            }
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match &self.place {
            Place::Directory(folder) => Ok(std::fs::read(folder.join(name))?),
            Place::Bucket(bucket, top) => bucket.get(&format!("{top}/{name}")),
        }
    }

    /// Writes an object over what is there.
    ///
    /// # Errors
    /// Where the place refuses.
    pub fn write(&self, name: &str, body: &[u8]) -> Result<()> {
        match &self.place {
            Place::Directory(folder) => {
                let file = folder.join(name);
                if let Some(parent) = file.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                // A new file: objects may be read-only, and a reader may hold the old one.
                let _ = std::fs::remove_file(&file);
                Ok(std::fs::write(file, body)?)
            }
            Place::Bucket(bucket, top) => bucket.put(&format!("{top}/{name}"), body),
        }
    }

    /// Removes an object.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn remove(&self, name: &str) -> Result<()> {
        match &self.place {
            Place::Directory(folder) => Ok(std::fs::remove_file(folder.join(name))?),
            Place::Bucket(bucket, top) => bucket.delete(&format!("{top}/{name}")),
        }
    }

    /// Sum of the sizes of all objects under `prefix`.
    ///
    /// # Errors
    /// Where the place cannot be read.
    pub fn bytes(&self, prefix: &str) -> Result<u64> {
        let mut sum = 0;
        for name in self.objects(prefix)? {
            sum += self.read(&name)?.len() as u64;
        }
        Ok(sum)
    }

    /// Folder of a repository in a directory.
    ///
    /// # Errors
    /// For a bucket.
    pub fn folder(&self) -> Result<&Path> {
        match &self.place {
            Place::Directory(folder) => Ok(folder),
            Place::Bucket(..) => bail!("{} is no directory", self.url),
        }
    }
}

/// Writes 32 bytes of key. They come from a seeded generator: nothing of value is kept under them.
fn key_file(path: &Path) -> Result<PathBuf> {
    let mut key = [0; 32];
    let seed = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(*byte));
    Random::new(seed).fill(&mut key);
    std::fs::write(path, key)?;
    Ok(path.to_owned())
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

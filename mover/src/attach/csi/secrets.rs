//! Secrets of a driver, from files.
//!
//! ```text
//!   DIR/snapshotter/userID        DIR/provisioner/userKey        one folder a group of calls, one file a key
//! ```
//!
//! Owns: which calls get which secrets, and that none of them is shown. Must not: write them anywhere.
//!
//! The groups are those of the parameters `csi.storage.k8s.io/GROUP-secret-name` of storage and snapshot classes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Secrets of one call.
pub type SecretMap = BTreeMap<String, String>;

/// A map of a request has at most 4 KiB.
const MAX_LEN: u64 = 4 << 10;

/// A group of calls that share secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// CreateVolume, DeleteVolume.
    Provisioner,
    /// ControllerPublishVolume, ControllerUnpublishVolume.
    ControllerPublish,
    /// NodeStageVolume.
    NodeStage,
    /// NodePublishVolume.
    NodePublish,
    /// CreateSnapshot, DeleteSnapshot, and what changed between two.
    Snapshotter,
    /// ListSnapshots; where there are none, those of the snapshotter are taken.
    SnapshotterList,
}

impl Group {
    /// Every group, with the name of its folder.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Provisioner, "provisioner"),
        (Self::ControllerPublish, "controller-publish"),
        (Self::NodeStage, "node-stage"),
        (Self::NodePublish, "node-publish"),
        (Self::Snapshotter, "snapshotter"),
        (Self::SnapshotterList, "snapshotter-list"),
    ];
}

/// All secrets of a run.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<Group, SecretMap>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Reads a folder with one folder a group, each file of which is a key; one newline at the end of a file is dropped. Names
    /// that begin with a dot are left out: mounted secrets have some.
    ///
    /// # Errors
    /// `InvalidRequest` for a group that no call has, a key or value that no request may carry; `NotFound`, `AccessDenied`, `Io`.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut secrets = BTreeMap::new();
        for (name, path) in entries(folder)? {
            let Some((group, _)) = Group::ALL.into_iter().find(|(_, group)| *group == name) else {
                let groups = Group::ALL.map(|(_, name)| name).join(", ");
                return Err(refused("find a group of calls for these secrets", &path)
                    .hint(format!("a folder of --csi-secrets is one of: {groups}")));
            };
            let mut map = SecretMap::new();
            for (key, file) in entries(&path)? {
                let value = value(&key, &file)?;
                map.insert(key, value);
            }
            secrets.insert(group, map);
        }
        Ok(Self(secrets))
    }

    /// From maps that were read elsewhere.
    ///
    /// # Errors
    /// `InvalidRequest` for a key or a size that no request may carry. No value is told.
    pub fn of_groups(groups: impl IntoIterator<Item = (Group, SecretMap)>) -> Result<Self> {
        let mut secrets = BTreeMap::new();
        for (group, map) in groups {
            let len: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
            if u64::try_from(len).is_ok_and(|len| len > MAX_LEN) {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "use a secret of more than 4 KiB",
                ));
            }
            if let Some(key) = map.keys().find(|key| !is_key(key)) {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "use this name as the key of a secret",
                )
                .object(key)
                .hint("a key has letters, digits and `. _ -`"));
            }
            secrets.insert(group, map);
        }
        Ok(Self(secrets))
    }

    /// Those of a group; none where there are none.
    #[must_use]
    pub fn of(&self, group: Group) -> SecretMap {
        let mut found = self.0.get(&group);
        // Not every class names a secret for lists, and drivers that want one take any that is theirs.
        if found.is_none() && group == Group::SnapshotterList {
            found = self.0.get(&Group::Snapshotter);
        }
        found.cloned().unwrap_or_default()
    }

    /// Cuts out of a text of a driver what is a secret.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        changed_blocks::csi::redact(text, self.0.values().flat_map(BTreeMap::values))
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let read = fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut found = Vec::new();
    for entry in read {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(refused("read the name of a secret", &entry.path()));
        };
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn is_key(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.chars().all(fits)
}

fn value(key: &str, file: &Path) -> Result<String> {
    if !is_key(key) {
        return Err(refused("use this name as the key of a secret", file)
            .hint("a key has letters, digits and `. _ -`"));
    }
    let len = fs::metadata(file)
        .map_err(|error| failed(file, error))?
        .len();
    if len > MAX_LEN {
        return Err(refused("use a secret of more than 4 KiB", file));
    }
    let bytes = fs::read(file).map_err(|error| failed(file, error))?;
    let mut text =
        String::from_utf8(bytes).map_err(|_| refused("use a secret that is no text", file))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

fn refused(message: &str, path: &Path) -> Error {
    Error::new(ErrorKind::InvalidRequest, message).object(path.display())
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
        _ => ErrorKind::Io,
    };
    Error::new(kind, "read the secrets of the driver")
        .object(path.display())
        .hint("--csi-secrets is a folder with one folder a group, e.g. DIR/snapshotter/KEY")
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn each_group_has_its_own() {
        let folder = folder(&[
            ("snapshotter/userID", "admin\n"),
            ("provisioner/userKey", "hunter22"),
            ("provisioner/..data/userKey", "hidden"),
        ]);
        let secrets = Secrets::read(folder.path()).unwrap();
        assert_eq!(secrets.of(Group::Snapshotter)["userID"], "admin");
        assert_eq!(secrets.of(Group::Provisioner).len(), 1);
        assert!(secrets.of(Group::NodeStage).is_empty());
    }

    #[test]
    fn lists_have_their_own_or_those_of_the_snapshotter() {
        let own = [
            ("snapshotter/key", "takes"),
            ("snapshotter-list/key", "lists"),
        ];
        let of_list = |files: &[(&str, &str)]| {
            let folder = folder(files);
            let secrets = Secrets::read(folder.path()).unwrap();
            secrets.of(Group::SnapshotterList).get("key").cloned()
        };
        assert_eq!(of_list(&own).as_deref(), Some("lists"));
        assert_eq!(of_list(&own[..1]).as_deref(), Some("takes"));
        assert_eq!(of_list(&[("provisioner/key", "makes")]), None);
        let folder = folder(&own[1..]);
        let secrets = Secrets::read(folder.path()).unwrap();
        assert!(secrets.of(Group::Snapshotter).is_empty());
    }

    #[test]
    fn nothing_shows_a_secret() {
        let folder = folder(&[
            ("provisioner/key", "hunter"),
            ("snapshotter/key", "hunter22"),
            ("snapshotter/id", "a"),
        ]);
        let secrets = Secrets::read(folder.path()).unwrap();
        assert!(!format!("{secrets:?}").contains("hunter"));
        assert_eq!(
            secrets.redact("bad key hunter22 of a"),
            "bad key (redacted) of a"
        );
    }

    #[test]
    fn what_no_request_may_carry_is_refused() {
        for files in [
            [("snapshoter/key", "v")],
            [("snapshotter/a key", "v")],
            [("snapshotter/key", &*"v".repeat(5000))],
        ] {
            let folder = folder(&files);
            let error = Secrets::read(folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{files:?}");
        }
        let empty = tempfile::tempdir().unwrap();
        let missing = Secrets::read(&empty.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

//! Names of images and snapshots as people write them: `rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`.
//!
//! Owns: parsing, printing, and opening what is named. Must not: look for anything that is not named.
//!
//! A pool, an image or a snapshot can be named by its id, as `id=ID`: an image in the trash has no name that can be relied on, nor
//! has a snapshot there. What ceph-csi made can be named by its handle, which holds no more than such names:
//!
//! ```text
//!   rbd:csi-vol=HANDLE   = rbd:id=POOL/csi-vol-UUID
//!   rbd:csi-snap=HANDLE  = rbd:id=POOL/csi-snap-UUID@csi-snap-UUID
//! ```
//!
//! Ceph allows no `/` and no `@` in names, so nothing needs quoting.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::csi_handle::CsiHandle;
use super::library::{Access, Cluster, Image, ImageName, RbdError, SnapshotName};

/// What every name starts with.
const SCHEME: &str = "rbd:";
/// What an id starts with.
const ID: &str = "id=";
/// What the handle of a volume of ceph-csi starts with.
const CSI_VOLUME: &str = "csi-vol=";
/// What the handle of a snapshot of ceph-csi starts with.
const CSI_SNAPSHOT: &str = "csi-snap=";

/// An image, or a snapshot of one, as named by a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RbdName {
    /// The pool.
    pub pool: NamedPool,
    /// The namespace in it; empty for the default one.
    pub namespace: String,
    /// The image.
    pub image: NamedImage,
    /// The snapshot; the head of the image where `None`.
    pub snapshot: Option<NamedSnapshot>,
}

/// A pool by name or id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamedPool {
    /// `POOL`.
    Name(String),
    /// `id=ID`, a decimal number.
    Id(i64),
}

/// An image by name or id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamedImage {
    /// `IMAGE`.
    Name(String),
    /// `id=ID`.
    Id(String),
}

/// A snapshot by name or id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamedSnapshot {
    /// `SNAPSHOT`.
    Name(String),
    /// `id=ID`, a decimal number.
    Id(u64),
}

/// A name that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no RBD name: {fault}; write rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]")]
pub struct RbdNameError {
    name: String,
    fault: &'static str,
}

impl FromStr for RbdName {
    type Err = RbdNameError;

    fn from_str(name: &str) -> Result<Self, RbdNameError> {
        parse(name).map_err(|fault| RbdNameError {
            name: name.to_owned(),
            fault,
        })
    }
}

fn parse(name: &str) -> Result<RbdName, &'static str> {
    let rest = name
        .strip_prefix(SCHEME)
        .ok_or("it does not start with rbd:")?;
    if rest.contains('\0') {
        return Err("it holds a zero byte");
    }
    if let Some(handle) = rest.strip_prefix(CSI_VOLUME) {
        return Ok(RbdName::of_volume(&parse_handle(handle)?));
    }
    if let Some(handle) = rest.strip_prefix(CSI_SNAPSHOT) {
        return Ok(RbdName::of_snapshot(&parse_handle(handle)?));
    }
    let (path, snapshot) = match rest.split_once('@') {
        Some((_, snapshot)) if snapshot.contains('@') => return Err("it has more than one @"),
        Some((path, snapshot)) => (path, Some(parse_snapshot(snapshot)?)),
        None => (rest, None),
    };
    let parts: Vec<&str> = path.split('/').collect();
    let (pool, namespace, image) = match parts[..] {
        [pool, image] => (pool, "", image),
        [_, "", _] => return Err("the namespace is empty"),
        [pool, namespace, image] => (pool, namespace, image),
        [_] => return Err("the image is missing"),
        _ => return Err("it has more than three parts"),
    };
    Ok(RbdName {
        pool: parse_pool(pool)?,
        namespace: namespace.to_owned(),
        image: parse_image(image)?,
        snapshot,
    })
}

fn parse_handle(handle: &str) -> Result<CsiHandle, &'static str> {
    let handle = handle.parse();
    handle.map_err(|_| "the handle is none of ceph-csi, as volumeHandle and snapshotHandle name it")
}

fn parse_pool(pool: &str) -> Result<NamedPool, &'static str> {
    match (pool.strip_prefix(ID), pool) {
        (_, "") => Err("the pool is empty"),
        (Some(id), _) => match id.parse() {
            Ok(number) if i64::to_string(&number) == id && number >= 0 => Ok(NamedPool::Id(number)),
            _ => Err("the pool's id is no number"),
        },
        (None, name) => Ok(NamedPool::Name(name.to_owned())),
    }
}

fn parse_image(image: &str) -> Result<NamedImage, &'static str> {
    match (image.strip_prefix(ID), image) {
        (_, "") => Err("the image is empty"),
        (Some(""), _) => Err("the image's id is empty"),
        (Some(id), _) => Ok(NamedImage::Id(id.to_owned())),
        (None, name) => Ok(NamedImage::Name(name.to_owned())),
    }
}

fn parse_snapshot(snapshot: &str) -> Result<NamedSnapshot, &'static str> {
    match (snapshot.strip_prefix(ID), snapshot) {
        (_, "") => Err("the snapshot is empty"),
        // Sign and leading zeros are refused, so that a snapshot has one name.
        (Some(id), _) => match id.parse() {
            Ok(number) if u64::to_string(&number) == id => Ok(NamedSnapshot::Id(number)),
            _ => Err("the snapshot's id is no number"),
        },
        (None, name) if name.contains('/') => Err("the snapshot has a /"),
        (None, name) => Ok(NamedSnapshot::Name(name.to_owned())),
    }
}

impl fmt::Display for RbdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pool {
            NamedPool::Name(name) => write!(f, "{SCHEME}{name}/")?,
            NamedPool::Id(id) => write!(f, "{SCHEME}{ID}{id}/")?,
        }
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        match &self.image {
            NamedImage::Name(name) => f.write_str(name)?,
            NamedImage::Id(id) => write!(f, "{ID}{id}")?,
        }
        match &self.snapshot {
            None => Ok(()),
            Some(NamedSnapshot::Name(name)) => write!(f, "@{name}"),
            Some(NamedSnapshot::Id(id)) => write!(f, "@{ID}{id}"),
        }
    }
}

impl RbdName {
    /// Whether `name` is meant as an RBD name, right or wrong.
    #[must_use]
    pub fn is_meant(name: &str) -> bool {
        name.starts_with(SCHEME)
    }

    /// The image of a volume of ceph-csi, for storage classes without a `volumeNamePrefix`, in the default namespace.
    #[must_use]
    pub fn of_volume(handle: &CsiHandle) -> Self {
        Self {
            pool: NamedPool::Id(handle.pool()),
            namespace: String::new(),
            image: NamedImage::Name(handle.volume_image()),
            snapshot: None,
        }
    }

    /// Whether a name is the handle of a snapshot of ceph-csi, right or wrong.
    #[must_use]
    pub fn is_snapshot_handle(name: &str) -> bool {
        let rest = name.strip_prefix(SCHEME);
        rest.is_some_and(|rest| rest.starts_with(CSI_SNAPSHOT))
    }

    /// The frozen image of a snapshot of ceph-csi, for snapshot classes without a `snapshotNamePrefix`, in the default
    /// namespace.
    #[must_use]
    pub fn of_snapshot(handle: &CsiHandle) -> Self {
        let image = handle.snapshot_image();
        Self {
            pool: NamedPool::Id(handle.pool()),
            namespace: String::new(),
            snapshot: Some(NamedSnapshot::Name(image.clone())),
            image: NamedImage::Name(image),
        }
    }

    /// Opens what is named.
    ///
    /// # Errors
    /// Where pool, image or snapshot do not exist, or the user may not open them.
    pub fn open(&self, cluster: &Cluster, access: Access) -> Result<Arc<Image>, RbdError> {
        let pool = match &self.pool {
            NamedPool::Name(name) => cluster.pool(name, &self.namespace)?,
            NamedPool::Id(id) => cluster.pool_by_id(*id, &self.namespace)?,
        };
        let image = match &self.image {
            NamedImage::Name(name) => ImageName::Name(name),
            NamedImage::Id(id) => ImageName::Id(id),
        };
        let snapshot = self.snapshot.as_ref().map(|snapshot| match snapshot {
            NamedSnapshot::Name(name) => SnapshotName::Name(name),
            NamedSnapshot::Id(id) => SnapshotName::Id(*id),
        });
        Ok(Arc::new(Image::open(&pool, image, snapshot, access)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_back_as_they_were_written() {
        for name in [
            "rbd:pool/image",
            "rbd:pool/image@snap",
            "rbd:pool/space/image@snap",
            "rbd:pool/id=10af6b8b4567@id=12",
            "rbd:pool/space/id=1@weekly id",
            "rbd:id=3/image@snap",
        ] {
            assert_eq!(name.parse::<RbdName>().unwrap().to_string(), name);
        }
        let name: RbdName = "rbd:p/n/i@s".parse().unwrap();
        assert_eq!(name.namespace, "n");
        assert_eq!(name.snapshot, Some(NamedSnapshot::Name("s".to_owned())));
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (name, fault) in [
            ("pool/image", "does not start with rbd:"),
            ("rbd:", "the image is missing"),
            ("rbd:pool", "the image is missing"),
            ("rbd:/image", "the pool is empty"),
            ("rbd:pool/", "the image is empty"),
            ("rbd:pool//image", "the namespace is empty"),
            ("rbd:a/b/c/d", "more than three parts"),
            ("rbd:pool/image@", "the snapshot is empty"),
            ("rbd:pool/image@a@b", "more than one @"),
            ("rbd:pool/image@a/b", "the snapshot has a /"),
            ("rbd:pool/id=", "the image's id is empty"),
            ("rbd:pool/image@id=x", "the snapshot's id is no number"),
            ("rbd:pool/image@id=007", "the snapshot's id is no number"),
            ("rbd:pool/im\0age", "zero byte"),
            ("rbd:id=x/image", "the pool's id is no number"),
            ("rbd:id=-1/image", "the pool's id is no number"),
            ("rbd:csi-vol=0001-", "none of ceph-csi"),
            ("rbd:csi-snap=", "none of ceph-csi"),
        ] {
            let error = name.parse::<RbdName>().unwrap_err().to_string();
            assert!(error.contains(fault), "{name}: {error}");
            assert!(error.contains("rbd:POOL"), "{error}");
        }
    }

    #[test]
    fn handles_of_ceph_csi_are_names_of_images() {
        let uuid = "eee8e87e-9f8a-4c3b-9b0e-0242ac110004";
        let handle = format!("0001-0004-rook-000000000000000a-{uuid}");
        for (kind, name) in [
            ("csi-vol", format!("rbd:id=10/csi-vol-{uuid}")),
            (
                "csi-snap",
                format!("rbd:id=10/csi-snap-{uuid}@csi-snap-{uuid}"),
            ),
        ] {
            let parsed: RbdName = format!("rbd:{kind}={handle}").parse().unwrap();
            assert_eq!(parsed.to_string(), name);
            assert_eq!(name.parse::<RbdName>().unwrap(), parsed);
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_printed_the_same(name in "rbd:[a-z=/@0-9id]{0,20}") {
            if let Ok(parsed) = name.parse::<RbdName>() {
                prop_assert_eq!(parsed.to_string(), name);
            }
        }

        #[test]
        fn nothing_panics(name in "\\PC*") {
            let _ = name.parse::<RbdName>();
            let _ = format!("rbd:{name}").parse::<RbdName>();
        }
    }
}

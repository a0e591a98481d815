//! What names a snapshot of an image for ever.
//!
//! Owns: the record and its facts. Must not: compare two snapshots' content.
//!
//! Ids of pools and images are never given out twice in one cluster (fsid), ids of snapshots never twice in one pool. Names are
//! no part of the record: they are.

use std::str::FromStr;

use super::NAME;
use crate::identity::Identity;
use crate::rbd::library::{Image, RbdError};

/// One snapshot of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pool: i64,
    pub(super) namespace: String,
    pub(super) image: String,
    pub(super) snapshot: u64,
}

/// What a clone shows where it has nothing of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) place: Place,
    /// How many of the clone's first bytes show it.
    pub(super) overlap: u64,
}

/// A frozen state of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fsid: String,
    pub(super) place: Place,
    pub(super) size: u64,
    pub(super) object_size: u64,
    pub(super) origin: Option<Origin>,
    /// Version of the library that made the record, for people.
    pub(super) librbd: String,
}

impl Place {
    pub(super) fn is_same_image(&self, other: &Self) -> bool {
        (self.pool, &self.namespace, &self.image) == (other.pool, &other.namespace, &other.image)
    }

    /// The image by its ids, as messages name it.
    pub(super) fn image_for_people(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{} in pool {}", self.image, self.pool),
            namespace => format!("{} in pool {}/{namespace}", self.image, self.pool),
        }
    }
}

impl Record {
    /// What names `image` at `snapshot`, at which it is open.
    pub(super) fn of(image: &Image, snapshot: u64) -> Result<Self, RbdError> {
        let pool = image.pool();
        let origin = match image.parent()? {
            None => None,
            Some(parent) => Some(Origin {
                place: Place {
                    pool: parent.pool_id,
                    namespace: parent.namespace,
                    image: parent.image_id,
                    snapshot: parent.snapshot_id,
                },
                overlap: image.overlap()?,
            }),
        };
        Ok(Self {
            fsid: pool.cluster().fsid().to_owned(),
            place: Place {
                pool: pool.id(),
                namespace: pool.namespace().to_owned(),
                image: image.id()?,
                snapshot,
            },
            size: image.size()?,
            object_size: image.object_size()?,
            origin,
            librbd: pool.cluster().library().version(),
        })
    }

    pub(super) fn identity(&self) -> Identity {
        let place = &self.place;
        let record = Identity::new(NAME)
            .with("fsid", &self.fsid)
            .with("pool", place.pool)
            .with("namespace", &place.namespace)
            .with("image", &place.image)
            .with("snapshot", place.snapshot)
            .with("size", self.size)
            .with("object-size", self.object_size)
            .with("librbd", &self.librbd);
        match &self.origin {
            None => record,
            Some(origin) => record
                .with("parent-pool", origin.place.pool)
                .with("parent-namespace", &origin.place.namespace)
                .with("parent-image", &origin.place.image)
                .with("parent-snapshot", origin.place.snapshot)
                .with("parent-overlap", origin.overlap),
        }
    }

    /// The record again, or what is wrong with it. It comes from a repository, so anything may be.
    pub(super) fn from_identity(identity: &Identity) -> Result<Self, String> {
        if identity.source() != NAME {
            return Err(format!("it is of {}, not of {NAME}", identity.source()));
        }
        let place = |prefix: &str| -> Result<Place, String> {
            Ok(Place {
                pool: number(identity, &format!("{prefix}pool"))?,
                namespace: text(identity, &format!("{prefix}namespace"))?,
                image: text(identity, &format!("{prefix}image"))?,
                snapshot: number(identity, &format!("{prefix}snapshot"))?,
            })
        };
        let origin = match identity.fact("parent-image") {
            None => None,
            Some(_) => Some(Origin {
                place: place("parent-")?,
                overlap: number(identity, "parent-overlap")?,
            }),
        };
        Ok(Self {
            fsid: text(identity, "fsid")?,
            place: place("")?,
            size: number(identity, "size")?,
            object_size: number(identity, "object-size")?,
            origin,
            librbd: text(identity, "librbd")?,
        })
    }
}

fn text(identity: &Identity, fact: &str) -> Result<String, String> {
    let value = identity
        .fact(fact)
        .ok_or_else(|| format!("{fact} is missing"))?;
    Ok(value.to_owned())
}

fn number<N: FromStr>(identity: &Identity, fact: &str) -> Result<N, String> {
    let value = text(identity, fact)?;
    value
        .parse()
        .map_err(|_| format!("{fact} is {value:?}, not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(origin: Option<Origin>) -> Record {
        Record {
            fsid: "fsid".to_owned(),
            place: Place {
                pool: 3,
                namespace: String::new(),
                image: "10ab".to_owned(),
                snapshot: 7,
            },
            size: 1 << 30,
            object_size: 4 << 20,
            origin,
            librbd: "1.16.0".to_owned(),
        }
    }

    #[test]
    fn a_record_comes_back_from_a_point() {
        let origin = Origin {
            place: Place {
                pool: 4,
                namespace: "space".to_owned(),
                image: "22".to_owned(),
                snapshot: 5,
            },
            overlap: 4096,
        };
        for record in [record(None), record(Some(origin))] {
            let pairs: Vec<_> = record.identity().pairs().collect();
            let identity = Identity::among(NAME, &pairs).unwrap();
            assert_eq!(Record::from_identity(&identity).unwrap(), record);
        }
    }

    #[test]
    fn a_damaged_record_says_which_fact() {
        let pairs: Vec<_> = record(None).identity().pairs().collect();
        for missing in 0..pairs.len() {
            let mut fewer = pairs.clone();
            let (key, _) = fewer.remove(missing);
            let fault = Record::from_identity(&Identity::among(NAME, &fewer).unwrap()).unwrap_err();
            assert!(fault.contains(key.trim_start_matches("rbd.")), "{fault}");
        }
        let wrong = record(None).identity().with("snapshot", "-1");
        let fault = Record::from_identity(&wrong).unwrap_err();
        assert!(fault.contains("snapshot is \"-1\""), "{fault}");
        let half = record(None).identity().with("parent-image", "22");
        assert!(Record::from_identity(&half).is_err());
        assert!(Record::from_identity(&Identity::new("thin").with("a", 1)).is_err());
    }
}

//! Volume and snapshot handles of ceph-csi.
//!
//! ```text
//!   0001-0024-fed5480a-f00f-417a-a51d-31d8a8144c03-0000000000000003-eee8e87e-9f8a-4c3b-9b0e-0242ac110004
//!   │    │    └ cluster id, as long as said        └ pool id        └ UUID, part of the image's name
//!   │    └ length of the cluster id, hexadecimal
//!   └ version
//! ```
//!
//! Owns: decoding and encoding. Must not: look anything up. Source: ceph-csi, `internal/util/volid.go`.

use std::fmt;
use std::str::FromStr;

const VERSION: &str = "0001";
/// Four parts of constant length and four hyphens.
const CONSTANT_LEN: usize = 4 + 4 + 16 + 36 + 4;
/// The limit that CSI sets for handles.
const MAX_LEN: usize = 128;
/// Groups of hexadecimal digits of a UUID.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Which image of which pool of which cluster a handle names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CsiHandle {
    cluster: String,
    pool: i64,
    uuid: String,
}

/// A handle that is not one of ceph-csi.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{handle:?} is no handle of ceph-csi: {fault}")]
pub struct CsiHandleError {
    handle: String,
    fault: &'static str,
}

impl CsiHandle {
    /// Id of the cluster, as ceph-csi's configuration names it: not the fsid.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Id of the pool.
    #[must_use]
    pub fn pool(&self) -> i64 {
        self.pool
    }

    /// The UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Name of the image of a volume, for storage classes without a `volumeNamePrefix`.
    #[must_use]
    pub fn volume_image(&self) -> String {
        format!("csi-vol-{}", self.uuid)
    }

    /// Name of the image of a snapshot, and of the snapshot of that image, for snapshot classes without a
    /// `snapshotNamePrefix`.
    #[must_use]
    pub fn snapshot_image(&self) -> String {
        format!("csi-snap-{}", self.uuid)
    }
}

impl FromStr for CsiHandle {
    type Err = CsiHandleError;

    fn from_str(handle: &str) -> Result<Self, CsiHandleError> {
        parse(handle).map_err(|fault| CsiHandleError {
            handle: handle.chars().take(MAX_LEN + 1).collect(),
            fault,
        })
    }
}

fn parse(handle: &str) -> Result<CsiHandle, &'static str> {
    if handle.len() > MAX_LEN {
        return Err("it is longer than 128 bytes");
    }
    let (version, rest) = part(handle, VERSION.len())?;
    if version != VERSION {
        return Err("its version is not 0001");
    }
    let (len, rest) = part(rest, 4)?;
    let len = usize::try_from(hexadecimal(len)?).map_err(|_| "it is too short")?;
    if handle.len() != CONSTANT_LEN + len {
        return Err("its length is not the one it states");
    }
    let (cluster, rest) = part(rest, len)?;
    let (pool, uuid) = part(rest, 16)?;
    let pool = i64::try_from(hexadecimal(pool)?).map_err(|_| "its pool id is negative")?;
    if !is_uuid(uuid) {
        return Err("it does not end with a UUID");
    }
    Ok(CsiHandle {
        cluster: cluster.to_owned(),
        pool,
        uuid: uuid.to_owned(),
    })
}

/// The next `len` bytes and what follows the hyphen behind them.
fn part(text: &str, len: usize) -> Result<(&str, &str), &'static str> {
    let (part, rest) = text.split_at_checked(len).ok_or("it is too short")?;
    Ok((part, rest.strip_prefix('-').ok_or("a hyphen is missing")?))
}

/// `u64::from_str_radix` would take a sign.
fn hexadecimal(text: &str) -> Result<u64, &'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a number is not hexadecimal");
    }
    u64::from_str_radix(text, 16).map_err(|_| "a number is too large")
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == UUID_GROUPS.len()
        && groups.iter().zip(UUID_GROUPS).all(|(group, len)| {
            group.len() == len && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

impl fmt::Display for CsiHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, pool, uuid) = (&self.cluster, self.pool, &self.uuid);
        write!(
            f,
            "{VERSION}-{:04x}-{cluster}-{pool:016x}-{uuid}",
            cluster.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HANDLE: &str = "0001-0024-fed5480a-f00f-417a-a51d-31d8a8144c03-0000000000000003-eee8e87e-9f8a-4c3b-9b0e-0242ac110004";

    #[test]
    fn a_handle_names_cluster_pool_and_image() {
        let handle: CsiHandle = HANDLE.parse().unwrap();
        assert_eq!(handle.cluster(), "fed5480a-f00f-417a-a51d-31d8a8144c03");
        assert_eq!(handle.pool(), 3);
        assert_eq!(
            handle.volume_image(),
            "csi-vol-eee8e87e-9f8a-4c3b-9b0e-0242ac110004"
        );
        assert_eq!(
            handle.snapshot_image(),
            "csi-snap-eee8e87e-9f8a-4c3b-9b0e-0242ac110004"
        );
        assert_eq!(handle.to_string(), HANDLE);
    }

    #[test]
    fn bad_handles_say_what_is_wrong() {
        for (from, to, fault) in [
            ("0001-", "0002-", "version"),
            ("-0024-", "-0025-", "length"),
            ("-0024-", "-00+4-", "hexadecimal"),
            ("-0000000000000003-", "-f000000000000003-", "negative"),
            ("-0000000000000003-", "-000000000000000g-", "hexadecimal"),
            ("eee8e87e-", "eee8e87e0", "UUID"),
            ("eee8e87e", "éé8e8e", "UUID"),
            ("0001-0024-", "0001x0024-", "hyphen"),
        ] {
            let bad = HANDLE.replace(from, to);
            let error = bad.parse::<CsiHandle>().unwrap_err().to_string();
            assert!(error.contains(fault), "{bad}: {error}");
        }
        assert!("".parse::<CsiHandle>().is_err());
        assert!("x".repeat(4000).parse::<CsiHandle>().is_err());
    }

    proptest! {
        #[test]
        fn handles_come_back(
            cluster in "[a-z0-9-]{0,64}",
            pool in 0..i64::MAX,
            uuid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        ) {
            let handle = CsiHandle { cluster, pool, uuid };
            prop_assert_eq!(handle.to_string().parse::<CsiHandle>().unwrap(), handle);
        }

        #[test]
        fn damaged_handles_never_panic(at in 0..HANDLE.len(), byte in any::<char>(), cut in 0..HANDLE.len()) {
            let mut text = HANDLE.to_owned();
            text.replace_range(at..=at, &byte.to_string());
            let _ = text.parse::<CsiHandle>();
            let _ = HANDLE[..cut].parse::<CsiHandle>();
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = text.parse::<CsiHandle>();
        }
    }
}

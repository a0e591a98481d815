//! What a store was found to be able to do, as recorded in the repository's configuration.
//!
//! Owns: the record and its CBOR form (`FORMAT.md`, "Store profile"). Must not: talk to stores (`store::probe` does).

use minicbor::{Decode, Encode};

use super::lock::ObjectLock;

/// How a request body is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PayloadSigning {
    /// SHA-256 of the body in the signature: every server accepts it, and it costs most of a PUT's CPU time.
    #[default]
    #[n(0)]
    Signed,
    /// `UNSIGNED-PAYLOAD`: the body is guarded by its checksum header and by TLS.
    #[n(1)]
    Unsigned,
}

/// Checksum header sent with every body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BodyChecksum {
    /// None: the server refuses all of them.
    #[n(0)]
    None,
    /// `Content-MD5`: understood by every server since 2006.
    #[default]
    #[n(1)]
    ContentMd5,
    /// `x-amz-checksum-crc32c`.
    #[n(2)]
    Crc32c,
    /// `x-amz-checksum-crc64nvme`.
    #[n(3)]
    Crc64Nvme,
}

/// Result of the probe at `init`. The default is the most conservative: what any server accepts, before one is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreProfile {
    /// Create-only PUT gives exactly one winner, also after a delete.
    #[n(0)]
    pub conditional_writes: bool,
    /// How bodies are signed.
    #[n(1)]
    pub payload_signing: PayloadSigning,
    /// Checksum header of bodies.
    #[n(2)]
    pub checksum: BodyChecksum,
    /// Id of the only host whose view of the store is coherent: NFS, SMB and FUSE directories.
    #[n(3)]
    pub single_host: Option<String>,
    /// `directory` or `s3`.
    #[n(4)]
    pub kind: String,
    /// How long objects are locked, where `init` was asked for that.
    #[n(5)]
    pub lock: Option<ObjectLock>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::store::lock::LockMode;

    #[test]
    fn a_profile_survives_its_encoding() {
        let profile = StoreProfile {
            conditional_writes: true,
            payload_signing: PayloadSigning::Unsigned,
            checksum: BodyChecksum::Crc64Nvme,
            single_host: Some("00ff".to_owned()),
            kind: "s3".to_owned(),
            lock: Some(ObjectLock {
                mode: LockMode::Compliance,
                keep_secs: 2_592_000,
                window_secs: 604_800,
            }),
        };
        let bytes = minicbor::to_vec(&profile).unwrap();
        assert_eq!(minicbor::decode::<StoreProfile>(&bytes).unwrap(), profile);
    }

    #[test]
    fn the_default_profile_encodes_as_specified() {
        let bytes = minicbor::to_vec(StoreProfile::default()).unwrap();
        // {0: false, 1: 0, 2: 1, 4: ""}; an absent single_host or lock has no entry.
        assert_eq!(
            bytes,
            [0xa4, 0x00, 0xf4, 0x01, 0x00, 0x02, 0x01, 0x04, 0x60]
        );
    }
}

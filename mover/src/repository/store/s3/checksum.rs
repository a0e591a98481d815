//! The checksum header of a body.
//!
//! Owns: which bytes go into the header. Must not: choose which one is sent (the profile does).

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_smithy_types::base64;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};

use crate::repository::store::profile::BodyChecksum;

/// A header value, computed once and sent with each try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    kind: BodyChecksum,
    value: String,
}

impl Checksum {
    pub(super) fn of(kind: BodyChecksum, body: &[u8]) -> Self {
        let value = match kind {
            BodyChecksum::None => String::new(),
            BodyChecksum::ContentMd5 => base64::encode(Md5::digest(body)),
            BodyChecksum::Crc32c => {
                let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body);
                base64::encode(u32::try_from(crc).expect("a CRC of 32 bits").to_be_bytes())
            }
            BodyChecksum::Crc64Nvme => {
                base64::encode(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body).to_be_bytes())
            }
        };
        Self { kind, value }
    }

    pub(super) fn set(&self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        match self.kind {
            BodyChecksum::None => request,
            BodyChecksum::ContentMd5 => request.content_md5(&self.value),
            BodyChecksum::Crc32c => request.checksum_crc32_c(&self.value),
            BodyChecksum::Crc64Nvme => request.checksum_crc64_nvme(&self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_published_vectors() {
        // Check values of the CRC catalogue and RFC 1321 for "123456789" and "".
        let value = |kind, body: &[u8]| Checksum::of(kind, body).value;
        assert_eq!(
            value(BodyChecksum::Crc32c, b"123456789"),
            base64::encode(0xe306_9283_u32.to_be_bytes())
        );
        assert_eq!(
            value(BodyChecksum::Crc64Nvme, b"123456789"),
            base64::encode(0xae8b_1486_0a79_9888_u64.to_be_bytes())
        );
        assert_eq!(
            value(BodyChecksum::ContentMd5, b""),
            "1B2M2Y8AsgTpgAmY7PhCfg=="
        );
        assert_eq!(value(BodyChecksum::None, b"x"), "");
    }
}

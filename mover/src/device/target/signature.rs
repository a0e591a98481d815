//! Signs that a device holds something a person may miss.
//!
//! Owns: the table, from the on-disk formats of the named systems (offsets as in the kernel's and each project's headers).
//! Must not: look for more than signs; a device without a known one may still hold data.

use super::super::file::DeviceFile;
use crate::Result;

/// Everything in the table lies in the first 256 KiB: the last uberblock of the first ZFS label ends there.
const HEAD_LEN: u64 = 256 * 1024;

/// What is found, where, and by which bytes.
const SIGNATURES: [(&str, usize, &[u8]); 32] = [
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an ext2, ext3 or ext4 file system", 0x438, b"\x53\xEF"),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    (
        "a bcachefs or bcache device",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
    ),
    ("an F2FS file system", 0x400, b"\x10\x20\xF5\xF2"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a ReiserFS file system", 0x1_0034, b"ReIsEr"),
    ("a JFS file system", 0x8000, b"JFS1"),
    ("a NILFS2 file system", 0x406, b"\x34\x34"),
    ("a GFS2 file system", 0x1_0000, b"\x01\x16\x19\x70"),
    ("an OCFS2 file system", 0x2000, b"OCFSV2"),
    ("an ISO 9660 image", 0x8001, b"CD001"),
    ("a SquashFS image", 0, b"hsqs"),
    ("an EROFS image", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("a LUKS volume", 0x4000, b"SKUL\xba\xbe"),
    ("a RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("a RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("a Ceph BlueStore device", 0, b"bluestore block device"),
    ("swap space", 4096 - 10, b"SWAPSPACE2"),
    ("swap space", 8192 - 10, b"SWAPSPACE2"),
    ("swap space", 16384 - 10, b"SWAPSPACE2"),
    ("swap space", 65536 - 10, b"SWAPSPACE2"),
    ("a VDO volume", 0, b"dmvdo001"),
    // Last: the boot sectors of FAT and of others end like this as well.
    ("an MBR partition table or a boot sector", 510, b"\x55\xAA"),
];

/// Uberblocks of the first ZFS label: 1 KiB apart in its second half, magic in the byte order of the writing host.
const ZFS_UBERBLOCKS: usize = 128 * 1024;
const ZFS_STEP: usize = 1024;
const ZFS_MAGIC: u64 = 0x00ba_b10c;

/// Places of the second GPT header: the last block, for either block size.
const GPT_BACKUPS: [u64; 2] = [512, 4096];

/// What the device of `size` bytes holds, as a phrase with article, if that is known.
pub(super) fn find(file: &DeviceFile, size: u64) -> Result<Option<&'static str>> {
    let head_len = usize::try_from(size.min(HEAD_LEN)).expect("at most 256 KiB");
    let (head, range) = file.read_now(0, head_len)?;
    if let Some(content) = in_head(&head[range]) {
        return Ok(Some(content));
    }
    for distance in GPT_BACKUPS.into_iter().filter(|distance| *distance <= size) {
        let (block, range) = file.read_now(size - distance, 512)?;
        if block[range].starts_with(b"EFI PART") {
            return Ok(Some("a GPT partition table"));
        }
    }
    Ok(None)
}

fn in_head(head: &[u8]) -> Option<&'static str> {
    let known = SIGNATURES
        .iter()
        .find(|(_, offset, magic)| {
            head.get(*offset..)
                .is_some_and(|bytes| bytes.starts_with(magic))
        })
        .map(|(content, ..)| *content);
    known.or_else(|| is_zfs(head).then_some("a ZFS pool member"))
}

fn is_zfs(head: &[u8]) -> bool {
    (ZFS_UBERBLOCKS..head.len())
        .step_by(ZFS_STEP)
        .any(|offset| {
            let magic = head[offset..]
                .first_chunk::<8>()
                .copied()
                .unwrap_or_default();
            [u64::from_le_bytes(magic), u64::from_be_bytes(magic)].contains(&ZFS_MAGIC)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_found_at_its_place_only() {
        assert_eq!(in_head(&vec![0; 256 * 1024]), None);
        assert_eq!(in_head(&vec![0xFF; 256 * 1024]), None);
        for (content, offset, magic) in SIGNATURES {
            let mut head = vec![0; 256 * 1024];
            head[offset..offset + magic.len()].copy_from_slice(magic);
            assert_eq!(in_head(&head), Some(content));
            head.rotate_right(7);
            assert_eq!(in_head(&head), None, "{content} beside its place");
        }
    }

    #[test]
    fn zfs_is_found_in_either_byte_order() {
        for magic in [ZFS_MAGIC.to_le_bytes(), ZFS_MAGIC.to_be_bytes()] {
            let mut head = vec![0; 256 * 1024];
            head[200 * 1024..200 * 1024 + 8].copy_from_slice(&magic);
            assert_eq!(in_head(&head), Some("a ZFS pool member"));
        }
    }

    #[test]
    fn a_device_shorter_than_the_table_is_no_panic() {
        for len in [0, 1, 511, 512, 4097, 200 * 1024 + 3] {
            assert_eq!(in_head(&vec![0; len]), None);
        }
    }
}

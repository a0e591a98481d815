//! What the file system under a repository promises.
//!
//! Owns: the list of file systems that several hosts may mount at once. Must not: judge whether they do.

use std::io;
use std::path::Path;

use nix::sys::statfs::{
    AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, FUSE_SUPER_MAGIC, FsType, NCP_SUPER_MAGIC, NFS_SUPER_MAGIC,
    OCFS2_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs,
};

/// `f_type` values that nix does not name, from the kernel's `magic.h` and the file systems' own headers:
/// CIFS, SMB2, Ceph, 9P, Lustre, GFS2, GPFS.
const OTHERS: [u32; 7] = [
    0xFF53_4D42,
    0xFE53_4D42,
    0x00C3_6400,
    0x0102_1997,
    0x0BD0_0BD0,
    0x0116_1970,
    0x4750_4653,
];

/// Whether other hosts may see the same directory with caches of their own, so that a listing here may miss what they just
/// wrote: network, cluster and FUSE file systems.
pub(super) fn is_shared(path: &Path) -> io::Result<bool> {
    Ok(is_shared_type(statfs(path)?.filesystem_type()))
}

fn is_shared_type(kind: FsType) -> bool {
    let named = [
        AFS_SUPER_MAGIC,
        CODA_SUPER_MAGIC,
        FUSE_SUPER_MAGIC,
        NCP_SUPER_MAGIC,
        NFS_SUPER_MAGIC,
        OCFS2_SUPER_MAGIC,
        SMB_SUPER_MAGIC,
    ];
    // 32-bit values: on some architectures the field is signed and wider.
    named.contains(&kind)
        || OTHERS
            .iter()
            .any(|magic| i128::from(kind.0) & 0xFFFF_FFFF == i128::from(*magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC};

    #[test]
    fn local_file_systems_are_not_shared() {
        assert!(
            [EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC]
                .into_iter()
                .all(|kind| !is_shared_type(kind))
        );
        assert!(!is_shared(Path::new("/proc")).unwrap());
    }

    #[test]
    fn network_file_systems_are_shared() {
        assert!(
            [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, FUSE_SUPER_MAGIC]
                .into_iter()
                .all(is_shared_type)
        );
        assert!(is_shared_type(FsType(0xFE53_4D42)));
    }
}

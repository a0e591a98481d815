//! Places of a volume that change more often than others, where a source that forgets changes is found first.
//!
//! Owns: where file systems keep what they write all the time. Must not: read the volume to find out which it has.

/// Bytes of one MiB.
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Partition tables, boot sectors, headers of LUKS and LVM, the superblock and the first tables of every file system.
pub(super) const FIRST_BYTES: u64 = 8 * MIB;
/// Copies of partition tables and RAID superblocks.
pub(super) const LAST_BYTES: u64 = MIB;
/// Where a file system begins: on the whole device, or in the first partition, which every tool aligns to a MiB.
const BEGINNINGS: [u64; 2] = [0, MIB];
/// Blocks of 4 KiB that a bitmap of one block tells: a block group of ext4.
const EXT4_GROUP: u64 = 128 * MIB;
/// Groups that keep a copy of the superblock (`sparse_super`: 1 and powers of 3, 5 and 7).
const EXT4_COPIES: [u64; 12] = [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343];
/// Sixteen groups share one place for bitmaps and inode tables (`flex_bg` as mke2fs makes it).
const EXT4_TABLES: u64 = 16 * EXT4_GROUP;
/// Tables looked at, spread over the volume; more would leave no samples for other places.
const MOST_TABLES: u64 = 64;
/// Largest allocation group of XFS; smaller volumes have four of equal size. The log begins in the middle one.
const XFS_GROUP: u64 = 1 << 40;
/// Copies of the superblock of btrfs.
const BTRFS_COPIES: [u64; 3] = [64 << 10, 64 * MIB, 256 * GIB];

/// Offsets inside a volume of `size` bytes of superblocks, their copies, tables and journals; in no order, some twice.
pub(super) fn places(size: u64) -> Vec<u64> {
    let tables = size / EXT4_TABLES;
    let step = tables.div_ceil(MOST_TABLES).max(1);
    let group = (size / 4).clamp(1, XFS_GROUP);
    // The journal of ext4 lies in the middle of the volume, as the log of XFS does.
    let middle = [size / 2, (size / 2).saturating_add(MIB)];
    let inside: Vec<u64> = EXT4_COPIES
        .iter()
        .map(|number| number * EXT4_GROUP)
        .chain(
            (1..=tables)
                .step_by(usize::try_from(step).unwrap_or(usize::MAX))
                .map(|number| number * EXT4_TABLES),
        )
        .chain((1..=size / group).take(16).map(|number| number * group))
        .chain(BTRFS_COPIES)
        .chain(middle)
        .collect();
    BEGINNINGS
        .iter()
        .flat_map(|beginning| inside.iter().map(move |offset| beginning + offset))
        .filter(|offset| *offset < size)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_inside_and_are_few() {
        for size in [0, 1, MIB, 10 * MIB, GIB, 100 * GIB, 1 << 44, 1 << 60] {
            let places = places(size);
            assert!(places.iter().all(|offset| *offset < size));
            assert!(places.len() < 250, "{} of {size}", places.len());
        }
    }

    #[test]
    fn the_places_of_a_known_file_system_are_among_them() {
        // From mke2fs -n and mkfs.xfs -N of 64 GiB.
        let places = places(64 * GIB);
        for block in [32_768u64, 98_304, 163_840, 229_376, 294_912, 819_200] {
            assert!(places.contains(&(block * 4096)), "ext4 copy at {block}");
        }
        for group in 1..4u64 {
            assert!(
                places.contains(&(group * 4_194_304 * 4096)),
                "group {group}"
            );
        }
    }
}

//! Numbers of devices as Windows gives them. No call of the system is here, so it is tested everywhere.
//!
//! Source: `STORAGE_DEVICE_NUMBER` in winioctl.h.

use crate::bytes::le32;

/// `FILE_DEVICE_DISK`. Drives for CDs and the like are counted apart: the first of them has the number of the first disk.
const DISK: u32 = 7;

/// One number for a disk and a partition of it (0 for the whole disk).
pub(crate) fn device_number(disk: u32, partition: u32) -> u64 {
    (u64::from(disk) << 32) | u64::from(partition)
}

/// The number of the disk, and of the partition on it, that a device says to be. `None` for a device that is neither.
pub(crate) fn number_in(reply: &[u8]) -> Option<u64> {
    let (kind, disk, partition) = (le32(reply, 0)?, le32(reply, 4)?, le32(reply, 8)?);
    // -1 stands for no number: of a disk where the volume lies on several, and of a partition where the disk has none.
    let is_known = kind == DISK && disk != u32::MAX;
    is_known.then(|| device_number(disk, if partition == u32::MAX { 0 } else { partition }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(kind: u32, disk: u32, partition: u32) -> Vec<u8> {
        [kind, disk, partition].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn disks_and_partitions_have_one_number_each() {
        assert_eq!(number_in(&reply(7, 0, 0)), Some(0));
        assert_eq!(number_in(&reply(7, 3, 2)), Some(0x3_0000_0002));
        assert_eq!(number_in(&reply(7, 3, u32::MAX)), Some(0x3_0000_0000));
    }

    #[test]
    fn what_is_no_disk_has_the_number_of_none() {
        // FILE_DEVICE_CD_ROM and FILE_DEVICE_DVD.
        for kind in [2, 0x33] {
            assert_eq!(number_in(&reply(kind, 0, u32::MAX)), None);
        }
        assert_eq!(number_in(&reply(7, u32::MAX, u32::MAX)), None);
        assert_eq!(number_in(&reply(7, 1, 1)[..11]), None);
    }
}

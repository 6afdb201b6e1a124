//! Windows. Source: winerror.h, and the codes that the statuses of drivers for disks become.

/// What reads fail with where the medium cannot be read.
pub(super) const MEDIUM_ERRORS: &[i32] = &[
    // ERROR_CRC: the sector's own checksum, or the disk's report that it cannot be read.
    23, // ERROR_SEEK, ERROR_SECTOR_NOT_FOUND, ERROR_READ_FAULT, ERROR_GEN_FAILURE.
    25, 27, 30, 31,  // ERROR_SEM_TIMEOUT: a disk behind USB that tried for too long.
    121, // ERROR_DEVICE_HARDWARE_ERROR.
    483, // ERROR_IO_DEVICE, ERROR_DISK_OPERATION_FAILED.
    1117, 1127,
];
/// What is answered by a device that is not there any more, or has no medium. Source: the same.
pub(super) const GONE_ERRORS: &[i32] = &[
    // ERROR_NOT_READY, ERROR_DEV_NOT_EXIST, ERROR_NO_SUCH_DEVICE.
    21, 55, 433, // ERROR_MEDIA_CHANGED, ERROR_NO_MEDIA_IN_DRIVE, ERROR_DEVICE_NOT_CONNECTED, ERROR_DEVICE_REMOVED.
    1110, 1112, 1167, 1617,
];
/// What this system answers to a read of a sector that the medium has lost.
pub const UNREADABLE_SECTOR: i32 = 23;

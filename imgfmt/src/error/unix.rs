//! Unix. Source: errno(3).

/// What reads fail with where the medium cannot be read: EIO, ENODATA ("critical medium error" on Linux since 4.x), EILSEQ ("protection error").
pub(super) const MEDIUM_ERRORS: &[i32] = &[5, 61, 84];
/// What is answered by a device that is not there any more, or has no medium: ENXIO, ENODEV, ENOMEDIUM.
pub(super) const GONE_ERRORS: &[i32] = &[6, 19, 123];
/// What this system answers to a read of a sector that the medium has lost.
pub const UNREADABLE_SECTOR: i32 = 5;

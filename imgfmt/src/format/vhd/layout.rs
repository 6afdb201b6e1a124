//! On-disk structures of VHD. All integers are big-endian.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Begins a footer.
pub(super) const COOKIE: &[u8; 8] = b"conectix";
/// Begins a dynamic header.
pub(super) const DYNAMIC_COOKIE: &[u8; 8] = b"cxsparse";
/// Bytes of a footer and of a sector.
pub(super) const SECTOR: u64 = 512;
/// A block that is not in the file.
pub(super) const UNUSED: u32 = u32::MAX;

/// `disk_type`: the disk and a footer.
pub(super) const FIXED: u32 = 2;
/// `disk_type`: blocks.
pub(super) const DYNAMIC: u32 = 3;
/// `disk_type`: blocks over a parent.
pub(super) const DIFFERENCING: u32 = 4;

/// The footer, in the last 512 bytes of the file, and at byte 0 of dynamic and differencing disks.
///
/// Source: "Hard Disk Footer Format".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FooterRaw {
    /// +0: [`COOKIE`].
    pub(super) cookie: [u8; 8],
    /// +8: bit 1 is always set; bit 0: temporary.
    pub(super) features: U32,
    /// +12: 0x00010000.
    pub(super) file_format_version: U32,
    /// +16: where the dynamic header lies; all ones for fixed disks.
    pub(super) data_offset: U64,
    /// +24: seconds since 2000-01-01T00:00:00Z.
    pub(super) time_stamp: U32,
    /// +28: who made it: "vpc ", "win ", "qemu", "vbox".
    pub(super) creator_application: [u8; 4],
    /// +32: its version.
    pub(super) creator_version: U32,
    /// +36: "Wi2k" or "Mac ".
    pub(super) creator_host_os: [u8; 4],
    /// +40: bytes of the disk when it was made.
    pub(super) original_size: U64,
    /// +48: bytes of the disk.
    pub(super) current_size: U64,
    /// +56: cylinders of the geometry.
    pub(super) cylinders: U16,
    /// +58: heads.
    pub(super) heads: u8,
    /// +59: sectors in a track.
    pub(super) sectors: u8,
    /// +60: [`FIXED`], [`DYNAMIC`] or [`DIFFERENCING`].
    pub(super) disk_type: U32,
    /// +64: complement of the sum of all other bytes.
    pub(super) checksum: U32,
    /// +68: identifier, by which a child knows it.
    pub(super) unique_id: [u8; 16],
    /// +84: 1 while the machine is suspended.
    pub(super) saved_state: u8,
    /// +85: zeros.
    pub(super) reserved: [u8; 427],
}
const _: () = assert!(size_of::<FooterRaw>() == 512);

/// The dynamic header, at the footer's `data_offset`.
///
/// Source: "Dynamic Disk Header Format".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DynamicHeaderRaw {
    /// +0: [`DYNAMIC_COOKIE`].
    pub(super) cookie: [u8; 8],
    /// +8: all ones.
    pub(super) data_offset: U64,
    /// +16: where the block allocation table lies.
    pub(super) table_offset: U64,
    /// +24: 0x00010000.
    pub(super) header_version: U32,
    /// +28: entries of that table.
    pub(super) max_table_entries: U32,
    /// +32: bytes of a block without its bitmap; a power of two.
    pub(super) block_size: U32,
    /// +36: complement of the sum of all other bytes.
    pub(super) checksum: U32,
    /// +40: `unique_id` of the parent's footer.
    pub(super) parent_unique_id: [u8; 16],
    /// +56: when the parent was changed last.
    pub(super) parent_time_stamp: U32,
    /// +60: zero.
    pub(super) reserved: U32,
    /// +64: file name of the parent, UTF-16BE.
    pub(super) parent_unicode_name: [u8; 512],
    /// +576: where paths of the parent lie.
    pub(super) parent_locators: [LocatorRaw; 8],
    /// +768: zeros.
    pub(super) reserved_end: [u8; 256],
}
const _: () = assert!(size_of::<DynamicHeaderRaw>() == 1024);

/// Where a path of the parent lies.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LocatorRaw {
    /// +0: [`RELATIVE`], [`ABSOLUTE`] or another; 0: not used.
    pub(super) platform_code: [u8; 4],
    /// +4: room for it, in sectors or bytes.
    pub(super) platform_data_space: U32,
    /// +8: bytes of it.
    pub(super) platform_data_length: U32,
    /// +12: zero.
    pub(super) reserved: U32,
    /// +16: where it lies.
    pub(super) platform_data_offset: U64,
}
const _: () = assert!(size_of::<LocatorRaw>() == 24);

/// A path relative to the child, UTF-16LE, with backslashes.
pub(super) const RELATIVE: &[u8; 4] = b"W2ru";
/// A path from a drive on, UTF-16LE, with backslashes.
pub(super) const ABSOLUTE: &[u8; 4] = b"W2ku";

/// The checksum of a footer or header: the complement of the sum of its bytes without the four of the checksum at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    let others = bytes.iter().enumerate().filter(|(place, _)| !own.contains(place));
    !others.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

impl FooterRaw {
    /// Says whether cookie and checksum are right.
    pub(super) fn is_valid(&self) -> bool {
        self.cookie == *COOKIE && self.checksum.get() == checksum(self.as_bytes(), 64)
    }
}

impl DynamicHeaderRaw {
    /// Says whether cookie and checksum are right.
    pub(super) fn is_valid(&self) -> bool {
        self.cookie == *DYNAMIC_COOKIE && self.checksum.get() == checksum(self.as_bytes(), 36)
    }
}

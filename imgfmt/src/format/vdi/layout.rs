//! On-disk structures of VDI. All integers are little-endian.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `signature`.
pub(super) const SIGNATURE: u32 = 0xbeda_107f;
/// `version`: major 1, minor 1.
pub(super) const VERSION: u32 = 0x0001_0001;
/// Map entry: the block is not in this file.
pub(super) const UNALLOCATED: u32 = u32::MAX;
/// Map entry: the block is zero.
pub(super) const ZERO: u32 = u32::MAX - 1;

/// `image_type`: blocks are added as they are written.
pub(super) const DYNAMIC: u32 = 1;
/// `image_type`: all blocks are there.
pub(super) const FIXED: u32 = 2;
/// `image_type`: changes to a parent.
pub(super) const DIFFERENCING: u32 = 4;

/// The header, at byte 0.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderRaw {
    /// +0x000: "<<< Oracle VM VirtualBox Disk Image >>>\n" or the like.
    pub(super) text: [u8; 64],
    /// +0x040: [`SIGNATURE`].
    pub(super) signature: U32,
    /// +0x044: [`VERSION`].
    pub(super) version: U32,
    /// +0x048: bytes from here to the end of the header.
    pub(super) header_size: U32,
    /// +0x04c: [`DYNAMIC`], [`FIXED`] or [`DIFFERENCING`].
    pub(super) image_type: U32,
    /// +0x050: flags.
    pub(super) image_flags: U32,
    /// +0x054: a comment.
    pub(super) description: [u8; 256],
    /// +0x154: where the block map lies.
    pub(super) offset_bmap: U32,
    /// +0x158: where block 0 of the file lies.
    pub(super) offset_data: U32,
    /// +0x15c: cylinders of a geometry; 0: none.
    pub(super) cylinders: U32,
    /// +0x160: heads.
    pub(super) heads: U32,
    /// +0x164: sectors in a track.
    pub(super) sectors: U32,
    /// +0x168: 512.
    pub(super) sector_size: U32,
    /// +0x16c: zero.
    pub(super) unused: U32,
    /// +0x170: bytes of the disk.
    pub(super) disk_size: U64,
    /// +0x178: bytes of a block; a power of two.
    pub(super) block_size: U32,
    /// +0x17c: bytes before the data of each block.
    pub(super) block_extra: U32,
    /// +0x180: entries of the block map.
    pub(super) blocks_in_image: U32,
    /// +0x184: blocks in the file.
    pub(super) blocks_allocated: U32,
    /// +0x188: identifier, never zero. The first three fields of it are little-endian.
    pub(super) uuid_image: [u8; 16],
    /// +0x198: changes whenever the disk is changed.
    pub(super) uuid_last_modified: [u8; 16],
    /// +0x1a8: `uuid_image` of the parent.
    pub(super) uuid_link: [u8; 16],
    /// +0x1b8: `uuid_last_modified` of the parent when it became one.
    pub(super) uuid_parent_modified: [u8; 16],
    /// +0x1c8: the geometry that a BIOS shows; there where `header_size` is 400.
    pub(super) lchs: GeometryRaw,
    /// +0x1d8: zeros.
    pub(super) rest: [u8; 40],
}
const _: () = assert!(size_of::<HeaderRaw>() == 512);

/// A geometry.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GeometryRaw {
    /// +0: cylinders; 0: not known.
    pub(super) cylinders: U32,
    /// +4: heads.
    pub(super) heads: U32,
    /// +8: sectors in a track.
    pub(super) sectors: U32,
    /// +12: 512.
    pub(super) sector_size: U32,
}
const _: () = assert!(size_of::<GeometryRaw>() == 16);

//! On-disk structures of VHDX. All integers are little-endian; so are the first three fields of GUIDs.

use uuid::{Uuid, uuid};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Begins a file.
pub(super) const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Where the two headers lie.
pub(super) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Where the two region tables lie.
pub(super) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a region table and of a metadata table.
pub(super) const TABLE_LEN: usize = 64 << 10;
/// Most entries of either.
pub(super) const MAX_ENTRIES: u32 = 2047;
/// Bytes of a sector of the log, and what its entries are aligned to.
pub(super) const LOG_SECTOR: u64 = 4096;

/// The region of the block allocation table.
pub(super) const REGION_BAT: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
/// The region of the metadata.
pub(super) const REGION_METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");

/// Metadata: block size and flags.
pub(super) const ITEM_FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
/// Metadata: bytes of the disk.
pub(super) const ITEM_VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
/// Metadata: identifier of the disk for the guest (SCSI page 0x83).
pub(super) const ITEM_PAGE_83: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
/// Metadata: bytes of a logical sector.
pub(super) const ITEM_LOGICAL_SECTOR: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
/// Metadata: bytes of a physical sector.
pub(super) const ITEM_PHYSICAL_SECTOR: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// Metadata: where the parent lies.
pub(super) const ITEM_PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");
/// The one type of parent locator: a VHDX file.
pub(super) const LOCATOR_VHDX: Uuid = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913");

/// A header, of two.
///
/// Source: [MS-VHDX] 2.2.2.
#[derive(Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderRaw {
    /// +0: `b"head"`.
    pub(super) signature: [u8; 4],
    /// +4: CRC-32C of all 4096 bytes with this field as 0.
    pub(super) checksum: U32,
    /// +8: counts updates; the higher of two is current.
    pub(super) sequence_number: U64,
    /// +16: changes when the file is first written after opening.
    pub(super) file_write_guid: [u8; 16],
    /// +32: changes when the disk is first written after opening; a child knows it.
    pub(super) data_write_guid: [u8; 16],
    /// +48: that of the log's entries; zero: there is nothing to replay.
    pub(super) log_guid: [u8; 16],
    /// +64: 0.
    pub(super) log_version: U16,
    /// +66: 1.
    pub(super) version: U16,
    /// +68: bytes of the log; a multiple of 1 MiB.
    pub(super) log_length: U32,
    /// +72: where it lies; a multiple of 1 MiB.
    pub(super) log_offset: U64,
    /// +80: zeros.
    pub(super) reserved: [u8; 4016],
}
const _: () = assert!(size_of::<HeaderRaw>() == 4096);

/// Begins a region table.
///
/// Source: [MS-VHDX] 2.2.3.1.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegionTableRaw {
    /// +0: `b"regi"`.
    pub(super) signature: [u8; 4],
    /// +4: CRC-32C of all 64 KiB with this field as 0.
    pub(super) checksum: U32,
    /// +8: entries that follow.
    pub(super) entry_count: U32,
    /// +12: zero.
    pub(super) reserved: U32,
}
const _: () = assert!(size_of::<RegionTableRaw>() == 16);

/// A region.
///
/// Source: [MS-VHDX] 2.2.3.2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegionRaw {
    /// +0: what it is.
    pub(super) guid: [u8; 16],
    /// +16: where it lies; a multiple of 1 MiB.
    pub(super) file_offset: U64,
    /// +24: bytes; a multiple of 1 MiB.
    pub(super) length: U32,
    /// +28: bit 0: who does not know it must not open the file.
    pub(super) required: U32,
}
const _: () = assert!(size_of::<RegionRaw>() == 32);

/// Begins a metadata table.
///
/// Source: [MS-VHDX] 2.6.1.1.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MetadataTableRaw {
    /// +0: `b"metadata"`.
    pub(super) signature: [u8; 8],
    /// +8: zero.
    pub(super) reserved: U16,
    /// +10: entries that follow.
    pub(super) entry_count: U16,
    /// +12: zeros.
    pub(super) reserved2: [u8; 20],
}
const _: () = assert!(size_of::<MetadataTableRaw>() == 32);

/// A metadata item.
///
/// Source: [MS-VHDX] 2.6.1.2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MetadataEntryRaw {
    /// +0: what it is.
    pub(super) item_id: [u8; 16],
    /// +16: where it lies in the region; at least 64 KiB.
    pub(super) offset: U32,
    /// +20: bytes; at most 1 MiB.
    pub(super) length: U32,
    /// +24: see the `ITEM_IS_` constants.
    pub(super) flags: U32,
    /// +28: zero.
    pub(super) reserved: U32,
}
const _: () = assert!(size_of::<MetadataEntryRaw>() == 32);

/// Metadata flag: a user's item, else one of the format.
pub(super) const ITEM_IS_USER: u32 = 1;
/// Metadata flag: about the disk, else about the file.
pub(super) const ITEM_IS_DISK: u32 = 1 << 1;
/// Metadata flag: who does not know it must not open the file.
pub(super) const ITEM_IS_REQUIRED: u32 = 1 << 2;
/// File parameters flag: there is a parent.
pub(super) const HAS_PARENT: u32 = 1 << 1;
/// File parameters flag: blocks stay allocated, as in a fixed disk.
pub(super) const LEAVE_ALLOCATED: u32 = 1;

/// Begins a log entry, followed by descriptors, which fill up a multiple of 4096 bytes with it, and by data sectors.
///
/// Source: [MS-VHDX] 2.3.1.1.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogEntryRaw {
    /// +0: `b"loge"`.
    pub(super) signature: [u8; 4],
    /// +4: CRC-32C of the whole entry with this field as 0.
    pub(super) checksum: U32,
    /// +8: bytes of the entry; a multiple of 4096.
    pub(super) entry_length: U32,
    /// +12: where the oldest entry lies in the log that this one still needs.
    pub(super) tail: U32,
    /// +16: one more than that of the entry before; never 0.
    pub(super) sequence_number: U64,
    /// +24: descriptors.
    pub(super) descriptor_count: U32,
    /// +28: zero.
    pub(super) reserved: U32,
    /// +32: that of the header.
    pub(super) log_guid: [u8; 16],
    /// +48: bytes of the file that were durable when it was written.
    pub(super) flushed_file_offset: U64,
    /// +56: bytes that the file must have.
    pub(super) last_file_offset: U64,
}
const _: () = assert!(size_of::<LogEntryRaw>() == 64);

/// A descriptor: `b"desc"` replaces a sector of 4096 bytes, `b"zero"` makes a range zero.
///
/// Source: [MS-VHDX] 2.3.1.2 and 2.3.1.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogDescriptorRaw {
    /// +0: which of the two.
    pub(super) signature: [u8; 4],
    /// +4: the last four bytes of the sector; of a zero descriptor: zero.
    pub(super) trailing_bytes: [u8; 4],
    /// +8: the first eight bytes of the sector; of a zero descriptor: the length, a multiple of 4096.
    pub(super) leading_bytes: [u8; 8],
    /// +16: where; a multiple of 4096.
    pub(super) file_offset: U64,
    /// +24: that of the entry.
    pub(super) sequence_number: U64,
}
const _: () = assert!(size_of::<LogDescriptorRaw>() == 32);

/// Bits of a block allocation table entry that are its state; the place is in the bits from 20 on, in MiB.
pub(super) const STATE_MASK: u64 = 7;
/// The block is nowhere: zero, or the parent's.
pub(super) const NOT_PRESENT: u64 = 0;
/// The block is undefined: read as zero.
pub(super) const UNDEFINED: u64 = 1;
/// The block is zero.
pub(super) const ZERO: u64 = 2;
/// The block was unmapped: read as zero.
pub(super) const UNMAPPED: u64 = 3;
/// The same in files of an early version.
pub(super) const UNMAPPED_EARLY: u64 = 5;
/// The block is in the file.
pub(super) const FULLY_PRESENT: u64 = 6;
/// A bitmap tells which sectors are in the file; the others are the parent's.
pub(super) const PARTIALLY_PRESENT: u64 = 7;
/// Bits of the place of a block, in bytes.
pub(super) const PLACE_MASK: u64 = !0xf_ffff;

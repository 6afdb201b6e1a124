//! On-disk structures of VMDK. All integers are little-endian; places and lengths are in sectors of 512 bytes.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Begins a sparse extent: "KDMV".
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// Begins a sparse extent of ESX.
pub(super) const COWD_MAGIC: [u8; 4] = *b"COWD";
/// Begins a descriptor.
pub(super) const DESCRIPTOR_START: &[u8] = b"# Disk DescriptorFile";
/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;

/// `flags`: `newline_test` is valid.
pub(super) const FLAG_NEWLINES: u32 = 1;
/// `flags`: there is a second grain directory with tables of its own.
pub(super) const FLAG_REDUNDANT: u32 = 1 << 1;
/// `flags`: a table entry of 1 is a grain of zeros.
pub(super) const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// `flags`: grains are compressed.
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
/// `flags`: grains and tables are preceded by markers.
pub(super) const FLAG_MARKERS: u32 = 1 << 17;
/// `gd_offset`: the directory's place is told by a footer.
pub(super) const GD_AT_END: u64 = u64::MAX;
/// `compress_algorithm`: zlib.
pub(super) const COMPRESSION_DEFLATE: u16 = 1;
/// What `newline_test` is unless a text conversion went over the file.
pub(super) const NEWLINES: [u8; 4] = *b"\n \r\n";

/// The header of a sparse extent, at byte 0; of a stream-optimized one again in its last sector but one, then with the directory's place.
///
/// Source: "Hosted Sparse Extent Header".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SparseHeaderRaw {
    /// +0: [`MAGIC`].
    pub(super) magic: [u8; 4],
    /// +4: 1, 2 or 3.
    pub(super) version: U32,
    /// +8: see the `FLAG_` constants.
    pub(super) flags: U32,
    /// +12: sectors of the extent.
    pub(super) capacity: U64,
    /// +20: sectors of a grain; a power of two, at least 8.
    pub(super) grain_size: U64,
    /// +28: where the embedded descriptor lies; 0: there is none.
    pub(super) descriptor_offset: U64,
    /// +36: room for it, in sectors.
    pub(super) descriptor_size: U64,
    /// +44: entries of a grain table: 512.
    pub(super) num_gtes_per_gt: U32,
    /// +48: where the redundant grain directory lies.
    pub(super) rgd_offset: U64,
    /// +56: where the grain directory lies, or [`GD_AT_END`].
    pub(super) gd_offset: U64,
    /// +64: sectors before the first grain.
    pub(super) overhead: U64,
    /// +72: 1 while it is open for writing.
    pub(super) unclean_shutdown: u8,
    /// +73: [`NEWLINES`].
    pub(super) newline_test: [u8; 4],
    /// +77: 0, or [`COMPRESSION_DEFLATE`].
    pub(super) compress_algorithm: U16,
    /// +79: zeros.
    pub(super) padding: [u8; 433],
}
const _: () = assert!(size_of::<SparseHeaderRaw>() == 512);

/// What precedes a compressed grain. The data follow at once.
///
/// Source: "Grain Markers".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GrainMarkerRaw {
    /// +0: first sector of the grain in the extent.
    pub(super) lba: U64,
    /// +8: bytes of compressed data; 0 marks something other than a grain.
    pub(super) size: U32,
}
const _: () = assert!(size_of::<GrainMarkerRaw>() == 12);

/// What precedes anything else in a stream-optimized file: as long as a sector. What it announces follows in the next sector.
///
/// Source: "Markers".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MarkerRaw {
    /// +0: sectors of what follows.
    pub(super) num_sectors: U64,
    /// +8: 0, as no grain has it.
    pub(super) size: U32,
    /// +12: see the `MARKER_` constants.
    pub(super) kind: U32,
    /// +16: zeros.
    pub(super) padding: [u8; 496],
}
const _: () = assert!(size_of::<MarkerRaw>() == 512);

/// Marker: the end of the file.
pub(super) const MARKER_END: u32 = 0;
/// Marker: a grain table follows.
pub(super) const MARKER_TABLE: u32 = 1;
/// Marker: the grain directory follows.
pub(super) const MARKER_DIRECTORY: u32 = 2;
/// Marker: the footer follows.
pub(super) const MARKER_FOOTER: u32 = 3;

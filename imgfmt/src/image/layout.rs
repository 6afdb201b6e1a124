//! The fixed structures and constants of a pack, as they lie in the file.
//!
//! Source: docs/format.md sections 3 to 5.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the format in the pack header.
pub const VERSION: u16 = 1;

/// Starts a pack.
pub const HEADER_MAGIC: [u8; 8] = *b"hikaePK\n";
/// Starts a footer.
pub const FOOTER_MAGIC: [u8; 8] = *b"hikaeFT\n";
/// Starts a frame.
pub const FRAME_MAGIC: [u8; 4] = [0xf5, b'h', b'k', b'F'];

/// Smallest and largest chunk size, as powers of two: 4 KiB and 4 MiB.
pub const CHUNK_LOG2_RANGE: std::ops::RangeInclusive<u8> = 12..=22;
/// Most bytes of a decoded node or record.
pub const MAX_NODE_LEN: u32 = 16 << 20;
/// Most bytes of a decoded catalogue, table or place map segment.
pub const MAX_LIST_LEN: u32 = 64 << 20;
/// Slots of a node.
pub const NODE_SLOTS: u64 = 256;
/// Highest level of a node.
pub const MAX_LEVEL: u8 = 7;

/// Contexts of the derived ids.
pub mod context {
    /// Of nodes.
    pub const NODE: &str = "hikae 2026 node v1";
    /// Of generation records.
    pub const RECORD: &str = "hikae 2026 record v1";
    /// Of catalogues.
    pub const CATALOGUE: &str = "hikae 2026 catalogue v1";
    /// Of tables.
    pub const TABLE: &str = "hikae 2026 table v1";
    /// Of place map segments.
    pub const PLACE_MAP: &str = "hikae 2026 place map v1";
    /// Of footers.
    pub const PACK: &str = "hikae 2026 pack v1";
}

/// Pack header at byte 0, followed by the two lists of feature names.
///
/// Source: docs/format.md section 3.1.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HeaderRaw {
    /// +0x00: [`HEADER_MAGIC`].
    pub magic: [u8; 8],
    /// +0x08: [`VERSION`].
    pub version: U16,
    /// +0x0a: length of the header in bytes with the feature lists.
    pub header_len: U16,
    /// +0x0c: crc32 of the header with this field as 0.
    pub checksum: U32,
    /// +0x10: random, the same in every pack of an image.
    pub image_id: [u8; 16],
    /// +0x20: counts the packs of an image from 0.
    pub pack_number: U32,
    /// +0x24: chunk size as a power of two, in bytes.
    pub chunk_log2: u8,
    /// +0x25: 0.
    pub reserved: [u8; 3],
    /// +0x28: seconds since 1970.
    pub created: U64,
    /// +0x30: bytes of the list of incompatible features.
    pub incompatible_len: U16,
    /// +0x32: bytes of the list of compatible features.
    pub compatible_len: U16,
    /// +0x34: 0.
    pub reserved_2: U32,
}
/// Length of the fixed part of a pack header.
pub const HEADER_LEN: usize = 0x38;
const _: () = assert!(size_of::<HeaderRaw>() == HEADER_LEN);

/// Frame header, followed by the payload.
///
/// Source: docs/format.md section 3.2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameRaw {
    /// +0x00: [`FRAME_MAGIC`].
    pub magic: [u8; 4],
    /// +0x04: crc32 from +0x08 to the end of the payload.
    pub checksum: U32,
    /// +0x08: see [`FrameType`].
    pub frame_type: u8,
    /// +0x09: see [`Codec`].
    pub codec: u8,
    /// +0x0a: 0.
    pub flags: U16,
    /// +0x0c: bytes of payload.
    pub payload_len: U32,
    /// +0x10: bytes after decoding.
    pub logical_len: U32,
    /// +0x14: pack of the base, or 0.
    pub base_pack: U32,
    /// +0x18: frame length of the base, or 0.
    pub base_len: U32,
    /// +0x1c: 0.
    pub reserved: U32,
    /// +0x20: offset of the base, or 0.
    pub base_offset: U64,
    /// +0x28: proves the decoded payload.
    pub id: [u8; 32],
}
/// Length of a frame header.
pub const FRAME_HEADER_LEN: usize = 0x48;
const _: () = assert!(size_of::<FrameRaw>() == FRAME_HEADER_LEN);

/// Footer: the last 128 bytes of a finished pack.
///
/// Source: docs/format.md section 3.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FooterRaw {
    /// +0x00: [`FOOTER_MAGIC`].
    pub magic: [u8; 8],
    /// +0x08: crc32 of the footer with this field as 0.
    pub checksum: U32,
    /// +0x0c: as in the header.
    pub pack_number: U32,
    /// +0x10: as in the header.
    pub image_id: [u8; 16],
    /// +0x20: offset of the table's frame in bytes.
    pub table_offset: U64,
    /// +0x28: length of the table's frame in bytes.
    pub table_len: U32,
    /// +0x2c: number of place map segments.
    pub place_map_count: U32,
    /// +0x30: offset of the catalogue's frame in bytes.
    pub catalogue_offset: U64,
    /// +0x38: length of the catalogue's frame in bytes.
    pub catalogue_len: U32,
    /// +0x3c: 0.
    pub reserved: U32,
    /// +0x40: offset of the first place map segment, or 0.
    pub place_map_offset: U64,
    /// +0x48: length of the whole pack in bytes.
    pub file_len: U64,
    /// +0x50: 0.
    pub reserved_2: [u8; 16],
    /// +0x60: proves header, footer, table, record and catalogue.
    pub hash: [u8; 32],
}
/// Length of a footer.
pub const FOOTER_LEN: usize = 128;
const _: () = assert!(size_of::<FooterRaw>() == FOOTER_LEN);

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// A piece of the disk.
    Chunk = 1,
    /// A table of pointers.
    Node = 2,
    /// A part of the map from old places to new ones.
    PlaceMap = 3,
    /// The sorted list of a pack's chunks and nodes.
    Table = 4,
    /// The JSON record of a generation.
    Record = 5,
    /// The list of packs and generations.
    Catalogue = 6,
}

impl FrameType {
    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Chunk, Self::Node, Self::PlaceMap, Self::Table, Self::Record, Self::Catalogue]
            .into_iter()
            .find(|frame_type| frame_type.number() == number)
    }

    /// The number in the file.
    pub fn number(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Node => 2,
            Self::PlaceMap => 3,
            Self::Table => 4,
            Self::Record => 5,
            Self::Catalogue => 6,
        }
    }

    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Node => "node",
            Self::PlaceMap => "place map",
            Self::Table => "table",
            Self::Record => "generation record",
            Self::Catalogue => "catalogue",
        }
    }

    /// Most bytes that a decoded frame of this type may have.
    pub fn max_logical_len(self, chunk_size: u32) -> u32 {
        match self {
            Self::Chunk => chunk_size,
            Self::Node | Self::Record => MAX_NODE_LEN,
            Self::PlaceMap | Self::Table | Self::Catalogue => MAX_LIST_LEN,
        }
    }

    /// The derivation context of its id; `None` for chunks, whose id is the plain hash.
    pub fn id_context(self) -> Option<&'static str> {
        match self {
            Self::Chunk => None,
            Self::Node => Some(context::NODE),
            Self::PlaceMap => Some(context::PLACE_MAP),
            Self::Table => Some(context::TABLE),
            Self::Record => Some(context::RECORD),
            Self::Catalogue => Some(context::CATALOGUE),
        }
    }
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
    /// One LZ4 block.
    Lz4,
    /// One zstd frame with the base chunk as its prefix.
    ZstdWithBase,
}

impl Codec {
    /// The codec with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Stored, Self::Zstd, Self::Lz4, Self::ZstdWithBase].into_iter().find(|codec| codec.number() == number)
    }

    /// The number in the file.
    pub fn number(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
            Self::ZstdWithBase => 3,
        }
    }
}

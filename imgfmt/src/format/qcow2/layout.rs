//! On-disk structures of qcow2. All integers are big-endian.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `QFI\xfb`.
pub(super) const MAGIC: u32 = 0x5146_49fb;
/// Bytes of the header of version 2; that of version 3 is at least [`HEADER_LEN_V3`].
pub(super) const HEADER_LEN_V2: u32 = 72;
/// Bytes of the fields that version 3 always has.
pub(super) const HEADER_LEN_V3: u32 = 104;
/// Smallest and largest cluster, as a power of two of bytes: 512 B (QEMU takes no smaller) and 2 MiB.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Longest name of a backing file, in bytes.
pub(super) const MAX_BACKING_NAME: u32 = 1023;
/// Snapshots in a file.
pub(super) const MAX_SNAPSHOTS: u32 = 65536;

/// The header, at byte 0. Fields from `incompatible_features` on exist in version 3 only.
///
/// Source: qcow2.rst "Header".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderRaw {
    /// +0: [`MAGIC`].
    pub(super) magic: U32,
    /// +4: 2 or 3.
    pub(super) version: U32,
    /// +8: where the backing file's name lies; 0: there is none.
    pub(super) backing_file_offset: U64,
    /// +16: bytes of that name, without a terminator.
    pub(super) backing_file_size: U32,
    /// +20: bytes in a cluster, as a power of two.
    pub(super) cluster_bits: U32,
    /// +24: bytes of the disk.
    pub(super) size: U64,
    /// +32: 0 none, 1 AES, 2 LUKS.
    pub(super) crypt_method: U32,
    /// +36: entries of the active L1 table.
    pub(super) l1_size: U32,
    /// +40: where it lies; cluster-aligned.
    pub(super) l1_table_offset: U64,
    /// +48: where the reference count table lies; cluster-aligned.
    pub(super) refcount_table_offset: U64,
    /// +56: clusters of it.
    pub(super) refcount_table_clusters: U32,
    /// +60: snapshots in the file.
    pub(super) nb_snapshots: U32,
    /// +64: where their table lies; cluster-aligned.
    pub(super) snapshots_offset: U64,
    /// +72: bits without which the file cannot be read.
    pub(super) incompatible_features: U64,
    /// +80: bits that can be ignored.
    pub(super) compatible_features: U64,
    /// +88: bits that a writer that does not know them clears.
    pub(super) autoclear_features: U64,
    /// +96: bits in a reference count, as a power of two.
    pub(super) refcount_order: U32,
    /// +100: bytes of the header.
    pub(super) header_length: U32,
    /// +104: 0 zlib, 1 zstd; there where `header_length` reaches it.
    pub(super) compression_type: u8,
    /// +105: to the next multiple of 8.
    pub(super) padding: [u8; 7],
}
const _: () = assert!(size_of::<HeaderRaw>() == 112);

/// The file was not closed cleanly: reference counts may be wrong.
pub(super) const INCOMPATIBLE_DIRTY: u64 = 1;
/// A program found the file damaged.
pub(super) const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
/// The data lie in another file.
pub(super) const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// `compression_type` is not 0.
pub(super) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
/// L2 entries are 16 bytes and know 32 subclusters.
pub(super) const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// All of them.
pub(super) const INCOMPATIBLE_KNOWN: u64 = 0x1f;

/// Header extension: the format of the backing file.
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Header extension: names of feature bits.
pub(super) const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
/// Header extension: name of the external data file.
pub(super) const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
/// Header extension: the end of them.
pub(super) const EXTENSION_END: u32 = 0;

/// Where an L1 entry's L2 table or an L2 entry's cluster lies (bits 9 to 55).
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// L2 entry: the cluster's reference count is exactly 1. With an external data file it tells cluster 0 from none.
pub(super) const COPIED: u64 = 1 << 63;
/// L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// L2 entry (version 3, not extended): the cluster reads as zero.
pub(crate) const ALL_ZERO: u64 = 1;

/// A snapshot table entry up to its variable part: extra data, identifier, name, padding to a multiple of 8.
///
/// Source: qcow2.rst "Snapshots".
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SnapshotRaw {
    /// +0: where its L1 table lies; cluster-aligned.
    pub(super) l1_table_offset: U64,
    /// +8: entries of it.
    pub(super) l1_size: U32,
    /// +12: bytes of the identifier.
    pub(super) id_str_size: U16,
    /// +14: bytes of the name.
    pub(super) name_size: U16,
    /// +16: seconds since 1970.
    pub(super) date_sec: U32,
    /// +20: and nanoseconds.
    pub(super) date_nsec: U32,
    /// +24: nanoseconds that the guest had run.
    pub(super) vm_clock_nsec: U64,
    /// +32: bytes of the machine's state.
    pub(super) vm_state_size: U32,
    /// +36: bytes of extra data: state size (64 bits), bytes of the disk (64 bits), and more.
    pub(super) extra_data_size: U32,
}
const _: () = assert!(size_of::<SnapshotRaw>() == 40);

//! Writing: headers and metadata, fixed and dynamic disks.

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use crate::disk::Disk;
use crate::engine::Run;
use crate::error::Result;
use crate::format::identity::Identity;
use crate::format::vhdx::crc32c::of_structure;
use crate::format::vhdx::layout::{
    FILE_SIGNATURE, FULLY_PRESENT, HEADER_OFFSETS, HeaderRaw, ITEM_FILE_PARAMETERS, ITEM_IS_DISK, ITEM_IS_REQUIRED,
    ITEM_LOGICAL_SECTOR, ITEM_PAGE_83, ITEM_PHYSICAL_SECTOR, ITEM_VIRTUAL_DISK_SIZE, LEAVE_ALLOCATED, MetadataEntryRaw,
    MetadataTableRaw, REGION_BAT, REGION_METADATA, REGION_TABLE_OFFSETS, RegionRaw, RegionTableRaw, TABLE_LEN,
};
use crate::format::write::{Blocks, Encoding, TableWriter, write_units};
use crate::target::{Copied, NewFile};

/// Longest disk, in bytes. Source: [MS-VHDX] 2.6.2.2.
pub(crate) const MAX_LEN: u64 = 64 << 40;
/// Blocks of a fixed disk that are not exceeded as long as blocks can be larger.
pub(crate) const FIXED_BLOCKS: u64 = 1 << 15;
/// The same of a dynamic disk: its table is of 8 MiB at most.
const DYNAMIC_BLOCKS: u64 = 1 << 20;
/// What is tested for zeros at once.
const UNIT: u64 = 64 << 10;
/// What regions and blocks are aligned to, and the shortest of either.
const MIB: u64 = 1 << 20;
/// The longest block.
const MAX_BLOCK: u64 = 256 << 20;
/// Where the log lies, of 1 MiB.
const LOG: u64 = MIB;
/// Where the metadata lie, of 1 MiB.
const METADATA: u64 = 2 * MIB;
/// Where the block allocation table lies.
const BAT: u64 = 3 * MIB;
/// Where the items begin in the metadata region.
const ITEMS: u32 = 64 << 10;
/// What a physical sector is said to be, in bytes: today's disks have these, and a guest then aligns its writes.
const PHYSICAL_SECTOR: u32 = 4096;
/// Sectors of a chunk: those whose bits fill a block of sector bitmaps.
const CHUNK_SECTORS: u64 = 1 << 23;

/// Where everything lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of the disk; a multiple of the sector.
    pub(crate) len: u64,
    /// Bytes of a logical sector.
    pub(crate) sector: u32,
    /// Bytes of a block; a power of two.
    pub(crate) block: u64,
    /// Blocks of the disk.
    pub(crate) blocks: u64,
    /// Where the block allocation table lies.
    pub(crate) bat: u64,
    /// Where blocks may begin.
    pub(crate) data: u64,
}

impl Geometry {
    /// The layout for a disk of `len` bytes, at most [`MAX_LEN`], with the shortest blocks of which there are at most `most_blocks`.
    pub(crate) fn of(len: u64, sector: u32, most_blocks: u64) -> Self {
        let block = len.div_ceil(most_blocks.max(1)).next_power_of_two().clamp(MIB, MAX_BLOCK);
        let mut geometry = Self { len, sector, block, blocks: len.div_ceil(block), bat: BAT, data: 0 };
        geometry.data = BAT.saturating_add(geometry.bat_len());
        geometry
    }

    /// Blocks between two entries of sector bitmaps.
    fn ratio(&self) -> u64 {
        CHUNK_SECTORS.saturating_mul(self.sector.into()).checked_div(self.block).unwrap_or(1).max(1)
    }

    /// Entries of the block allocation table; those of sector bitmaps, which a disk without a parent has not, count.
    pub(crate) fn entries(&self) -> u64 {
        self.entry_of(self.blocks.saturating_sub(1)).saturating_add(1)
    }

    /// The entry of a block.
    pub(crate) fn entry_of(&self, block: u64) -> u64 {
        block.saturating_add(block.checked_div(self.ratio()).unwrap_or(0))
    }

    /// Entry `index` of a disk that has all its blocks in order.
    pub(crate) fn fixed_entry(&self, index: u64) -> u64 {
        let each = self.ratio().saturating_add(1);
        let chunk = index.checked_div(each).unwrap_or(0);
        if index.saturating_add(1).is_multiple_of(each) {
            return 0;
        }
        present(self.data.saturating_add(index.saturating_sub(chunk).saturating_mul(self.block)))
    }

    fn bat_len(&self) -> u64 {
        self.entries().saturating_mul(8).next_multiple_of(MIB)
    }

    /// First byte behind all blocks of a fixed disk.
    pub(crate) fn data_end(&self) -> u64 {
        self.data.saturating_add(self.blocks.saturating_mul(self.block))
    }
}

/// The entry of a block that lies at `offset`.
pub(crate) fn present(offset: u64) -> u64 {
    offset | FULLY_PRESENT
}

/// Which kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All blocks are there, and stay.
    Fixed,
    /// Blocks are added as they are written.
    Dynamic,
}

/// Everything before the block allocation table: places and bytes, ascending.
pub(crate) fn places_and_headers(geometry: &Geometry, kind: Kind, identity: &Identity) -> Vec<(u64, Vec<u8>)> {
    let mut file = FILE_SIGNATURE.to_vec();
    file.extend(concat!("hikae ", env!("CARGO_PKG_VERSION")).encode_utf16().flat_map(u16::to_le_bytes));
    let [first, second] = HEADER_OFFSETS;
    let [regions, regions_again] = REGION_TABLE_OFFSETS;
    let table = region_table(geometry);
    vec![
        (0, file),
        (first, header(1, identity)),
        (second, header(2, identity)),
        (regions, table.clone()),
        (regions_again, table),
        (METADATA, metadata(geometry, kind, identity)),
    ]
}

fn header(sequence: u64, identity: &Identity) -> Vec<u8> {
    let mut header = HeaderRaw {
        signature: *b"head",
        checksum: 0.into(),
        sequence_number: sequence.into(),
        file_write_guid: identity.uuid("file write").to_bytes_le(),
        data_write_guid: identity.uuid("data write").to_bytes_le(),
        log_guid: [0; 16],
        log_version: 0.into(),
        version: 1.into(),
        log_length: u32::try_from(MIB).unwrap_or(u32::MAX).into(),
        log_offset: LOG.into(),
        reserved: [0; 4016],
    };
    header.checksum = of_structure(header.as_bytes()).into();
    header.as_bytes().to_vec()
}

/// Both regions are marked as required: VirtualBox refuses a file where they are not.
fn region_table(geometry: &Geometry) -> Vec<u8> {
    let region = |guid: uuid::Uuid, offset: u64, len: u64| RegionRaw {
        guid: guid.to_bytes_le(),
        file_offset: offset.into(),
        length: u32::try_from(len).unwrap_or(u32::MAX).into(),
        required: 1.into(),
    };
    let entries = [region(REGION_BAT, BAT, geometry.bat_len()), region(REGION_METADATA, METADATA, MIB)];
    let table = RegionTableRaw { signature: *b"regi", checksum: 0.into(), entry_count: 2.into(), reserved: 0.into() };
    let mut bytes = [table.as_bytes(), entries.as_bytes()].concat();
    bytes.resize(TABLE_LEN, 0);
    let crc = of_structure(&bytes);
    bytes.iter_mut().skip(4).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn metadata(geometry: &Geometry, kind: Kind, identity: &Identity) -> Vec<u8> {
    let block = U32::new(u32::try_from(geometry.block).unwrap_or(u32::MAX));
    let flags = U32::new(if kind == Kind::Fixed { LEAVE_ALLOCATED } else { 0 });
    let of_disk = ITEM_IS_REQUIRED | ITEM_IS_DISK;
    let items = [
        (ITEM_FILE_PARAMETERS, ITEM_IS_REQUIRED, [block.as_bytes(), flags.as_bytes()].concat()),
        (ITEM_VIRTUAL_DISK_SIZE, of_disk, U64::new(geometry.len).as_bytes().to_vec()),
        (ITEM_PAGE_83, of_disk, identity.uuid("disk").to_bytes_le().to_vec()),
        (ITEM_LOGICAL_SECTOR, of_disk, U32::new(geometry.sector).as_bytes().to_vec()),
        (ITEM_PHYSICAL_SECTOR, of_disk, U32::new(PHYSICAL_SECTOR.max(geometry.sector)).as_bytes().to_vec()),
    ];
    let table = MetadataTableRaw {
        signature: *b"metadata",
        reserved: 0.into(),
        entry_count: U16::new(u16::try_from(items.len()).unwrap_or(u16::MAX)),
        reserved2: [0; 20],
    };
    let mut bytes = table.as_bytes().to_vec();
    let mut values: Vec<u8> = Vec::new();
    for (id, flags, value) in items {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = MetadataEntryRaw {
            item_id: id.to_bytes_le(),
            offset: ITEMS.saturating_add(len(&values)).into(),
            length: len(&value).into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        bytes.extend(entry.as_bytes());
        values.extend(value);
    }
    bytes.resize(TABLE_LEN, 0);
    bytes.extend(values);
    bytes
}

/// Writes a disk as a dynamic VHDX. Its length is made a multiple of its sector size by zeros, and must not exceed [`MAX_LEN`].
pub(crate) fn write_dynamic(disk: &dyn Disk, file: &NewFile, identity: &Identity, run: Run<'_>) -> Result<Copied> {
    let sector = disk.sector_size();
    let geometry = Geometry::of(disk.len().next_multiple_of(u64::from(sector).max(1)), sector, DYNAMIC_BLOCKS);
    for (place, bytes) in places_and_headers(&geometry, Kind::Dynamic, identity) {
        file.write_at(&bytes, place)?;
    }
    let mut table = TableWriter::new(geometry.bat, geometry.bat_len(), 0);
    let mut blocks = Blocks::new(geometry.block);
    let start_of = |number: u64| geometry.data.saturating_add(number.saturating_mul(geometry.block));
    let copied = write_units(disk, UNIT, Encoding::Plain, run, |unit| {
        let (number, within, new) = blocks.place(unit.offset);
        if let Some(block) = new {
            let entry = present(start_of(number));
            table.set(file, geometry.entry_of(block).saturating_mul(8), &entry.to_le_bytes())?;
        }
        file.write_at(&unit.bytes, start_of(number).saturating_add(within))
    })?;
    table.finish(file)?;
    file.set_len(start_of(blocks.count()))?;
    Ok(copied)
}

//! Headers, region tables and metadata.

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::bytes::{le16, le32, le64};
use crate::error::Result;
use crate::format::file::ImageFile;
use crate::format::names;
use crate::format::vhdx::crc32c;
use crate::format::vhdx::layout::{
    HAS_PARENT, HEADER_OFFSETS, HeaderRaw, ITEM_FILE_PARAMETERS, ITEM_IS_REQUIRED, ITEM_IS_USER, ITEM_LOGICAL_SECTOR,
    ITEM_PAGE_83, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR, ITEM_VIRTUAL_DISK_SIZE, LEAVE_ALLOCATED, LOCATOR_VHDX,
    MAX_ENTRIES, MetadataEntryRaw, MetadataTableRaw, REGION_BAT, REGION_METADATA, REGION_TABLE_OFFSETS, RegionRaw,
    RegionTableRaw, TABLE_LEN,
};

const HEADER: &str = "VHDX header";
const REGIONS: &str = "VHDX region table";
const METADATA: &str = "VHDX metadata";
/// Longest parent locator, in bytes.
const MAX_LOCATOR: u32 = 64 << 10;

/// Where something lies in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The regions that every file has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regions {
    pub(super) bat: Region,
    pub(super) metadata: Region,
}

/// What the metadata say.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// Bytes of a block, as a power of two: 20 to 28.
    pub(super) block_bits: u32,
    pub(super) leave_allocated: bool,
    /// Bytes of the disk.
    pub(super) len: u64,
    /// 512 or 4096.
    pub(super) logical_sector: u32,
    /// There where the file has a parent.
    pub(super) parent: Option<Parent>,
}

/// The parent of a differencing file.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    /// Paths, the relative one first.
    pub(super) paths: Vec<Vec<u8>>,
    /// Its `data_write_guid`.
    pub(super) linkage: String,
}

/// The current header.
pub(super) fn read_header(file: &ImageFile, notes: &mut Vec<String>) -> Result<HeaderRaw> {
    let valid = |offset| {
        let header: HeaderRaw = file.read_struct(HEADER, offset).ok()?;
        let is_valid = header.signature == *b"head" && header.checksum.get() == crc32c::of_structure(header.as_bytes());
        is_valid.then_some(header)
    };
    let header = match HEADER_OFFSETS.map(valid) {
        [None, None] => return Err(file.corrupt(HEADER, HEADER_OFFSETS[0], "neither of the two is valid")),
        [Some(one), None] | [None, Some(one)] => {
            notes.push("one of its two headers is damaged: the other is used".to_owned());
            one
        }
        [Some(first), Some(second)] => {
            if first.sequence_number == second.sequence_number && first != second {
                return Err(file.corrupt(HEADER, HEADER_OFFSETS[0], "both are current and differ"));
            }
            if first.sequence_number >= second.sequence_number { first } else { second }
        }
    };
    match header.version.get() {
        1 => Ok(header),
        version => Err(file.unsupported(format_args!("version {version} of VHDX"))),
    }
}

/// The regions; read through the log, which may change them.
pub(super) fn read_regions(file: &ImageFile) -> Result<Regions> {
    let mut error = None;
    for offset in REGION_TABLE_OFFSETS {
        match read_region_table(file, offset) {
            Ok(regions) => return Ok(regions),
            // What it asks for and we do not know is no damage.
            Err(unknown @ crate::Error::Unsupported { .. }) => return Err(unknown),
            Err(damage) => error = error.or(Some(damage)),
        }
    }
    Err(error.expect("there are two tables"))
}

fn read_region_table(file: &ImageFile, offset: u64) -> Result<Regions> {
    let corrupt = |reason| file.corrupt(REGIONS, offset, reason);
    let bytes = file.read_vec(REGIONS, offset, TABLE_LEN)?;
    let (table, entries) = RegionTableRaw::read_from_prefix(&bytes).expect("a table is longer");
    if table.signature != *b"regi" || table.checksum.get() != crc32c::of_structure(&bytes) {
        return Err(corrupt("its signature or checksum is wrong"));
    }
    if table.entry_count.get() > MAX_ENTRIES {
        return Err(corrupt("it has more entries than there may be"));
    }
    let count = usize::try_from(table.entry_count.get()).expect("at most 2047");
    let (mut bat, mut metadata) = (None, None);
    for bytes in entries.chunks_exact(32).take(count) {
        let entry = RegionRaw::read_from_bytes(bytes).expect("as many bytes as it has");
        let region = Region { offset: entry.file_offset.get(), len: entry.length.get().into() };
        let slot = match Uuid::from_bytes_le(entry.guid) {
            REGION_BAT => &mut bat,
            REGION_METADATA => &mut metadata,
            guid if entry.required.get() & 1 != 0 => {
                return Err(file.unsupported(format_args!("the required region {guid}")));
            }
            _ => continue,
        };
        if slot.replace(region).is_some() {
            return Err(corrupt("it lists a region twice"));
        }
        if !region.offset.is_multiple_of(1 << 20) || region.offset == 0 {
            return Err(corrupt("a region is not aligned"));
        }
        file.check(REGIONS, region.offset, region.len)?;
    }
    match (bat, metadata) {
        (Some(bat), Some(metadata)) => Ok(Regions { bat, metadata }),
        _ => Err(corrupt("it lacks a region that every file has")),
    }
}

/// Reads the metadata.
pub(super) fn read_metadata(file: &ImageFile, region: Region) -> Result<Metadata> {
    let corrupt = |reason| file.corrupt(METADATA, region.offset, reason);
    if region.len < u64::try_from(TABLE_LEN).expect("a small constant") {
        return Err(corrupt("its region is too short"));
    }
    let bytes = file.read_vec(METADATA, region.offset, TABLE_LEN)?;
    let (table, entries) = MetadataTableRaw::read_from_prefix(&bytes).expect("a table is longer");
    if table.signature != *b"metadata" {
        return Err(corrupt("its signature is wrong"));
    }
    if u32::from(table.entry_count.get()) > MAX_ENTRIES {
        return Err(corrupt("it has more entries than there may be"));
    }
    let count = usize::from(table.entry_count.get());
    let entries: Vec<_> = entries
        .chunks_exact(32)
        .take(count)
        .map(|bytes| MetadataEntryRaw::read_from_bytes(bytes).expect("as many bytes as it has"))
        .collect();
    for entry in &entries {
        let id = Uuid::from_bytes_le(entry.item_id);
        let is_known = [
            ITEM_FILE_PARAMETERS,
            ITEM_VIRTUAL_DISK_SIZE,
            ITEM_PAGE_83,
            ITEM_LOGICAL_SECTOR,
            ITEM_PHYSICAL_SECTOR,
            ITEM_PARENT_LOCATOR,
        ]
        .contains(&id);
        if !is_known && entry.flags.get() & ITEM_IS_REQUIRED != 0 {
            return Err(file.unsupported(format_args!("the required metadata item {id}")));
        }
    }
    let item = |id: Uuid, most: u32| {
        let is_it = |entry: &&MetadataEntryRaw| {
            Uuid::from_bytes_le(entry.item_id) == id && entry.flags.get() & ITEM_IS_USER == 0
        };
        let entry = entries.iter().find(is_it).ok_or_else(|| corrupt("it lacks an item that every file has"))?;
        let (offset, len) = (u64::from(entry.offset.get()), entry.length.get());
        if len > most || offset.saturating_add(len.into()) > region.len {
            return Err(corrupt("an item is too long"));
        }
        file.read_vec(METADATA, region.offset.saturating_add(offset), usize::try_from(len).expect("at most 64 KiB"))
    };
    let short = || corrupt("an item is too short");

    let parameters = item(ITEM_FILE_PARAMETERS, 8)?;
    let block_size = le32(&parameters, 0).ok_or_else(short)?;
    let flags = le32(&parameters, 4).ok_or_else(short)?;
    if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
        return Err(corrupt("its block size is out of range"));
    }
    let logical_sector = le32(&item(ITEM_LOGICAL_SECTOR, 4)?, 0).ok_or_else(short)?;
    if !matches!(logical_sector, 512 | 4096) {
        return Err(corrupt("its logical sector size is out of range"));
    }
    let len = le64(&item(ITEM_VIRTUAL_DISK_SIZE, 8)?, 0).ok_or_else(short)?;
    if !len.is_multiple_of(logical_sector.into()) || i64::try_from(len).is_err() {
        return Err(corrupt("its disk size is out of range"));
    }
    let parent =
        if flags & HAS_PARENT == 0 { None } else { Some(read_parent(file, &item(ITEM_PARENT_LOCATOR, MAX_LOCATOR)?)?) };
    Ok(Metadata {
        block_bits: block_size.trailing_zeros(),
        leave_allocated: flags & LEAVE_ALLOCATED != 0,
        len,
        logical_sector,
        parent,
    })
}

/// Reads a parent locator: pairs of keys and values.
///
/// Source: [MS-VHDX] 2.6.2.6.
fn read_parent(file: &ImageFile, item: &[u8]) -> Result<Parent> {
    let corrupt = |reason| file.corrupt("VHDX parent locator", 0, reason);
    let short = || corrupt("it is too short");
    let kind = Uuid::from_bytes_le(crate::bytes::array(item, 0).ok_or_else(short)?);
    if kind != LOCATOR_VHDX {
        return Err(file.unsupported(format_args!("a parent locator of type {kind}")));
    }
    let count = le16(item, 18).ok_or_else(short)?;
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for number in 0..usize::from(count) {
        let at = number.saturating_mul(12).saturating_add(20);
        let text = |offset_at: usize, len_at: usize| {
            let offset = usize::try_from(le32(item, at.saturating_add(offset_at))?).ok()?;
            let len = usize::from(le16(item, at.saturating_add(len_at))?);
            let bytes = item.get(offset..offset.checked_add(len)?)?;
            Some(names::from_utf16(names::units_le(bytes)))
        };
        pairs.push((text(0, 8).ok_or_else(short)?, text(4, 10).ok_or_else(short)?));
    }
    let value = |key: &str| pairs.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.clone());
    let linkage = value("parent_linkage").ok_or_else(|| corrupt("it lacks parent_linkage"))?;
    let linkage = Uuid::try_parse_ascii(&linkage).map_err(|_| corrupt("its parent_linkage is no GUID"))?;
    let paths = ["relative_path", "absolute_win32_path", "volume_path"].into_iter().filter_map(value).collect();
    Ok(Parent { paths, linkage: linkage.to_string() })
}

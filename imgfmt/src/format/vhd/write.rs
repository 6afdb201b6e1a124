//! Writing: footers, and dynamic disks.

use zerocopy::{FromZeros, IntoBytes};

use crate::disk::Disk;
use crate::engine::Run;
use crate::error::Result;
use crate::format::identity::Identity;
use crate::format::vhd::layout::{
    COOKIE, DYNAMIC, DYNAMIC_COOKIE, DynamicHeaderRaw, FIXED, FooterRaw, SECTOR, checksum,
};
use crate::format::write::{Blocks, Encoding, TableWriter, write_units};
use crate::target::{Copied, NewFile};

/// Longest disk, in bytes: what the block allocation table of a dynamic disk can place.
///
/// Source: the specification has no figure; Microsoft's programs and QEMU end at 2040 GiB.
pub(crate) const MAX_LEN: u64 = 2040 << 30;
/// The version of both structures.
const VERSION: u32 = 0x0001_0000;
/// The footer's `features`: the bit that is always set.
const FEATURES: u32 = 2;
/// Windows 10, as it signs its own. QEMU and others take the disk's length from the geometry unless they trust the creator.
const CREATOR: (&[u8; 4], u32) = (b"win ", 0x000a_0000);
/// From 1970 to 2000, in seconds.
const EPOCH: u64 = 946_684_800;

/// The footer of a fixed disk of `len` bytes, a multiple of 512.
pub(crate) fn fixed_footer(len: u64, identity: &Identity) -> Vec<u8> {
    footer(len, FIXED, u64::MAX, identity).as_bytes().to_vec()
}

/// A footer. Its geometry is the largest, which programs take for "see the length": any other would cut the disk to whole cylinders.
fn footer(len: u64, disk_type: u32, data_offset: u64, identity: &Identity) -> FooterRaw {
    let mut footer = FooterRaw {
        cookie: *COOKIE,
        features: FEATURES.into(),
        file_format_version: VERSION.into(),
        data_offset: data_offset.into(),
        time_stamp: u32::try_from(identity.created().saturating_sub(EPOCH)).unwrap_or(u32::MAX).into(),
        creator_application: *CREATOR.0,
        creator_version: CREATOR.1.into(),
        creator_host_os: *b"Wi2k",
        original_size: len.into(),
        current_size: len.into(),
        cylinders: u16::MAX.into(),
        heads: 16,
        sectors: 255,
        disk_type: disk_type.into(),
        checksum: 0.into(),
        unique_id: identity.uuid("disk").into_bytes(),
        saved_state: 0,
        reserved: [0; 427],
    };
    footer.checksum = checksum(footer.as_bytes(), 64).into();
    footer
}

/// Bytes of a block of a dynamic disk, as Microsoft's programs write them.
const BLOCK: u64 = 2 << 20;
/// Bytes of the bitmap of a block's sectors.
const BITMAP: usize = 512;
/// What data are aligned to, so that sectors of 4096 bytes of the disk below are not written in parts.
const ALIGNMENT: u64 = 4096;
/// Where the dynamic header lies.
const HEADER: u64 = 512;
/// Where the block allocation table lies.
const TABLE: u64 = HEADER + 1024;
/// What is tested for zeros at once.
const UNIT: u64 = 64 << 10;

/// Writes a disk as a dynamic VHD. Its length is made a multiple of 512 by zeros, and must not exceed [`MAX_LEN`].
pub(crate) fn write_dynamic(disk: &dyn Disk, file: &NewFile, identity: &Identity, run: Run<'_>) -> Result<Copied> {
    let len = disk.len().next_multiple_of(SECTOR);
    let table_len = len.div_ceil(BLOCK).saturating_mul(4).next_multiple_of(SECTOR);
    let first = TABLE.saturating_add(table_len).saturating_add(SECTOR).next_multiple_of(ALIGNMENT);
    let stride = BLOCK.saturating_add(ALIGNMENT);
    let footer = footer(len, DYNAMIC, HEADER, identity);
    file.write_at(footer.as_bytes(), 0)?;
    file.write_at(dynamic_header(len).as_bytes(), HEADER)?;

    let mut table = TableWriter::new(TABLE, table_len, 0xff);
    let mut blocks = Blocks::new(BLOCK);
    let copied = write_units(disk, UNIT, Encoding::Plain, run, |unit| {
        let (number, within, new) = blocks.place(unit.offset);
        let data = first.saturating_add(number.saturating_mul(stride));
        if let Some(block) = new {
            // All sectors are there: those that are not written are zero.
            let bitmap = data.saturating_sub(SECTOR);
            file.write_at(&[0xff; BITMAP], bitmap)?;
            let sector = u32::try_from(bitmap / SECTOR).unwrap_or(u32::MAX);
            table.set(file, block.saturating_mul(4), &sector.to_be_bytes())?;
        }
        file.write_at(&unit.bytes, data.saturating_add(within))
    })?;
    table.finish(file)?;
    let end = match blocks.count().checked_sub(1) {
        Some(last) => first.saturating_add(last.saturating_mul(stride)).saturating_add(BLOCK),
        None => TABLE.saturating_add(table_len),
    };
    file.write_at(footer.as_bytes(), end)?;
    Ok(copied)
}

fn dynamic_header(len: u64) -> DynamicHeaderRaw {
    let mut header = DynamicHeaderRaw::new_zeroed();
    header.cookie = *DYNAMIC_COOKIE;
    header.data_offset = u64::MAX.into();
    header.table_offset = TABLE.into();
    header.header_version = VERSION.into();
    header.max_table_entries = u32::try_from(len.div_ceil(BLOCK)).unwrap_or(u32::MAX).into();
    header.block_size = u32::try_from(BLOCK).unwrap_or(u32::MAX).into();
    header.checksum = checksum(header.as_bytes(), 36).into();
    header
}

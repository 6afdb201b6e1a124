//! Writing: headers, fixed and dynamic disks.

use zerocopy::IntoBytes;

use crate::disk::Disk;
use crate::engine::Run;
use crate::error::Result;
use crate::format::identity::Identity;
use crate::format::vdi::layout::{DYNAMIC, FIXED, GeometryRaw, HeaderRaw, SIGNATURE, VERSION};
use crate::format::write::{Blocks, Encoding, TableWriter, write_units};
use crate::target::{Copied, NewFile};

/// Bytes of a block, as VirtualBox writes them.
pub(crate) const BLOCK: u64 = 1 << 20;
/// Where the block map lies.
pub(crate) const MAP: u64 = 512;
/// Longest disk, in bytes: QEMU reads a map of at most 2 GiB less its header.
pub(crate) const MAX_LEN: u64 = ((1 << 31) - MAP) / 4 * BLOCK;
/// Bytes of the header behind its signature and version fields, with the second geometry. Source: VirtualBox's VDIHEADER1PLUS.
const HEADER_SIZE: u32 = 400;

/// Where everything lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of the disk; a multiple of 512.
    pub(crate) len: u64,
    /// Blocks of the disk.
    pub(crate) blocks: u64,
    /// Where block 0 lies: at a multiple of the block size, which is what makes files of guests lie well.
    pub(crate) data: u64,
}

impl Geometry {
    /// The layout for a disk of `len` bytes, at most [`MAX_LEN`].
    pub(crate) fn of(len: u64) -> Self {
        let blocks = len.div_ceil(BLOCK);
        let data = MAP.saturating_add(blocks.saturating_mul(4)).next_multiple_of(BLOCK);
        Self { len, blocks, data }
    }

    /// First byte behind all blocks.
    pub(crate) fn data_end(&self) -> u64 {
        self.data.saturating_add(self.blocks.saturating_mul(BLOCK))
    }
}

/// The header of a fixed disk.
pub(crate) fn fixed_header(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    header(geometry, FIXED, geometry.blocks, identity).as_bytes().to_vec()
}

fn header(geometry: &Geometry, image_type: u32, allocated: u64, identity: &Identity) -> HeaderRaw {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).into();
    let mut text = [0; 64];
    let said = b"<<< hikae VDI Disk Image >>>\n";
    text.iter_mut().zip(said).for_each(|(to, from)| *to = *from);
    HeaderRaw {
        text,
        signature: SIGNATURE.into(),
        version: VERSION.into(),
        header_size: HEADER_SIZE.into(),
        image_type: image_type.into(),
        image_flags: 0.into(),
        description: [0; 256],
        offset_bmap: count(MAP),
        offset_data: count(geometry.data),
        cylinders: 0.into(),
        heads: 0.into(),
        sectors: 0.into(),
        sector_size: 512.into(),
        unused: 0.into(),
        disk_size: geometry.len.into(),
        block_size: count(BLOCK),
        block_extra: 0.into(),
        blocks_in_image: count(geometry.blocks),
        blocks_allocated: count(allocated),
        // VirtualBox refuses a file where one of these two is zero.
        uuid_image: identity.uuid("disk").to_bytes_le(),
        uuid_last_modified: identity.uuid("modification").to_bytes_le(),
        uuid_link: [0; 16],
        uuid_parent_modified: [0; 16],
        // Nor does it take another sector size here, although it computes the rest itself.
        lchs: GeometryRaw { cylinders: 0.into(), heads: 0.into(), sectors: 0.into(), sector_size: 512.into() },
        rest: [0; 40],
    }
}

/// What is tested for zeros at once.
const UNIT: u64 = 64 << 10;

/// Writes a disk as a dynamic VDI. Its length is made a multiple of 512 by zeros, and must not exceed [`MAX_LEN`].
pub(crate) fn write_dynamic(disk: &dyn Disk, file: &NewFile, identity: &Identity, run: Run<'_>) -> Result<Copied> {
    let geometry = Geometry::of(disk.len().next_multiple_of(512));
    let mut map = TableWriter::new(MAP, geometry.data.saturating_sub(MAP), 0xff);
    let mut blocks = Blocks::new(BLOCK);
    let copied = write_units(disk, UNIT, Encoding::Plain, run, |unit| {
        let (number, within, new) = blocks.place(unit.offset);
        if let Some(block) = new {
            let entry = u32::try_from(number).unwrap_or(u32::MAX);
            map.set(file, block.saturating_mul(4), &entry.to_le_bytes())?;
        }
        let start = geometry.data.saturating_add(number.saturating_mul(BLOCK));
        file.write_at(&unit.bytes, start.saturating_add(within))
    })?;
    map.finish(file)?;
    file.write_at(header(&geometry, DYNAMIC, blocks.count(), identity).as_bytes(), 0)?;
    file.set_len(geometry.data.saturating_add(blocks.count().saturating_mul(BLOCK)))?;
    Ok(copied)
}

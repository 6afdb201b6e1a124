//! Reading: header, log, tables, and where each sector lies.

use std::sync::Arc;

use uuid::Uuid;

use crate::bytes::le64;
use crate::error::Result;
use crate::format::chain::{BaseWish, Opened, Opener};
use crate::format::file::{ImageFile, Table};
use crate::format::layer::{Layer, Place, Run};
use crate::format::vhdx::layout::{
    FILE_SIGNATURE, FULLY_PRESENT, NOT_PRESENT, PARTIALLY_PRESENT, PLACE_MASK, STATE_MASK, UNDEFINED, UNMAPPED,
    UNMAPPED_EARLY, ZERO,
};
use crate::format::vhdx::log;
use crate::format::vhdx::metadata::{Metadata, read_header, read_metadata, read_regions};
use crate::format::vhdx::replay::Replayed;
use crate::format::{About, Format, names};

const BAT: &str = "VHDX block allocation table";
/// Sectors whose bits fill a block of sector bitmaps (1 MiB), as a power of two.
const BITMAP_BITS: u32 = 23;
/// Bytes of a block of sector bitmaps.
const BITMAP_LEN: u64 = 1 << 20;

pub(super) fn open(_opener: &Opener<'_>, given: &ImageFile) -> Result<Opened> {
    if given.read_vec("VHDX file identifier", 0, 8)? != FILE_SIGNATURE {
        return Err(given.corrupt("VHDX file identifier", 0, "its signature is wrong"));
    }
    let mut notes = Vec::new();
    let header = read_header(given, &mut notes)?;
    let file = match log::replay(given, &header)? {
        None => given.clone(),
        Some(changes) => {
            notes.push(format!(
                "it was not closed cleanly: the {} ranges that its log changes were replayed in memory",
                changes.count()
            ));
            given.with_disk(|disk| Arc::new(Replayed::new(disk, changes)))
        }
    };
    let regions = read_regions(&file)?;
    let metadata = read_metadata(&file, regions.metadata)?;

    let about = About {
        format: Format::Vhdx,
        variant: variant(&metadata),
        file: given.place(),
        more_files: Vec::new(),
        identity: Uuid::from_bytes_le(header.data_write_guid).to_string(),
        notes,
        base: None,
    };
    let base = match &metadata.parent {
        None => None,
        Some(parent) => {
            let names = names::to_try(&parent.paths);
            if names.is_empty() {
                return Err(file.corrupt("VHDX parent locator", 0, "it names no parent"));
            }
            let identity = Some(parent.linkage.clone());
            Some(BaseWish { what: "parent", names, format: Some(Format::Vhdx), identity })
        }
    };
    // Both are powers of two, the ratio at least 16.
    let sector_bits = metadata.logical_sector.trailing_zeros();
    let ratio_bits = BITMAP_BITS.saturating_add(sector_bits).saturating_sub(metadata.block_bits);
    let blocks = metadata.len.div_ceil(1 << metadata.block_bits);
    let chunks = blocks.div_ceil(1 << ratio_bits);
    let entries = if metadata.parent.is_some() {
        chunks.saturating_mul((1_u64 << ratio_bits).saturating_add(1))
    } else {
        blocks.saturating_add(chunks.saturating_sub(1))
    };
    if entries.saturating_mul(8) > regions.bat.len {
        return Err(file.corrupt(BAT, regions.bat.offset, "it is too short for the disk"));
    }
    let layer = Vhdx {
        bat: Table::new(&file, BAT, regions.bat.offset, entries, 8)?,
        file,
        len: metadata.len,
        block_bits: metadata.block_bits,
        ratio_bits,
        sector_bits,
        differencing: metadata.parent.is_some(),
    };
    Ok(Opened { layer: Box::new(layer), about, base, sector_size: Some(metadata.logical_sector) })
}

fn variant(metadata: &Metadata) -> String {
    let kind = match (&metadata.parent, metadata.leave_allocated) {
        (Some(_), _) => "differencing",
        (None, true) => "fixed",
        (None, false) => "dynamic",
    };
    format!("{kind}, blocks of {} MiB", 1_u64 << metadata.block_bits.saturating_sub(20))
}

/// An opened file.
struct Vhdx {
    /// With its log replayed.
    file: ImageFile,
    len: u64,
    block_bits: u32,
    /// Blocks between two blocks of sector bitmaps, as a power of two.
    ratio_bits: u32,
    sector_bits: u32,
    bat: Table,
    differencing: bool,
}

impl Vhdx {
    /// Where a block lies whose table entry, at `index`, is this.
    fn place_of(&self, entry: u64, index: u64) -> Result<Place<'_>> {
        let corrupt = |reason| Err(self.file.corrupt(BAT, self.bat.place_of(index), reason));
        let offset = entry & PLACE_MASK;
        match entry & STATE_MASK {
            NOT_PRESENT => Ok(Place::Base),
            UNDEFINED | ZERO | UNMAPPED | UNMAPPED_EARLY => Ok(Place::Zero),
            FULLY_PRESENT | PARTIALLY_PRESENT if offset == 0 => corrupt("a block lies at the start of the file"),
            FULLY_PRESENT => Ok(Place::Stored { file: &self.file, offset }),
            PARTIALLY_PRESENT if self.differencing => Ok(Place::Stored { file: &self.file, offset }),
            PARTIALLY_PRESENT => corrupt("a block is partially present although there is no parent"),
            _ => corrupt("a block is in no known state"),
        }
    }

    /// The run of sectors of one kind in a partially present block at `block_at`.
    fn sectors(&self, block: u64, block_at: u64, within: u64) -> Result<Run<'_>> {
        let ratio = 1_u64 << self.ratio_bits;
        let chunk = block >> self.ratio_bits;
        let index = chunk.saturating_add(1).saturating_mul(ratio).saturating_add(chunk);
        let entry = le64(&self.bat.entries(&self.file, index)?, 0).unwrap_or(0);
        let bitmap_at = entry & PLACE_MASK;
        if entry & STATE_MASK != FULLY_PRESENT || bitmap_at == 0 {
            let reason = "a block is partially present, but its sector bitmap is not";
            return Err(self.file.corrupt(BAT, self.bat.place_of(index), reason));
        }
        let bitmap = Table::new(&self.file, "VHDX sector bitmap", bitmap_at, BITMAP_LEN, 1)?;
        let first = (block & ratio.saturating_sub(1)) << self.block_bits >> self.sector_bits;
        let sector = first.saturating_add(within >> self.sector_bits);
        let end = first.saturating_add(1 << (self.block_bits.saturating_sub(self.sector_bits)));
        let bits = bitmap.entries(&self.file, sector / 8)?;
        // The lowest bit is the first sector.
        let is_set = |at: u64| {
            let byte = usize::try_from((at / 8).saturating_sub(sector / 8)).ok().and_then(|byte| bits.get(byte));
            byte.map(|byte| byte >> (at % 8) & 1 == 1)
        };
        let kind = is_set(sector);
        let mut next = sector.saturating_add(1);
        while next < end && is_set(next) == kind {
            next = next.saturating_add(1);
        }
        let len = (next.saturating_sub(first) << self.sector_bits).saturating_sub(within);
        let stored = Place::Stored { file: &self.file, offset: block_at.saturating_add(within) };
        Ok(Run { len, place: if kind == Some(true) { stored } else { Place::Base } })
    }
}

impl Layer for Vhdx {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        let block = offset >> self.block_bits;
        let block_len = 1_u64 << self.block_bits;
        let within = offset & block_len.saturating_sub(1);
        // Each chunk of blocks is followed by the entry of its block of bitmaps.
        let index = block.saturating_add(block >> self.ratio_bits);
        let entries = self.bat.entries(&self.file, index)?;
        let first = le64(&entries, 0).unwrap_or(0);
        let place = self.place_of(first, index)?;
        if first & STATE_MASK == PARTIALLY_PRESENT {
            return self.sectors(block, first & PLACE_MASK, within);
        }
        let in_chunk = (1_u64 << self.ratio_bits).saturating_sub(block & (1_u64 << self.ratio_bits).saturating_sub(1));
        let following = entries.chunks_exact(8).take(usize::try_from(in_chunk).unwrap_or(usize::MAX)).skip(1);
        let mut blocks = 1_u64;
        for bytes in following {
            let entry = le64(bytes, 0).unwrap_or(0);
            let continues = match (place, self.place_of(entry, index.saturating_add(blocks))) {
                (Place::Zero, Ok(Place::Zero)) | (Place::Base, Ok(Place::Base)) => true,
                (Place::Stored { offset, .. }, Ok(Place::Stored { offset: next, .. })) => {
                    let end = offset.saturating_add(blocks.saturating_mul(block_len));
                    entry & STATE_MASK == FULLY_PRESENT && end == next
                }
                _ => false,
            };
            if !continues {
                break;
            }
            blocks = blocks.saturating_add(1);
        }
        let place = match place {
            Place::Stored { file, offset } => Place::Stored { file, offset: offset.saturating_add(within) },
            place => place,
        };
        Ok(Run { len: blocks.saturating_mul(block_len).saturating_sub(within), place })
    }
}

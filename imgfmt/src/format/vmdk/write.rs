//! Writing: sparse files in one piece, and stream-optimized ones.

use zerocopy::IntoBytes;

use crate::disk::Disk;
use crate::engine::Run;
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::vmdk::descriptor::{Kind, descriptor};
use crate::format::vmdk::layout::{
    COMPRESSION_DEFLATE, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, FLAG_REDUNDANT, GD_AT_END, GrainMarkerRaw,
    MAGIC, MARKER_DIRECTORY, MARKER_END, MARKER_FOOTER, MARKER_TABLE, MarkerRaw, NEWLINES, SECTOR, SparseHeaderRaw,
};
use crate::format::write::{Encoding, TableWriter, write_units};
use crate::target::{Copied, NewFile};

/// Sectors of a grain, as VMware writes them.
const GRAIN: u64 = 128;
/// Bytes of a grain.
const GRAIN_LEN: u64 = GRAIN * SECTOR;
/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 512;
/// Sectors of a grain table.
const TABLE: u64 = 4;
/// First sector of the descriptor, and the room for it, with some to grow.
const DESCRIPTOR: (u64, u64) = (1, 20);
/// Longest disk, in bytes: programs take grain directories no longer than this needs.
pub(crate) const MAX_LEN: u64 = 64 << 40;

fn bytes_of(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR)
}

/// A place as tables hold it. Fails where the file has become too long.
fn entry(sector: u64) -> Result<[u8; 4]> {
    let fits = u32::try_from(sector).map(u32::to_le_bytes);
    fits.map_err(|_| Error::Refused("the disk holds more than the 2 TiB of data that a sparse VMDK can hold".into()))
}

fn header(kind: Kind, sectors: u64) -> SparseHeaderRaw {
    let is_stream = kind == Kind::StreamOptimized;
    let of_stream = FLAG_COMPRESSED | FLAG_MARKERS;
    SparseHeaderRaw {
        magic: MAGIC,
        version: if is_stream { 3 } else { 1 }.into(),
        flags: (FLAG_NEWLINES | if is_stream { of_stream } else { FLAG_REDUNDANT }).into(),
        capacity: sectors.into(),
        grain_size: GRAIN.into(),
        descriptor_offset: DESCRIPTOR.0.into(),
        descriptor_size: DESCRIPTOR.1.into(),
        num_gtes_per_gt: u32::try_from(TABLE_ENTRIES).unwrap_or(u32::MAX).into(),
        rgd_offset: 0.into(),
        gd_offset: if is_stream { GD_AT_END } else { 0 }.into(),
        overhead: 0.into(),
        unclean_shutdown: 0,
        newline_test: NEWLINES,
        compress_algorithm: if is_stream { COMPRESSION_DEFLATE } else { 0 }.into(),
        padding: [0; 433],
    }
}

/// The parts of a disk in the units of the format.
struct Shape {
    /// Sectors of the disk.
    sectors: u64,
    /// Grain tables.
    tables: u64,
    /// Sectors of a grain directory.
    directory: u64,
}

impl Shape {
    fn of(disk: &dyn Disk) -> Self {
        let sectors = disk.len().div_ceil(SECTOR);
        let tables = sectors.div_ceil(GRAIN.saturating_mul(TABLE_ENTRIES));
        Self { sectors, tables, directory: tables.saturating_mul(4).div_ceil(SECTOR) }
    }
}

/// Writes a disk as a sparse file in one piece; `name` is the name that the file will have. The length is made a multiple of 512 by zeros.
pub(crate) fn write_sparse(
    disk: &dyn Disk,
    file: &NewFile,
    name: &str,
    identity: &Identity,
    run: Run<'_>,
) -> Result<Copied> {
    let shape = Shape::of(disk);
    let each = shape.directory.saturating_add(shape.tables.saturating_mul(TABLE));
    let directories =
        [DESCRIPTOR.0.saturating_add(DESCRIPTOR.1), DESCRIPTOR.0.saturating_add(DESCRIPTOR.1).saturating_add(each)];
    let [redundant, first] = directories;
    let grains = first.saturating_add(each).next_multiple_of(GRAIN);
    let mut header = header(Kind::MonolithicSparse, shape.sectors);
    header.rgd_offset = redundant.into();
    header.gd_offset = first.into();
    header.overhead = grains.into();
    file.write_at(header.as_bytes(), 0)?;
    let text = descriptor(Kind::MonolithicSparse, bytes_of(shape.sectors), name, identity);
    file.write_at(text.as_bytes(), bytes_of(DESCRIPTOR.0))?;

    let mut tables = Vec::new();
    for at in directories {
        let start = at.saturating_add(shape.directory);
        let mut directory = TableWriter::new(bytes_of(at), bytes_of(shape.directory), 0);
        for table in 0..shape.tables {
            let place = entry(start.saturating_add(table.saturating_mul(TABLE)))?;
            directory.set(file, table.saturating_mul(4), &place)?;
        }
        directory.finish(file)?;
        tables.push(TableWriter::new(bytes_of(start), bytes_of(shape.tables.saturating_mul(TABLE)), 0));
    }
    let mut next = grains;
    let copied = write_units(disk, GRAIN_LEN, Encoding::Plain, run, |unit| {
        let first = unit.offset / GRAIN_LEN;
        let count = u64::try_from(unit.bytes.len()).unwrap_or(0) / GRAIN_LEN;
        file.write_at(&unit.bytes, bytes_of(next))?;
        for grain in first..first.saturating_add(count) {
            let place = entry(next)?;
            for table in &mut tables {
                table.set(file, grain.saturating_mul(4), &place)?;
            }
            next = next.saturating_add(GRAIN);
        }
        Ok(())
    })?;
    for table in &mut tables {
        table.finish(file)?;
    }
    file.set_len(bytes_of(next))?;
    Ok(copied)
}

/// A stream-optimized file, which is written front to back.
struct Stream<'a> {
    file: &'a NewFile,
    /// Sectors that were written.
    end: u64,
    /// Number of the grain table that fills.
    table: u64,
    entries: Vec<u8>,
    directory: Vec<u8>,
}

impl Stream<'_> {
    /// Adds bytes, and zeros to the next sector. Returns the sector at which they begin.
    fn add(&mut self, bytes: &[&[u8]]) -> Result<u64> {
        let start = self.end;
        let bytes = bytes.concat();
        self.file.write_at(&bytes, bytes_of(start))?;
        self.end = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX).div_ceil(SECTOR));
        Ok(start)
    }

    /// Adds a marker and what it announces. Returns the sector of that.
    fn marked(&mut self, kind: u32, bytes: &[u8]) -> Result<u64> {
        let sectors = u64::try_from(bytes.len()).unwrap_or(u64::MAX).div_ceil(SECTOR);
        let marker = MarkerRaw { num_sectors: sectors.into(), size: 0.into(), kind: kind.into(), padding: [0; 496] };
        Ok(self.add(&[marker.as_bytes(), bytes])?.saturating_add(1))
    }

    /// Writes the table that fills, unless it is empty, and begins with the table of number `next`.
    fn go_to(&mut self, next: u64) -> Result<()> {
        if self.entries.iter().any(|byte| *byte != 0) {
            let entries = std::mem::take(&mut self.entries);
            let place = entry(self.marked(MARKER_TABLE, &entries)?)?;
            let at = usize::try_from(self.table.saturating_mul(4)).unwrap_or(usize::MAX);
            self.directory
                .get_mut(at..at.saturating_add(4))
                .expect("it has room for all tables")
                .copy_from_slice(&place);
        }
        self.entries = vec![0; usize::try_from(bytes_of(TABLE)).expect("a small constant")];
        self.table = next;
        Ok(())
    }

    fn add_grain(&mut self, grain: u64, bytes: &[u8]) -> Result<()> {
        if grain / TABLE_ENTRIES != self.table {
            self.go_to(grain / TABLE_ENTRIES)?;
        }
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let marker = GrainMarkerRaw { lba: grain.saturating_mul(GRAIN).into(), size: size.into() };
        let place = entry(self.add(&[marker.as_bytes(), bytes])?)?;
        let at = usize::try_from((grain % TABLE_ENTRIES).saturating_mul(4)).expect("within a table");
        self.entries.get_mut(at..at.saturating_add(4)).expect("within a table").copy_from_slice(&place);
        Ok(())
    }
}

/// Writes a disk as a stream-optimized file; `name` is the name that it will have. The length is made a multiple of 512 by zeros.
pub(crate) fn write_stream(
    disk: &dyn Disk,
    file: &NewFile,
    name: &str,
    identity: &Identity,
    run: Run<'_>,
) -> Result<Copied> {
    let shape = Shape::of(disk);
    let mut header = header(Kind::StreamOptimized, shape.sectors);
    header.overhead = GRAIN.into();
    let directory = usize::try_from(bytes_of(shape.directory)).unwrap_or(usize::MAX);
    let mut stream = Stream { file, end: GRAIN, table: 0, entries: Vec::new(), directory: vec![0; directory] };
    stream.go_to(0)?;
    file.write_at(header.as_bytes(), 0)?;
    let text = descriptor(Kind::StreamOptimized, bytes_of(shape.sectors), name, identity);
    file.write_at(text.as_bytes(), bytes_of(DESCRIPTOR.0))?;
    let copied = write_units(disk, GRAIN_LEN, Encoding::Zlib, run, |unit| {
        stream.add_grain(unit.offset / GRAIN_LEN, &unit.bytes)
    })?;
    stream.go_to(0)?;
    let directory = std::mem::take(&mut stream.directory);
    let place = stream.marked(MARKER_DIRECTORY, &directory)?;
    header.gd_offset = place.into();
    stream.marked(MARKER_FOOTER, header.as_bytes())?;
    stream.marked(MARKER_END, &[])?;
    file.set_len(bytes_of(stream.end))?;
    Ok(copied)
}

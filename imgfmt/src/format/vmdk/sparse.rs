//! A sparse extent: grains placed by a directory of tables.

use crate::bytes::le32;
use crate::disk::buf_len;
use crate::error::Result;
use crate::format::file::{ImageFile, Table};
use crate::format::layer::{MAX_CLUSTER, Packed, Place, Run};
use crate::format::unpack::{Codec, Unpacker};
use crate::format::vmdk::layout::{
    COMPRESSION_DEFLATE, COWD_MAGIC, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, FLAG_ZERO_GRAINS, GD_AT_END,
    GrainMarkerRaw, MAGIC, NEWLINES, SECTOR, SparseHeaderRaw,
};

const HEADER: &str = "VMDK sparse extent header";
const GRAIN: &str = "VMDK grain";
/// Sectors of a grain, where it is stored as it is.
const GRAIN_SIZES: std::ops::RangeInclusive<u64> = 1..=262_144;
/// Entries of a grain table: 512 by the specification.
const TABLE_SIZES: std::ops::RangeInclusive<u32> = 1..=65_536;

/// An opened sparse extent.
pub(super) struct Sparse {
    file: ImageFile,
    header: SparseHeaderRaw,
    /// Bytes of a grain, as a power of two.
    grain_bits: u32,
    directory: Table,
    unpacker: Unpacker,
}

impl Sparse {
    /// Opens a file as a sparse extent.
    pub(super) fn open(file: &ImageFile) -> Result<Self> {
        let first: SparseHeaderRaw = file.read_struct(HEADER, 0)?;
        let header = if first.gd_offset.get() == GD_AT_END { read_footer(file)? } else { first };
        check(file, &header)?;
        let grain_len = header.grain_size.get().saturating_mul(SECTOR);
        let per_table = grain_len.saturating_mul(header.num_gtes_per_gt.get().into());
        let capacity = header.capacity.get().checked_mul(SECTOR).filter(|len| i64::try_from(*len).is_ok());
        let capacity = capacity.ok_or_else(|| file.corrupt(HEADER, 12, "its capacity is out of range"))?;
        let tables = capacity.checked_next_multiple_of(per_table).and_then(|len| len.checked_div(per_table));
        let tables = tables.ok_or_else(|| file.corrupt(HEADER, 12, "its capacity is out of range"))?;
        let directory_at = header.gd_offset.get().saturating_mul(SECTOR);
        let directory = Table::new(file, "VMDK grain directory", directory_at, tables, 4)?;
        let grain_bits = grain_len.trailing_zeros();
        Ok(Self { file: file.clone(), header, grain_bits, directory, unpacker: Unpacker::default() })
    }

    /// Bytes that it covers.
    pub(super) fn capacity(&self) -> u64 {
        self.header.capacity.get().saturating_mul(SECTOR)
    }

    /// Its header.
    pub(super) fn header(&self) -> &SparseHeaderRaw {
        &self.header
    }

    /// Says whether it is this file.
    pub(super) fn is_in(&self, file: &ImageFile) -> bool {
        self.file.number() == file.number()
    }

    fn flag(&self, flag: u32) -> bool {
        self.header.flags.get() & flag != 0
    }

    /// Where the grain of a table entry lies.
    fn place_of(&self, entry: u32) -> Place<'_> {
        let offset = u64::from(entry).saturating_mul(SECTOR);
        match entry {
            0 => Place::Base,
            1 if self.flag(FLAG_ZERO_GRAINS) => Place::Zero,
            _ if self.flag(FLAG_COMPRESSED) => Place::Packed(Packed {
                file: &self.file,
                offset,
                stored: 0,
                cluster_len: usize::try_from(1_u64 << self.grain_bits).unwrap_or(usize::MAX),
                within: 0,
            }),
            _ => Place::Stored { file: &self.file, offset },
        }
    }

    /// The run at a byte of the extent.
    pub(super) fn run_at(&self, offset: u64) -> Result<Run<'_>> {
        let table_len = u64::from(self.header.num_gtes_per_gt.get());
        let grain = offset >> self.grain_bits;
        let within = offset & (1_u64 << self.grain_bits).saturating_sub(1);
        let index = grain.checked_div(table_len).expect("checked by open");
        let in_table = grain.checked_rem(table_len).expect("checked by open");
        let directory = self.directory.entries(&self.file, index)?;
        let table_at = u64::from(le32(&directory, 0).unwrap_or(0));
        let run =
            |grains: u64, place| Run { len: grains.saturating_mul(1 << self.grain_bits).saturating_sub(within), place };
        if table_at == 0 {
            let empty = directory.chunks_exact(4).take_while(|entry| le32(entry, 0) == Some(0)).count();
            let grains = u64::try_from(empty).unwrap_or(1).saturating_mul(table_len).saturating_sub(in_table);
            return Ok(run(grains, Place::Base));
        }
        let table = Table::new(&self.file, "VMDK grain table", table_at.saturating_mul(SECTOR), table_len, 4)?;
        let entries = table.entries(&self.file, in_table)?;
        let mut following = entries.chunks_exact(4).filter_map(|entry| le32(entry, 0));
        let first = following.next().unwrap_or(0);
        match self.place_of(first) {
            Place::Packed(packed) => {
                let within = usize::try_from(within).unwrap_or(usize::MAX);
                Ok(run(1, Place::Packed(Packed { within, ..packed })))
            }
            Place::Stored { file, offset } => {
                let step = u32::try_from(self.header.grain_size.get()).unwrap_or(u32::MAX);
                let mut expected = first;
                let same = following.take_while(|entry| {
                    expected = expected.saturating_add(step);
                    *entry == expected
                });
                let grains = u64::try_from(same.count()).unwrap_or(0).saturating_add(1);
                Ok(run(grains, Place::Stored { file, offset: offset.saturating_add(within) }))
            }
            place => {
                let same = following.take_while(|entry| *entry == first).count();
                Ok(run(u64::try_from(same).unwrap_or(0).saturating_add(1), place))
            }
        }
    }

    /// Decodes the grain at a byte of the file.
    pub(super) fn unpack(&self, at: u64, out: &mut [u8]) -> Result<()> {
        let marker: GrainMarkerRaw = self.file.read_struct(GRAIN, at)?;
        let size = marker.size.get();
        if size == 0 || u64::from(size) > MAX_CLUSTER.saturating_mul(2) {
            return Err(self.file.corrupt(GRAIN, at, "its marker's size is out of range"));
        }
        let decoded = self.unpacker.decode(Codec::Zlib, out, |encoded| {
            encoded.resize(usize::try_from(size).expect("at most 4 MiB"), 0);
            self.file.read_at(GRAIN, encoded, at.saturating_add(12))
        })?;
        let len = decoded.map_err(|reason| self.file.corrupt(GRAIN, at, reason))?;
        // QEMU cuts the last grain off at the end of the disk.
        let start = marker.lba.get().saturating_mul(SECTOR);
        let needed = self.capacity().saturating_sub(start).min(buf_len(out));
        if start.trailing_zeros() < self.grain_bits || needed == 0 || u64::try_from(len).unwrap_or(0) < needed {
            return Err(self.file.corrupt(GRAIN, at, "it is too short, or its marker's place makes no sense"));
        }
        out.get_mut(len..).expect("no more was decoded than there is room for").fill(0);
        Ok(())
    }
}

/// The header that a stream-optimized extent ends with: footer marker, this, end-of-stream marker, a sector each.
fn read_footer(file: &ImageFile) -> Result<SparseHeaderRaw> {
    let at = file.len().saturating_sub(1024);
    let footer: SparseHeaderRaw = file.read_struct("VMDK footer", at)?;
    if footer.magic != MAGIC || footer.gd_offset.get() == GD_AT_END {
        return Err(file.corrupt("VMDK footer", at, "it is missing: the file was not written to its end"));
    }
    Ok(footer)
}

fn check(file: &ImageFile, header: &SparseHeaderRaw) -> Result<()> {
    let corrupt = |offset, reason| Err(file.corrupt(HEADER, offset, reason));
    if header.magic == COWD_MAGIC {
        return Err(file.unsupported("a sparse extent of ESX (COWD)"));
    }
    if header.magic != MAGIC {
        return corrupt(0, "its signature is wrong");
    }
    let version = header.version.get();
    if !(1..=3).contains(&version) {
        return Err(file.unsupported(format_args!("version {version} of a sparse extent")));
    }
    let flags = header.flags.get();
    if flags & FLAG_NEWLINES != 0 && header.newline_test != NEWLINES {
        return corrupt(73, "its line ends were converted, so it was copied as a text");
    }
    let grain_size = header.grain_size.get();
    if !grain_size.is_power_of_two() || !GRAIN_SIZES.contains(&grain_size) {
        return corrupt(20, "its grain size is out of range");
    }
    if !TABLE_SIZES.contains(&header.num_gtes_per_gt.get()) {
        return corrupt(44, "the length of its grain tables is out of range");
    }
    if flags & FLAG_COMPRESSED != 0 {
        if header.compress_algorithm.get() != COMPRESSION_DEFLATE {
            return Err(file.unsupported(format_args!("compression algorithm {}", header.compress_algorithm.get())));
        }
        if flags & FLAG_MARKERS == 0 {
            return Err(file.unsupported("compressed grains without markers"));
        }
        if grain_size.saturating_mul(SECTOR) > MAX_CLUSTER {
            return corrupt(20, "its grain size is out of range");
        }
    }
    Ok(())
}

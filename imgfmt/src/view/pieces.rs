//! A file put together from pieces: bytes, tables that are computed from an index, gaps of zeros, and a disk.

use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::Result;

/// Bytes of the widest table entry.
const WIDEST: usize = 8;

/// Computes a table entry from its index; its first bytes count, as many as an entry has.
type Entry = Box<dyn Fn(u64) -> [u8; WIDEST] + Send + Sync>;

/// What a run of the file is.
enum Piece {
    Bytes(Vec<u8>),
    /// Entries of so many bytes, the first of index 0.
    Table(usize, Entry),
    Zero,
    /// The disk, from its byte 0 on.
    Disk,
}

/// A table of the file whose entries, of 8 bytes, can say that a unit of the disk is zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZeroMap {
    /// Where it lies in the file. Its first entry is of the disk's first unit.
    pub(super) start: u64,
    /// The bit of an entry that says so.
    pub(super) bit: [u8; WIDEST],
    /// Bytes of a unit.
    pub(super) unit: u64,
}

/// What a run of the file is to who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// A structure, or a gap where there may be one.
    Structure,
    /// A table that says where the disk lies.
    Table,
    /// A table that says that too, and which units of the disk are zero.
    ZeroMap,
    /// The disk.
    Disk,
    /// The zeros behind the disk, up to the next unit of the format.
    Padding,
}

/// A run of the file.
struct Part {
    start: u64,
    piece: Piece,
}

/// Puts a file together, front to back.
pub(super) struct Builder {
    disk: Arc<dyn Disk>,
    parts: Vec<Part>,
    end: u64,
    data: u64,
    zero_map: Option<ZeroMap>,
}

impl Builder {
    /// An empty file around `disk`.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, parts: Vec::new(), end: 0, data: 0, zero_map: None }
    }

    fn push(mut self, len: u64, piece: Piece) -> Self {
        if len > 0 {
            self.parts.push(Part { start: self.end, piece });
            self.end = self.end.saturating_add(len);
        }
        self
    }

    /// Adds bytes.
    pub(super) fn bytes(self, bytes: Vec<u8>) -> Self {
        self.push(buf_len(&bytes), Piece::Bytes(bytes))
    }

    /// Adds a table of `count` entries of `width` bytes, at most 8.
    pub(super) fn table(
        self,
        count: u64,
        width: usize,
        entry: impl Fn(u64) -> [u8; WIDEST] + Send + Sync + 'static,
    ) -> Self {
        let len = count.saturating_mul(u64::try_from(width).unwrap_or(0));
        self.push(len, Piece::Table(width, Box::new(entry)))
    }

    /// Adds such a table, whose entries can also have a bit that says that their unit of the disk is zero.
    pub(super) fn zero_map(
        mut self,
        count: u64,
        entry: impl Fn(u64) -> [u8; WIDEST] + Send + Sync + 'static,
        bit: [u8; WIDEST],
        unit: u64,
    ) -> Self {
        self.zero_map = Some(ZeroMap { start: self.end, bit, unit });
        self.table(count, WIDEST, entry)
    }

    /// Adds zeros up to a place in the file.
    pub(super) fn zeros_to(self, end: u64) -> Self {
        let len = end.saturating_sub(self.end);
        self.push(len, Piece::Zero)
    }

    /// Adds the disk.
    pub(super) fn disk(mut self) -> Self {
        self.data = self.end;
        let len = self.disk.len();
        self.push(len, Piece::Disk)
    }

    /// The file.
    pub(super) fn build(self) -> View {
        View { disk: self.disk, parts: self.parts, len: self.end, data: self.data, zero_map: self.zero_map }
    }
}

/// A virtual disk file that is computed as it is read.
///
/// As a [`Disk`] it is the bytes of that file: what is made up is Data, gaps are Zero, and where the disk lies its extents are those of the disk.
/// In memory are a few kilobytes, however long the disk is.
pub struct View {
    disk: Arc<dyn Disk>,
    /// Ascending, without gaps.
    parts: Vec<Part>,
    len: u64,
    data: u64,
    zero_map: Option<ZeroMap>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("len", &self.len).field("data", &self.data).finish_non_exhaustive()
    }
}

impl View {
    /// The disk in it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where byte 0 of the disk lies in the file. Its other bytes follow in order.
    pub fn data_offset(&self) -> u64 {
        self.data
    }

    /// The table that can call parts of the disk zero.
    pub(super) fn zero_map(&self) -> Option<ZeroMap> {
        self.zero_map
    }

    /// Says whether it has nothing around the disk.
    pub(super) fn is_disk_alone(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.piece, Piece::Disk))
            || (self.data == 0 && self.padded_end() == self.len && self.disk_end() > 0)
    }

    fn disk_end(&self) -> u64 {
        match self.parts.iter().any(|part| matches!(part.piece, Piece::Disk)) {
            true => self.data.saturating_add(self.disk.len()),
            false => 0,
        }
    }

    /// First byte behind the disk and the zeros that belong to it; 0 where the file has no disk in it.
    pub(super) fn padded_end(&self) -> u64 {
        let end = self.disk_end();
        let is_padding = |part: &&Part| part.start == end && end > 0 && matches!(part.piece, Piece::Zero);
        match self.parts.iter().find(is_padding) {
            Some(_) => self.parts.iter().map(|part| part.start).find(|start| *start > end).unwrap_or(self.len),
            None => end,
        }
    }

    /// What a byte of the file is to who writes, and the first byte behind it that may be something else.
    pub(super) fn run_at(&self, offset: u64) -> (Run, u64) {
        let (piece, start, end) = self.part_at(offset);
        let run = match piece {
            Piece::Disk => Run::Disk,
            Piece::Table(..) if self.zero_map.is_some_and(|map| map.start == start) => Run::ZeroMap,
            Piece::Table(..) => Run::Table,
            Piece::Zero if start == self.disk_end() => Run::Padding,
            Piece::Bytes(_) | Piece::Zero => Run::Structure,
        };
        (run, end)
    }

    /// The piece that holds a byte of the file, with its first byte and the first one behind it.
    fn part_at(&self, offset: u64) -> (&Piece, u64, u64) {
        let next = self.parts.partition_point(|part| part.start <= offset);
        let end = self.parts.get(next).map_or(self.len, |part| part.start);
        let part = next.checked_sub(1).and_then(|at| self.parts.get(at)).expect("the offset is in the file");
        (&part.piece, part.start, end)
    }
}

impl Disk for View {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (piece, start, end) = self.part_at(at);
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            let within = at.saturating_sub(start);
            match piece {
                Piece::Zero => part.fill(0),
                Piece::Disk => self.disk.read_at(part, within)?,
                Piece::Bytes(bytes) => {
                    let from = usize::try_from(within).expect("it lies in a vector");
                    part.copy_from_slice(bytes.get(from..from.saturating_add(len)).expect("it ends with the piece"));
                }
                Piece::Table(width, entry) => fill(part, within, *width, entry),
            }
            at = at.saturating_add(buf_len(part));
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let (piece, start, end) = self.part_at(offset);
        let most = end.saturating_sub(offset);
        let (len, kind) = match piece {
            Piece::Bytes(_) | Piece::Table(..) => (most, ExtentKind::Data),
            Piece::Zero => (most, ExtentKind::Zero),
            Piece::Disk => {
                let extent = self.disk.extent_at(offset.saturating_sub(start))?;
                (extent.len.min(most), extent.kind)
            }
        };
        Ok(Extent { offset, len, kind })
    }
}

/// Fills `buf` with a table's bytes from byte `at` of it on.
fn fill(buf: &mut [u8], at: u64, width: usize, entry: &Entry) {
    let wide = u64::try_from(width).unwrap_or(1).max(1);
    let mut index = at.checked_div(wide).unwrap_or(0);
    let mut skip = usize::try_from(at.checked_rem(wide).unwrap_or(0)).unwrap_or(0);
    let mut rest = buf;
    while !rest.is_empty() {
        let bytes = entry(index);
        let bytes = bytes.get(skip..width).unwrap_or_default();
        let len = bytes.len().min(rest.len());
        let (part, after) = rest.split_at_mut(len);
        part.copy_from_slice(bytes.get(..len).unwrap_or_default());
        (rest, skip, index) = (after, 0, index.saturating_add(1));
    }
}

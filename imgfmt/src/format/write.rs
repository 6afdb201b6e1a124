//! What writers of image files share: a disk in units that are read, tested for zeros and encoded on all cores and placed in order, and tables that are
//! written as they fill.

use flate2::{Compress, Compression, FlushCompress, Status};
use zstd_safe::{CCtx, CParameter};

use crate::disk::{Disk, Extent, ExtentKind, Extents};
use crate::engine::{Run, run_ordered};
use crate::error::Result;
use crate::target::NewFile;
use crate::target::copy::{Copied, fill_bad};

/// Bytes of the disk that a worker takes at once; a multiple of every unit.
const PIECE: u64 = 1 << 20;
/// Bytes of a table that are kept until they are written.
const PAGE: usize = 64 << 10;
/// The same.
const PAGE_LEN: u64 = 64 << 10;
/// Level of zstd: more costs several times the time for a few per cent.
const ZSTD_LEVEL: i32 = 3;

/// How units are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    /// Deflate without a frame (RFC 1951), with matches over at most 4 KiB: what QEMU's decoder is set up for.
    ShortDeflate,
    /// Deflate in a zlib frame (RFC 1950), even where that makes a unit longer.
    Zlib,
    /// A Zstandard frame (RFC 8878).
    Zstd,
}

/// Units of a disk of which one byte at least is not zero.
pub(crate) struct Unit {
    /// First byte in the disk; a multiple of the unit's length.
    pub(crate) offset: u64,
    /// Several whole units, as they are, padded with zeros at the end of the disk; or one that was encoded.
    pub(crate) bytes: Vec<u8>,
    /// Whether it was encoded: not where that would have made it no shorter.
    pub(crate) encoded: bool,
}

/// The compressors of one worker.
#[derive(Default)]
struct Tool {
    deflate: Option<Compress>,
    zstd: Option<CCtx<'static>>,
}

impl Tool {
    /// Encodes a unit; `None` where it is better left as it is.
    fn encode(&mut self, encoding: Encoding, unit: &[u8]) -> Option<Vec<u8>> {
        let room = if encoding == Encoding::Zlib { unit.len() / 16 } else { 0 };
        let mut out = vec![0; unit.len().saturating_add(room)];
        let len = match encoding {
            Encoding::Plain => return None,
            Encoding::Zstd => {
                let zstd = self.zstd.get_or_insert_with(|| {
                    let mut zstd = CCtx::create();
                    // A level that exists cannot be refused.
                    let _ = zstd.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL));
                    zstd
                });
                zstd.compress2(out.as_mut_slice(), unit).ok()?
            }
            Encoding::ShortDeflate | Encoding::Zlib => {
                let framed = encoding == Encoding::Zlib;
                let deflate = self.deflate.get_or_insert_with(|| {
                    Compress::new_with_window_bits(Compression::default(), framed, if framed { 15 } else { 12 })
                });
                deflate.reset();
                let status = deflate.compress(unit, &mut out, FlushCompress::Finish).ok()?;
                (status == Status::StreamEnd).then(|| usize::try_from(deflate.total_out()).ok())??
            }
        };
        out.truncate(len);
        (encoding == Encoding::Zlib || len < unit.len()).then_some(out)
    }
}

/// The extents of a disk by pieces; pieces without data are passed over.
struct Pieces<'a> {
    disk: &'a dyn Disk,
    extents: Extents<'a>,
    at: u64,
}

impl Pieces<'_> {
    /// The extents of the next job: one piece that holds data, and what lies before it.
    fn next(&mut self) -> Result<Option<Vec<Extent>>> {
        let mut job: Vec<Extent> = Vec::new();
        let mut has_data = false;
        while self.at < self.disk.len() {
            let extent = self.extents.rest_at(self.at)?;
            let is_data = matches!(extent.kind, ExtentKind::Data | ExtentKind::Bad);
            let piece_end = (self.at / PIECE).saturating_add(1).saturating_mul(PIECE);
            if is_data && !has_data && job.first().is_some_and(|first| first.offset < piece_of(self.at)) {
                // What was passed over lies in other pieces.
                break;
            }
            has_data = has_data || is_data;
            let end = if has_data { extent.end().min(piece_end) } else { extent.end() };
            job.push(Extent { offset: self.at, len: end.saturating_sub(self.at), kind: extent.kind });
            self.at = end;
            if has_data && end == piece_end {
                break;
            }
        }
        Ok(if job.is_empty() { None } else { Some(job) })
    }
}

/// Reads a disk in units of `unit` bytes (a power of two up to 1 MiB) and hands those that are not all zeros to `sink`, in the order of the disk.
pub(crate) fn write_units(
    disk: &dyn Disk,
    unit: u64,
    encoding: Encoding,
    run: Run<'_>,
    mut sink: impl FnMut(Unit) -> Result<()>,
) -> Result<Copied> {
    let unit_len = usize::try_from(unit).expect("at most 1 MiB");
    let mut pieces = Pieces { disk, extents: Extents::new(disk), at: 0 };
    let mut copied = Copied::default();
    run_ordered(
        run,
        || pieces.next(),
        Tool::default,
        |tool: &mut Tool, job: Vec<Extent>| {
            let bytes = read_piece(disk, &job)?;
            let start = bytes.0;
            let units = cut(tool, start, &bytes.1, unit_len, encoding);
            Ok((job, units))
        },
        |(job, units)| {
            for unit in units {
                sink(unit)?;
            }
            for extent in job {
                run.progress.advance(extent.len);
                copied.add(extent);
            }
            Ok(())
        },
    )?;
    Ok(copied)
}

/// First byte of the piece that a byte lies in.
fn piece_of(offset: u64) -> u64 {
    offset.saturating_sub(offset % PIECE)
}

/// The bytes of the piece in which a job's data lie, and the first byte of it; none where there are no data.
fn read_piece(disk: &dyn Disk, job: &[Extent]) -> Result<(u64, Vec<u8>)> {
    let data = || job.iter().filter(|extent| matches!(extent.kind, ExtentKind::Data | ExtentKind::Bad));
    let (Some(first), Some(last)) = (data().next(), data().next_back()) else { return Ok((0, Vec::new())) };
    let start = piece_of(first.offset);
    let within = |offset: u64| usize::try_from(offset.saturating_sub(start)).expect("a piece is small");
    let mut bytes = vec![0; within(last.end())];
    for extent in data() {
        let part = bytes.get_mut(within(extent.offset)..within(extent.end())).expect("it ends with the last extent");
        match extent.kind {
            ExtentKind::Bad => fill_bad(part),
            _ => disk.read_at(part, extent.offset)?,
        }
    }
    Ok((start, bytes))
}

/// Cuts a piece into units, of which those without a byte that is not zero are left out.
fn cut(tool: &mut Tool, start: u64, bytes: &[u8], unit: usize, encoding: Encoding) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut at = start;
    let mut follows = false;
    for part in bytes.chunks(unit) {
        let offset = at;
        at = at.saturating_add(u64::try_from(unit).unwrap_or(u64::MAX));
        if part.iter().all(|byte| *byte == 0) {
            follows = false;
            continue;
        }
        let mut whole = part.to_vec();
        whole.resize(unit, 0);
        match (tool.encode(encoding, &whole), units.last_mut()) {
            (Some(bytes), _) => units.push(Unit { offset, bytes, encoded: true }),
            (None, Some(last)) if follows && encoding == Encoding::Plain => last.bytes.extend(whole),
            (None, _) => units.push(Unit { offset, bytes: whole, encoded: false }),
        }
        follows = true;
    }
    units
}

/// Where the blocks of a disk lie that are placed as their first byte comes.
pub(crate) struct Blocks {
    len: u64,
    current: Option<u64>,
    count: u64,
}

impl Blocks {
    /// Blocks of `len` bytes.
    pub(crate) fn new(len: u64) -> Self {
        Self { len, current: None, count: 0 }
    }

    /// Blocks that were placed.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Where a byte of the disk lies: the number of its block in the file, and the byte in it; and the number of the block in the disk where it is new in the
    /// file. Offsets must ascend.
    pub(crate) fn place(&mut self, offset: u64) -> (u64, u64, Option<u64>) {
        let block = offset.checked_div(self.len).unwrap_or(0);
        let within = offset.checked_rem(self.len).unwrap_or(0);
        let is_new = self.current != Some(block);
        if is_new {
            self.current = Some(block);
            self.count = self.count.saturating_add(1);
        }
        (self.count.saturating_sub(1), within, is_new.then_some(block))
    }
}

/// A table that is filled in ascending order and written in pages, so that it need not be in memory as a whole.
pub(crate) struct TableWriter {
    start: u64,
    /// What an entry is that is never set.
    unset: u8,
    page: Vec<u8>,
    /// Where the page lies in the table.
    page_at: u64,
    len: u64,
    is_dirty: bool,
}

impl TableWriter {
    /// A table of `len` bytes at `start`, whose bytes are `unset` until they are set.
    pub(crate) fn new(start: u64, len: u64, unset: u8) -> Self {
        Self { start, unset, page: vec![unset; PAGE], page_at: 0, len, is_dirty: false }
    }

    /// Sets the bytes at `at` of the table; they must not cross a multiple of their own length, and none before them may follow.
    pub(crate) fn set(&mut self, file: &NewFile, at: u64, bytes: &[u8]) -> Result<()> {
        let page = at.saturating_sub(at % PAGE_LEN);
        self.go_to(file, page)?;
        let within = usize::try_from(at.saturating_sub(page)).expect("less than a page");
        let place = self.page.get_mut(within..within.saturating_add(bytes.len()));
        place.expect("an entry does not cross a page").copy_from_slice(bytes);
        self.is_dirty = true;
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(&mut self, file: &NewFile) -> Result<()> {
        self.go_to(file, self.len.next_multiple_of(PAGE_LEN))
    }

    fn go_to(&mut self, file: &NewFile, page: u64) -> Result<()> {
        while self.page_at < page {
            if !self.is_dirty && self.unset == 0 {
                // The file is zero where nothing was written.
                self.page_at = page;
                break;
            }
            let len = usize::try_from(self.len.saturating_sub(self.page_at)).unwrap_or(usize::MAX).min(PAGE);
            file.write_at(self.page.get(..len).unwrap_or_default(), self.start.saturating_add(self.page_at))?;
            self.page_at = self.page_at.saturating_add(PAGE_LEN);
            if self.is_dirty {
                self.page.fill(self.unset);
                self.is_dirty = false;
            }
        }
        Ok(())
    }
}

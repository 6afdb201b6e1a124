//! System compression (CompactOS): the content is packed into the stream `WofCompressedData`, the unnamed stream is a hole.
//!
//! The stream is laid out as a compressed resource of a WIM file is: where each chunk but the first starts, then the chunks. A chunk that did
//! not shrink is stored as it is.

use std::ops::Range;

use crate::bytes::{le32, le64};
use crate::disk::{Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::filesystem::files::Content;
use crate::filesystem::ntfs::reparse::Packing;
use crate::filesystem::ntfs::units::Units;
use crate::filesystem::ntfs::{lzx, xpress};

/// The name of the stream.
pub(super) const STREAM: &str = "WofCompressedData";
/// Chunks that are read at once.
const BATCH: u64 = 64;

/// A packed file.
#[derive(Debug)]
pub(super) struct Wof {
    number: u64,
    packing: Packing,
    packed: Box<dyn Content>,
    len: u64,
    chunk_len: u64,
    chunks: u64,
    /// Bytes of an entry of the table of chunks.
    width: u64,
    /// Where the record lies that says how the stream is packed.
    records: Vec<Range<u64>>,
}

impl Wof {
    /// Opens the content, `len` bytes of it, of file `number` from its packed stream.
    pub(super) fn open(
        number: u64,
        packing: Packing,
        packed: Box<dyn Content>,
        len: u64,
        records: Vec<Range<u64>>,
    ) -> Result<Self> {
        let chunk_len = match packing {
            Packing::Xpress(chunk) => chunk,
            Packing::Lzx => lzx::MAX_CHUNK,
        };
        let chunk_len = u64::try_from(chunk_len).expect("at most 32 KiB");
        let chunks = len.div_ceil(chunk_len.max(1));
        let width = if u32::try_from(len).is_ok() { 4 } else { 8 };
        let wof = Self { number, packing, packed, len, chunk_len, chunks, width, records };
        if wof.table_len() > wof.packed.len() {
            return Err(wof.corrupt("its table of chunks is cut short"));
        }
        Ok(wof)
    }

    fn corrupt(&self, reason: &'static str) -> Error {
        let offset = self.packed.places().and_then(|places| places.first().map(|place| place.start));
        let what = format!("system-compressed data of NTFS MFT record {}", self.number);
        Error::corrupt(what, offset.unwrap_or(0), reason)
    }

    fn table_len(&self) -> u64 {
        self.chunks.saturating_sub(1).saturating_mul(self.width)
    }

    /// Where chunks `first` to `first + count` start, and where the last of them ends, in bytes behind the table.
    fn borders(&self, first: u64, count: u64) -> Result<Vec<u64>> {
        let end = first.saturating_add(count);
        // The table leaves the first chunk out: its entry 0 is of chunk 1. The end of the last chunk is that of the stream.
        let entries = first.max(1)..end.saturating_add(1).min(self.chunks);
        let mut borders = Vec::new();
        if first == 0 {
            borders.push(0);
        }
        if entries.start < entries.end {
            let len = entries.end.saturating_sub(entries.start).saturating_mul(self.width);
            let mut table = vec![0; usize::try_from(len).expect("a batch of entries")];
            self.packed.read_at(&mut table, entries.start.saturating_sub(1).saturating_mul(self.width))?;
            let width = usize::try_from(self.width).expect("4 or 8");
            borders.extend(
                table.chunks_exact(width).filter_map(|entry| le64(entry, 0).or_else(|| le32(entry, 0).map(u64::from))),
            );
        }
        let all = self.packed.len().saturating_sub(self.table_len());
        if end == self.chunks {
            borders.push(all);
        }
        if borders.is_sorted() && borders.last().is_some_and(|last| *last <= all) {
            return Ok(borders);
        }
        Err(self.corrupt("its table of chunks is not in order"))
    }

    /// Unpacks at most a batch of chunks.
    fn unpack_batch(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let chunk_len = usize::try_from(self.chunk_len).expect("at most 32 KiB");
        let count = u64::try_from(out.chunks(chunk_len).len()).expect("at most a batch");
        let borders = self.borders(first, count)?;
        let start = borders.first().copied().unwrap_or(0);
        let len = borders.last().copied().unwrap_or(0).saturating_sub(start);
        // No chunk is longer than what it holds; checked here for all of them, below for each.
        let len = usize::try_from(len).ok().filter(|len| *len <= out.len());
        let len = len.ok_or_else(|| self.corrupt("a chunk is longer than what it holds"))?;
        let mut packed = vec![0; len];
        self.packed.read_at(&mut packed, self.table_len().saturating_add(start))?;
        let mut rest = &packed[..];
        for (out, border) in out.chunks_mut(chunk_len).zip(borders.windows(2)) {
            let len = usize::try_from(border[1].saturating_sub(border[0])).unwrap_or(usize::MAX);
            let (chunk, later) = rest.split_at_checked(len).ok_or_else(|| self.corrupt("a chunk is missing"))?;
            rest = later;
            if chunk.len() >= out.len() {
                if chunk.len() > out.len() {
                    return Err(self.corrupt("a chunk is longer than what it holds"));
                }
                out.copy_from_slice(chunk);
                continue;
            }
            let unpacked = match self.packing {
                Packing::Xpress(_) => xpress::decompress(chunk, out),
                Packing::Lzx => lzx::decompress(chunk, out),
            };
            unpacked.map_err(|reason| self.corrupt(reason))?;
        }
        Ok(())
    }
}

impl Units for Wof {
    fn len(&self) -> u64 {
        self.len
    }

    fn unit_len(&self) -> usize {
        usize::try_from(self.chunk_len).expect("at most 32 KiB")
    }

    fn unpack(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let batch_len = self.chunk_len.saturating_mul(BATCH);
        let batch_len = usize::try_from(batch_len).expect("at most 2 MiB");
        for (first, out) in
            (first..).step_by(usize::try_from(BATCH).expect("sixty-four")).zip(out.chunks_mut(batch_len))
        {
            self.unpack_batch(first, out)?;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }

    fn places(&self) -> Vec<Range<u64>> {
        let mut places = self.records.clone();
        places.extend(self.packed.places().unwrap_or_default());
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::check_range;

    const CHUNK: u64 = 32 << 10;

    /// A packed stream of more than 4 GiB: a table of entries of 8 bytes, and chunks that did not shrink, each filled with its number.
    #[derive(Debug)]
    struct Huge {
        chunks: u64,
    }

    impl Huge {
        fn table_len(&self) -> u64 {
            (self.chunks - 1) * 8
        }
    }

    impl Content for Huge {
        fn len(&self) -> u64 {
            self.table_len() + self.chunks * CHUNK
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            check_range(offset, u64::try_from(buf.len()).unwrap(), self.len())?;
            for (at, byte) in (offset..).zip(buf) {
                *byte = match at.checked_sub(self.table_len()) {
                    Some(data) => u8::try_from(data / CHUNK % 251).unwrap(),
                    None => ((at / 8 + 1) * CHUNK).to_le_bytes()[usize::try_from(at % 8).unwrap()],
                };
            }
            Ok(())
        }
        fn extent_at(&self, offset: u64) -> Result<Extent> {
            Ok(Extent { offset, len: 1, kind: ExtentKind::Data })
        }
        fn places(&self) -> Option<Vec<Range<u64>>> {
            None
        }
    }

    #[test]
    fn files_of_4_gib_have_tables_of_wide_entries() {
        let chunks = (5 << 30) / CHUNK;
        let wof = Wof::open(1, Packing::Lzx, Box::new(Huge { chunks }), chunks * CHUNK, Vec::new()).unwrap();
        for first in [0, 1, 63, 64, 131_071, chunks - 3] {
            let mut out = vec![0; 3 * 32768];
            wof.unpack(first, &mut out).unwrap();
            for (number, chunk) in (first..).zip(out.chunks(32768)) {
                assert!(chunk.iter().all(|byte| u64::from(*byte) == number % 251), "chunk {number}");
            }
        }
        // The same as a file of less than 4 GiB reads its table as one of narrow entries, and refuses it.
        let wof = Wof::open(1, Packing::Lzx, Box::new(Huge { chunks }), CHUNK * 100, Vec::new()).unwrap();
        assert!(wof.unpack(0, &mut vec![0; 3 * 32768]).is_err());
        assert!(Wof::open(1, Packing::Lzx, Box::new(Huge { chunks: 2 }), CHUNK * 100_000, Vec::new()).is_err());
    }
}

//! A file with the changes of its log over it, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::Result;

/// What a change puts into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Zeros.
    Zero,
    /// A sector of 4096 bytes: its first 8 bytes, the bytes between from a sector of the log, its last 4 bytes.
    Sector {
        /// First eight bytes.
        leading: [u8; 8],
        /// Where the log's sector lies in the file; its bytes 8 to 4091 are meant.
        data_at: u64,
        /// Last four bytes.
        trailing: [u8; 4],
    },
}

/// Ranges of the file that are changed: by first byte, with the byte after the last. They never overlap.
#[derive(Debug, Default)]
pub(super) struct Changes {
    ranges: BTreeMap<u64, (u64, Change)>,
    /// Bytes that the file must have.
    len: u64,
}

impl Changes {
    /// Puts a change over all earlier ones.
    pub(super) fn put(&mut self, start: u64, end: u64, change: Change) {
        self.split_at(start);
        self.split_at(end);
        let covered: Vec<u64> = self.ranges.range(start..end).map(|(start, _)| *start).collect();
        for at in covered {
            self.ranges.remove(&at);
        }
        self.ranges.insert(start, (end, change));
    }

    /// Makes sure that no range reaches over `at`. Sectors are as aligned as all borders are, so only zeros are ever split.
    fn split_at(&mut self, at: u64) {
        let before = self.ranges.range(..at).next_back().map(|(start, range)| (*start, *range));
        if let Some((start, (end, change))) = before
            && end > at
        {
            self.ranges.insert(start, (at, change));
            self.ranges.insert(at, (end, change));
        }
    }

    /// Lets the file have at least `len` bytes.
    pub(super) fn lengthen(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Ranges in it.
    pub(super) fn count(&self) -> usize {
        self.ranges.len()
    }
}

/// The file as it would be after its log was replayed.
pub(super) struct Replayed {
    file: Arc<dyn Disk>,
    changes: Changes,
}

impl Replayed {
    /// Shows `file` with `changes` over it.
    pub(super) fn new(file: Arc<dyn Disk>, changes: Changes) -> Self {
        Self { file, changes }
    }

    /// The change at a byte, with its range; else the end of the unchanged run.
    fn at(&self, offset: u64) -> Result<(u64, u64, Change), u64> {
        let ranges = &self.changes.ranges;
        match ranges.range(..=offset).next_back() {
            Some((start, (end, change))) if *end > offset => Ok((*start, *end, *change)),
            _ => Err(ranges.range(offset..).next().map_or(u64::MAX, |(start, _)| *start)),
        }
    }

    /// Reads what the log does not change, and zeros past the end of the file.
    fn read_file(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = usize::try_from(self.file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, past) = buf.split_at_mut(inside.min(buf.len()));
        past.fill(0);
        if inside.is_empty() { Ok(()) } else { self.file.read_at(inside, offset) }
    }
}

impl Disk for Replayed {
    fn len(&self) -> u64 {
        self.file.len().max(self.changes.len)
    }

    fn sector_size(&self) -> u32 {
        self.file.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let found = self.at(at);
            let end = match found {
                Ok((_, end, _)) | Err(end) => end,
            };
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            match found {
                Err(_) => self.read_file(part, at)?,
                Ok((_, _, Change::Zero)) => part.fill(0),
                Ok((start, _, Change::Sector { leading, data_at, trailing })) => {
                    let mut sector = [0; 4096];
                    self.file.read_at(&mut sector, data_at)?;
                    sector[..8].copy_from_slice(&leading);
                    sector[4092..].copy_from_slice(&trailing);
                    let within = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
                    let wanted = sector.get(within..within.saturating_add(part.len()));
                    part.copy_from_slice(wanted.expect("the part lies in the sector"));
                }
            }
            at = at.saturating_add(buf_len(part));
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let (end, kind) = match self.at(offset) {
            Ok((_, end, Change::Zero)) => (end, ExtentKind::Zero),
            Ok((_, end, Change::Sector { .. })) => (end, ExtentKind::Data),
            Err(end) if offset >= self.file.len() => (end, ExtentKind::Zero),
            Err(end) => {
                let below = self.file.extent_at(offset)?;
                (end.min(below.end()), below.kind)
            }
        };
        Ok(Extent { offset, len: end.min(self.len()).saturating_sub(offset), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn later_changes_lie_over_earlier_ones() {
        let bytes: Vec<u8> = (0..40_960_u32).map(|n| (n / 7 % 256) as u8).collect();
        let mut model = bytes.clone();
        let mut changes = Changes::default();
        let sector = Change::Sector { leading: [1; 8], data_at: 4096, trailing: [2; 4] };
        let mut expected = bytes[4096..8192].to_vec();
        expected[..8].fill(1);
        expected[4092..].fill(2);
        for (start, end, change) in [
            (8192, 32768, Change::Zero),
            (12288, 16384, sector),
            (4096, 12288, Change::Zero),
            (20480, 24576, sector),
            (20480, 24576, Change::Zero),
            (36864, 40960, sector),
        ] {
            changes.put(start, end, change);
            let part = &mut model[start as usize..end as usize];
            if change == Change::Zero { part.fill(0) } else { part.copy_from_slice(&expected) }
        }
        changes.lengthen(50_000);
        model.resize(50_000, 0);
        let replayed = Replayed::new(Arc::new(MemoryDisk::new(bytes)), changes);
        assert_eq!(replayed.len(), 50_000);
        for (offset, len) in [(0, 50_000), (4000, 200), (12_290, 1), (16_380, 8), (40_950, 20), (49_999, 1)] {
            let mut buf = vec![9; len];
            replayed.read_at(&mut buf, offset).unwrap();
            assert!(buf == model[offset as usize..][..len], "{len} bytes at {offset}");
        }
        let mut at = 0;
        while at < 50_000 {
            let extent = replayed.extent_at(at).unwrap();
            if extent.kind != ExtentKind::Data {
                assert!(model[at as usize..extent.end() as usize].iter().all(|byte| *byte == 0));
            }
            at = extent.end();
        }
    }
}

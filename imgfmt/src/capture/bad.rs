//! Reading a source that may have unreadable sectors.

use std::ops::Range;

use crate::disk::{Disk, buf_len};
use crate::error::{Error, Result};

/// Times that an unreadable sector is read again before it is given up.
pub const RETRIES: u32 = 2;

/// Fills `buf` from `offset`; sectors that cannot be read are zero and their ranges (bytes of the disk, whole sectors, ascending) are appended to `bad`.
///
/// Fails where the error is not one of the medium: a device that is gone is no bad sector.
pub fn read_tolerant(disk: &dyn Disk, buf: &mut [u8], offset: u64, bad: &mut Vec<Range<u64>>) -> Result<()> {
    match disk.read_at(buf, offset) {
        Ok(()) => Ok(()),
        Err(error) if error.is_unreadable_medium() => split(disk, buf, offset, bad, error),
        Err(error) => Err(error),
    }
}

/// Halves a range that cannot be read at sector borders until the unreadable sectors are alone.
fn split(disk: &dyn Disk, buf: &mut [u8], offset: u64, bad: &mut Vec<Range<u64>>, error: Error) -> Result<()> {
    let sector = u64::from(disk.sector_size());
    let end = offset.saturating_add(buf_len(buf));
    let first = offset.checked_div(sector).unwrap_or(0);
    let last = end.div_ceil(sector);
    if last.saturating_sub(first) <= 1 {
        for _ in 0..RETRIES {
            match disk.read_at(buf, offset) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_unreadable_medium() => {}
                Err(error) => return Err(error),
            }
        }
        still_there(disk, error)?;
        buf.fill(0);
        match bad.last_mut() {
            Some(range) if range.end == offset => range.end = end,
            _ => bad.push(offset..end),
        }
        return Ok(());
    }
    let middle = first.midpoint(last).saturating_mul(sector);
    let at = usize::try_from(middle.saturating_sub(offset)).expect("the middle lies in the buffer");
    let (low, high) = buf.split_at_mut(at);
    // The depth is the logarithm of the sectors in a buffer: at most a dozen.
    read_tolerant(disk, low, offset, bad)?;
    read_tolerant(disk, high, middle, bad)
}

/// A device that was pulled answers every read with an I/O error: then nothing more is to be had, and nothing is "bad".
///
/// It counts as there when any of a few sectors over the whole disk can be read.
pub(super) fn still_there(disk: &dyn Disk, error: Error) -> Result<()> {
    let sector = u64::from(disk.sector_size()).min(disk.len());
    let mut buf = vec![0; usize::try_from(sector).expect("a sector is small")];
    let steps = 16_u64;
    let last = disk.len().saturating_sub(sector);
    for step in 0..=steps {
        let at = last.checked_div(steps).unwrap_or(0).saturating_mul(step).checked_div(sector).unwrap_or(0);
        if disk.read_at(&mut buf, at.saturating_mul(sector)).is_ok() {
            return Ok(());
        }
    }
    Err(error)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::disk::{Extent, MemoryDisk};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A disk some of whose sectors cannot be read.
    pub(crate) struct BadDisk {
        pub(crate) inner: MemoryDisk,
        pub(crate) bad: Vec<Range<u64>>,
        pub(crate) failed_reads: AtomicU64,
    }

    impl Disk for BadDisk {
        fn len(&self) -> u64 {
            self.inner.len()
        }
        fn sector_size(&self) -> u32 {
            self.inner.sector_size()
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let end = offset + buf_len(buf);
            if self.bad.iter().any(|bad| bad.start < end && offset < bad.end) {
                self.failed_reads.fetch_add(1, Ordering::Relaxed);
                return Err(Error::io(
                    "read",
                    "bad disk",
                    std::io::Error::from_raw_os_error(crate::error::UNREADABLE_SECTOR),
                ));
            }
            self.inner.read_at(buf, offset)
        }
        fn extent_at(&self, offset: u64) -> Result<Extent> {
            self.inner.extent_at(offset)
        }
    }

    #[test]
    fn every_readable_sector_is_read_and_no_other() {
        let bytes: Vec<u8> = (0..65536_u32).map(|n| (n % 251) as u8 + 1).collect();
        let disk = BadDisk {
            inner: MemoryDisk::new(bytes.clone()),
            bad: vec![512..1024, 5000..5001, 40960..45056],
            failed_reads: AtomicU64::default(),
        };
        let (mut buf, mut bad) = (vec![0; 65536], Vec::new());
        read_tolerant(&disk, &mut buf, 0, &mut bad).unwrap();
        assert_eq!(bad, vec![512..1024, 4608..5120, 40960..45056]);
        for (at, byte) in bytes.iter().enumerate() {
            let is_bad = bad.iter().any(|range| range.contains(&(at as u64)));
            assert_eq!(buf[at], if is_bad { 0 } else { *byte }, "byte {at}");
        }
    }

    #[test]
    fn a_disk_that_is_gone_is_no_bad_sector() {
        let disk =
            BadDisk { inner: MemoryDisk::new(vec![1; 65536]), bad: vec![0..65536], failed_reads: AtomicU64::default() };
        assert!(read_tolerant(&disk, &mut vec![0; 4096], 0, &mut Vec::new()).is_err());
    }
}

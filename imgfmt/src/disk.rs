//! The core type: a disk is bytes at offsets, with a length, a sector size and a map of extents.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What a run of a disk is. The four are never confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExtentKind {
    /// Bytes to be read.
    Data,
    /// Known to be zero.
    Zero,
    /// This layer is silent and its base decides; without a base it reads as zero and nobody wants it.
    Absent,
    /// Unreadable at the source; reading it is [`Error::Bad`].
    Bad,
}

/// A run of a disk of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte of the run.
    pub offset: u64,
    /// Bytes in the run; never 0.
    pub len: u64,
    /// What the run is.
    pub kind: ExtentKind,
}

impl Extent {
    /// First byte after the run.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Bytes at offsets: a device, a raw file, a partition, a generation of an image.
pub trait Disk: Send + Sync {
    /// Length in bytes; constant for the life of the value. Need not be a multiple of the sector size.
    fn len(&self) -> u64;

    /// Logical sector size in bytes: 512 or 4096. Every export repeats it.
    fn sector_size(&self) -> u32;

    /// Fills all of `buf` from `offset`, or fails. Any offset and length inside the disk are allowed, whatever the
    /// sector size. Absent and Zero runs read as zero; a Bad run is [`Error::Bad`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Returns the extent that starts exactly at `offset` (which must be below [`Disk::len`]). It is never empty, never
    /// reaches past the end of the disk, and may end before its kind does.
    fn extent_at(&self, offset: u64) -> Result<Extent>;
}

/// A disk that can also be written: an overlay, a device opened for a restore.
///
/// Writes may come from any number of threads; two that overlap at the same moment leave either's bytes. Ranges must lie inside the disk.
pub trait WritableDisk: Disk {
    /// Writes all of `bytes` at `offset`, or fails. After a failure the range may hold old bytes, new bytes, or both.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Makes a range read as zero.
    fn zero_at(&self, offset: u64, len: u64) -> Result<()>;

    /// Says that nobody wants the bytes of a range any more. What it reads as afterwards is not defined.
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Returns once everything that was written before is durable.
    fn flush(&self) -> Result<()>;
}

/// Fails unless `len` bytes from `offset` lie inside a disk of `disk_len` bytes. Returns the end of the range.
pub fn check_range(offset: u64, len: u64, disk_len: u64) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= disk_len => Ok(end),
        end => Err(Error::OutOfRange { offset, end: end.unwrap_or(u64::MAX), len: disk_len }),
    }
}

/// The length of a buffer as a disk length. Lossless: no supported machine has a `usize` wider than 64 bits.
pub fn buf_len(buf: &[u8]) -> u64 {
    u64::try_from(buf.len()).expect("usize is at most 64 bits")
}

/// Reads `len` bytes at `offset` into a new vector. `len` must come from a constant or a validated field.
pub fn read_vec(disk: &dyn Disk, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0; len];
    disk.read_at(&mut buf, offset)?;
    Ok(buf)
}

impl<T: Disk + ?Sized> Disk for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        (**self).extent_at(offset)
    }
}

impl<T: Disk + ?Sized> Disk for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        (**self).extent_at(offset)
    }
}

impl<T: WritableDisk + ?Sized> WritableDisk for Arc<T> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        (**self).write_at(bytes, offset)
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        (**self).zero_at(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        (**self).discard(offset, len)
    }
    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
}

/// The map of a disk for who goes through it: the disk is asked once for each extent, however many pieces that is taken in.
pub(crate) struct Extents<'a> {
    disk: &'a dyn Disk,
    last: Option<Extent>,
}

impl<'a> Extents<'a> {
    /// The map of `disk`.
    pub(crate) fn new(disk: &'a dyn Disk) -> Self {
        Self { disk, last: None }
    }

    /// The rest, from `offset` on, of the extent that holds it; never empty. `offset` must be below the disk's length.
    pub(crate) fn rest_at(&mut self, offset: u64) -> Result<Extent> {
        let extent = match self.last {
            Some(extent) if extent.offset <= offset && offset < extent.end() => extent,
            _ => self.disk.extent_at(offset)?,
        };
        if extent.end() <= offset {
            return Err(Error::corrupt("extent map", offset, "an extent is empty"));
        }
        self.last = Some(extent);
        Ok(Extent { offset, len: extent.end().saturating_sub(offset), ..extent })
    }
}

/// A part of a disk seen as a disk of its own: a partition.
#[derive(Clone, Debug)]
pub struct Slice<D> {
    inner: D,
    start: u64,
    len: u64,
}

impl<D: Disk> Slice<D> {
    /// Shows `range` (in bytes of `inner`) as a disk that starts at 0. Fails where the range leaves `inner`.
    pub fn open(inner: D, range: Range<u64>) -> Result<Self> {
        let len = range.end.saturating_sub(range.start);
        check_range(range.start, len, inner.len())?;
        Ok(Self { inner, start: range.start, len })
    }

    /// First byte of the slice in the disk below.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl<D: Disk> Disk for Slice<D> {
    fn len(&self) -> u64 {
        self.len
    }
    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        self.inner.read_at(buf, self.start.saturating_add(offset))
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let below = self.inner.extent_at(self.start.saturating_add(offset))?;
        Ok(Extent { offset, len: below.len.min(self.len.saturating_sub(offset)), kind: below.kind })
    }
}

impl<D: WritableDisk> WritableDisk for Slice<D> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(bytes), self.len)?;
        self.inner.write_at(bytes, self.start.saturating_add(offset))
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len, self.len)?;
        self.inner.zero_at(self.start.saturating_add(offset), len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len, self.len)?;
        self.inner.discard(self.start.saturating_add(offset), len)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

/// A disk in memory, all Data: for tests, and for small structures that are parsed as disks.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    sector_size: u32,
}

impl MemoryDisk {
    /// Holds `bytes` as a disk of 512-byte sectors.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, sector_size: 512 }
    }

    /// Holds `bytes` as a disk with the given logical sector size (512 or 4096).
    pub fn with_sector_size(bytes: Vec<u8>, sector_size: u32) -> Self {
        Self { bytes, sector_size }
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> u64 {
        buf_len(&self.bytes)
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let start = usize::try_from(offset).expect("checked by check_range");
        let end = start.saturating_add(buf.len());
        buf.copy_from_slice(self.bytes.get(start..end).expect("checked by check_range"));
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        Ok(Extent { offset, len: self.len().saturating_sub(offset), kind: ExtentKind::Data })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Extents of 100 bytes; from byte 300 on the map is broken.
    struct Mapped(AtomicUsize);

    impl Disk for Mapped {
        fn len(&self) -> u64 {
            400
        }
        fn sector_size(&self) -> u32 {
            512
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
            panic!("only the map is asked for")
        }
        fn extent_at(&self, offset: u64) -> Result<Extent> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let len = if offset < 300 { 100 - offset % 100 } else { 0 };
            Ok(Extent { offset, len, kind: ExtentKind::Zero })
        }
    }

    #[test]
    fn who_goes_through_a_map_asks_once_for_each_extent_and_hears_of_an_empty_one() {
        let disk = Mapped(AtomicUsize::new(0));
        let mut extents = Extents::new(&disk);
        for (offset, len, asked) in [(0, 100, 1), (30, 70, 1), (99, 1, 1), (120, 80, 2), (150, 50, 2), (10, 90, 3)] {
            assert_eq!(extents.rest_at(offset).unwrap(), Extent { offset, len, kind: ExtentKind::Zero });
            assert_eq!(disk.0.load(Ordering::Relaxed), asked);
        }
        assert!(matches!(extents.rest_at(300), Err(Error::Corrupt { .. })));
    }
}

//! A disk that is read ahead.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::disk::{Disk, Extent, buf_len, check_range};
use crate::error::Result;
use crate::filesystem::files::Content;
use crate::readahead::{OpenFile, Readahead};

/// Shows a disk that never changes, and decodes ahead of whoever reads it in sequence.
pub struct ReadaheadDisk {
    readahead: Arc<Readahead>,
    disk: Arc<dyn Disk>,
    file: Arc<OpenFile>,
    /// Reads that are under way.
    readers: AtomicUsize,
}

/// A disk as the content of a file.
struct Unchanging(Arc<dyn Disk>);

impl fmt::Debug for Unchanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unchanging").field("len", &self.0.len()).finish()
    }
}

impl Content for Unchanging {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl fmt::Debug for ReadaheadDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadaheadDisk").field("file", &self.file).finish_non_exhaustive()
    }
}

impl ReadaheadDisk {
    /// Shows `disk` through `readahead`, which must have no other files than such disks.
    pub fn new(readahead: &Arc<Readahead>, disk: Arc<dyn Disk>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = readahead.file(number, Box::new(Unchanging(Arc::clone(&disk))));
        Self { readahead: Arc::clone(readahead), disk, file, readers: AtomicUsize::new(0) }
    }
}

/// One of the reads that are under way.
struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Disk for ReadaheadDisk {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let readers = self.readers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let _reading = Reading(&self.readers);
        self.readahead.fill(&self.file, buf, offset, readers)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

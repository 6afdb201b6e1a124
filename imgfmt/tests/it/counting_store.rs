//! Packs in memory whose reads are counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imgfmt::Result;
use imgfmt::image::PackStore;
use imgfmt::image::store::{NewPack, PackFile};

use crate::memory_store::MemoryStore;

/// Reads of packs so far: how many, of how many bytes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Takes them and starts again at 0.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.reads.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

/// A store that counts what is read of its packs.
#[derive(Clone, Debug)]
pub(crate) struct CountingStore {
    pub(crate) inner: MemoryStore,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn PackFile>,
    counts: Arc<Counts>,
}

impl PackFile for CountingFile {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(buf, offset)
    }
}

impl CountingStore {
    fn counted(&self, inner: Arc<dyn PackFile>) -> Arc<dyn PackFile> {
        Arc::new(CountingFile { inner, counts: Arc::clone(&self.counts) })
    }
}

impl PackStore for CountingStore {
    fn list(&self) -> Result<Vec<(u32, u64)>> {
        self.inner.list()
    }
    fn list_partial(&self) -> Result<Vec<u32>> {
        self.inner.list_partial()
    }
    fn open(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        Ok(self.counted(self.inner.open(number)?))
    }
    fn open_partial(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        Ok(self.counted(self.inner.open_partial(number)?))
    }
    fn create(&self, number: u32) -> Result<Box<dyn NewPack>> {
        self.inner.create(number)
    }
    fn resume(&self, number: u32, len: u64) -> Result<Box<dyn NewPack>> {
        self.inner.resume(number, len)
    }
    fn delete_partial(&self, number: u32) -> Result<()> {
        self.inner.delete_partial(number)
    }
    fn name(&self, number: u32) -> String {
        self.inner.name(number)
    }
    fn side_file(&self, suffix: &str) -> PathBuf {
        self.inner.side_file(suffix)
    }
    fn free_space(&self) -> Option<u64> {
        None
    }
}

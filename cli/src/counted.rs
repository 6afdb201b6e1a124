//! How much is read of a disk, and how much was decoded for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imgfmt::image::Image;
use imgfmt::{Disk, Extent, Result};
use serde_json::{Value, json};

use crate::text::short_size;

/// Counts what is read of some disks of one image.
#[derive(Clone, Default)]
pub(crate) struct Counter {
    read: Arc<AtomicU64>,
    image: Option<Arc<Image>>,
    /// What was decoded before.
    decoded: u64,
}

impl Counter {
    /// A counter of disks that lie in `image`, or in no hikae image.
    pub(crate) fn of(image: Option<Arc<Image>>) -> Self {
        let decoded = image.as_ref().map_or(0, |image| image.decoded_bytes());
        Self { read: Arc::default(), image, decoded }
    }

    /// The disk, with its reads counted.
    pub(crate) fn count(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Counted { disk, read: Arc::clone(&self.read) })
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let decoded = self.image.as_ref().map(|image| image.decoded_bytes().saturating_sub(self.decoded));
        Counts { read: self.read.load(Ordering::Relaxed), decoded }
    }
}

/// What was read of disks, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Bytes that were asked for, each time that they were.
    pub(crate) read: u64,
    /// Bytes of chunks that were decoded meanwhile, bases of differences included; `None` for other disks.
    pub(crate) decoded: Option<u64>,
}

impl Counts {
    /// For programs.
    pub(crate) fn json(self) -> Value {
        json!({"read": self.read, "decoded": self.decoded})
    }

    /// For people.
    pub(crate) fn text(self) -> String {
        let read = short_size(self.read);
        match self.decoded {
            Some(decoded) => format!("{read} were read, {} decoded for that", short_size(decoded)),
            None => format!("{read} were read"),
        }
    }
}

/// A disk whose reads are counted.
struct Counted {
    disk: Arc<dyn Disk>,
    read: Arc<AtomicU64>,
}

impl Disk for Counted {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, offset)?;
        self.read.fetch_add(u64::try_from(buf.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

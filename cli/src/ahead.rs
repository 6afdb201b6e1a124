//! Decoding ahead of clients that read a disk in sequence.

use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::readahead::{Readahead, ReadaheadDisk};

use crate::exit::Failure;

/// Most bytes of what was decoded ahead.
const MOST: u64 = 64 << 20;

/// Decodes ahead for all disks of one image. Files of other formats are read as they are asked for: most need no decoding.
pub(crate) struct Ahead(Arc<Readahead>);

/// How much of the memory for decoded data is for what is decoded ahead.
pub(crate) fn part_of(cache_bytes: u64) -> u64 {
    (cache_bytes / 4).min(MOST)
}

impl Ahead {
    /// Starts the threads for that, within a part of the memory that decoded data may take. Returns it with what is left.
    pub(crate) fn start(cache_bytes: u64) -> Result<(Self, u64), Failure> {
        let bytes = part_of(cache_bytes);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let readahead = Readahead::start(cores, bytes)
            .map_err(|error| Failure::Failed(format!("cannot start the threads that decode ahead: {error}")))?;
        Ok((Self(Arc::new(readahead)), cache_bytes.saturating_sub(bytes)))
    }
}

/// The disk, which must never change, decoded ahead where that is wanted.
pub(crate) fn show(ahead: Option<&Ahead>, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
    match ahead {
        Some(Ahead(readahead)) => Arc::new(ReadaheadDisk::new(readahead, disk)),
        None => disk,
    }
}

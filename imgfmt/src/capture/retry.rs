//! The generation before with its unreadable sectors read from the source again: for disks that die slowly.

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::image::generation::Generation;

/// Shows the generation; where that is Bad, the source.
#[derive(Debug)]
pub struct RetryDisk<D> {
    source: D,
    generation: Generation,
}

impl<D: Disk> RetryDisk<D> {
    /// Fails where the two are not of one length.
    pub fn open(source: D, generation: Generation) -> Result<Self> {
        if source.len() != generation.len() {
            return Err(Error::Refused(format!(
                "the source has {} bytes, and generation {} has {}: only the same disk can be read again",
                source.len(),
                generation.record().generation,
                generation.len()
            )));
        }
        Ok(Self { source, generation })
    }
}

impl<D: Disk> Disk for RetryDisk<D> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf_len(buf), self.len())?;
        let mut at = offset;
        let mut rest = buf;
        while at < end {
            let extent = self.generation.extent_at(at)?;
            let part = usize::try_from(extent.end().min(end).saturating_sub(at)).expect("at most the buffer");
            let (now, later) = rest.split_at_mut(part);
            if extent.kind == ExtentKind::Bad {
                self.source.read_at(now, at)?;
            } else {
                self.generation.read_at(now, at)?;
            }
            rest = later;
            at = extent.end().min(end);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let extent = self.generation.extent_at(offset)?;
        match extent.kind {
            // To be read: whether it still is unreadable, the read tells.
            ExtentKind::Bad => Ok(Extent { kind: ExtentKind::Data, ..extent }),
            _ => Ok(extent),
        }
    }
}

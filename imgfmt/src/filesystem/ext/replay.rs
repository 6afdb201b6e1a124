//! A disk over which the journal of its filesystem has been replayed, in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::Result;

/// Where the newest content of a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    /// The block of the journal.
    pub(super) block: u64,
    /// Its first four bytes were the journal's magic number, and were replaced by zeros in the journal.
    pub(super) escaped: bool,
}

/// The journal's magic number, with which escaped blocks begin.
pub(super) const MAGIC: [u8; 4] = 0xc03b_3998_u32.to_be_bytes();

/// The disk below, with blocks of the journal in place of the blocks that they are newer versions of.
#[derive(Clone)]
pub(super) struct Replayed {
    pub(super) below: Arc<dyn Disk>,
    /// In bytes; not 0.
    pub(super) block_size: u64,
    pub(super) logged: BTreeMap<u64, Logged>,
}

impl Replayed {
    fn block_of(&self, offset: u64) -> u64 {
        offset.checked_div(self.block_size).expect("a block size is not 0")
    }

    /// The logged block that holds `offset`, if one does, and where the next border between logged and other blocks may be.
    fn at(&self, offset: u64) -> (Option<Logged>, u64) {
        let block = self.block_of(offset);
        match self.logged.range(block..).next() {
            Some((found, logged)) if *found == block => {
                (Some(*logged), block.saturating_add(1).saturating_mul(self.block_size))
            }
            Some((found, _)) => (None, found.saturating_mul(self.block_size)),
            None => (None, u64::MAX),
        }
    }

    /// Whether the bytes of a range are those of the disk below.
    pub(super) fn is_in_place(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self
                .logged
                .range(self.block_of(range.start)..=self.block_of(range.end.saturating_sub(1)))
                .next()
                .is_none()
    }
}

impl Disk for Replayed {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn sector_size(&self) -> u32 {
        self.below.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (logged, end) = self.at(at);
            let part = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            let Some(logged) = logged else {
                self.below.read_at(now, at)?;
                (at, rest) = (end, later);
                continue;
            };
            let within = at.checked_rem(self.block_size).unwrap_or(0);
            self.below.read_at(now, logged.block.saturating_mul(self.block_size).saturating_add(within))?;
            if logged.escaped {
                let skipped = usize::try_from(within).unwrap_or(usize::MAX);
                for (byte, magic) in now.iter_mut().zip(MAGIC.iter().skip(skipped)) {
                    *byte = *magic;
                }
            }
            (at, rest) = (end, later);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let (logged, end) = self.at(offset);
        let len = end.min(self.len()).saturating_sub(offset);
        if logged.is_some() {
            return Ok(Extent { offset, len, kind: ExtentKind::Data });
        }
        let below = self.below.extent_at(offset)?;
        Ok(Extent { offset, len: below.len.min(len), kind: below.kind })
    }
}

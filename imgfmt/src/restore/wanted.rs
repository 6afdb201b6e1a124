//! The scope as it shall be: a source, with some bytes replaced, as long as the target.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::Result;
use crate::ranges::RangeSet;

/// A disk over another one of any length. What is patched is Data, what is zeroed is Zero, and what lies past the end of the disk below is Absent.
#[derive(Clone)]
pub struct Wanted {
    base: Arc<dyn Disk>,
    len: u64,
    sector_size: u32,
    /// Patches by their first byte; they do not overlap.
    patches: BTreeMap<u64, Arc<[u8]>>,
    zeroed: RangeSet,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let patches: Vec<_> = self.patches.iter().map(|(at, bytes)| (at, bytes.len())).collect();
        f.debug_struct("Wanted").field("len", &self.len).field("patches", &patches).finish_non_exhaustive()
    }
}

impl Wanted {
    /// Shows the first `len` bytes of `base`, and Absent behind its end.
    pub fn new(base: Arc<dyn Disk>, len: u64) -> Self {
        let sector_size = base.sector_size();
        Self { base, len, sector_size, patches: BTreeMap::new(), zeroed: RangeSet::empty() }
    }

    /// Replaces bytes from `offset` on. A later patch wins over an earlier one. What lies past the end is left out.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) {
        let most = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..bytes.len().min(most)).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(buf_len(bytes));
        // Earlier patches keep what the new one does not cover.
        let touched: Vec<u64> = self.patches.range(..end).map(|(at, _)| *at).collect();
        for at in touched {
            let Some(old) = self.patches.get(&at).cloned() else { continue };
            let old_end = at.saturating_add(buf_len(&old));
            if old_end <= offset {
                continue;
            }
            self.patches.remove(&at);
            if at < offset {
                let keep = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
                self.patches.insert(at, old.get(..keep).unwrap_or_default().into());
            }
            if old_end > end {
                let skip = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
                self.patches.insert(end, old.get(skip..).unwrap_or_default().into());
            }
        }
        self.patches.insert(offset, bytes.into());
    }

    /// Makes a range zero, except where it is patched.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        self.zeroed = self.zeroed.union(&RangeSet::from_range(offset.min(end)..end));
    }

    /// Says whether anything differs from the disk below.
    pub fn is_changed(&self) -> bool {
        !self.patches.is_empty() || self.zeroed.total() > 0
    }

    /// The patch that holds `offset`: its end.
    fn patch_at(&self, offset: u64) -> Option<u64> {
        let (at, bytes) = self.patches.range(..=offset).next_back()?;
        let end = at.saturating_add(buf_len(bytes));
        (end > offset).then_some(end)
    }
}

impl Disk for Wanted {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf_len(buf), self.len)?;
        // The disk below is asked only for what is its own, so that what is unreadable there and patched here does no harm.
        let mut at = offset;
        while at < end {
            let extent = self.extent_at(at)?;
            let stop = extent.end().min(end);
            let from = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let to = usize::try_from(stop.saturating_sub(offset)).unwrap_or(usize::MAX);
            let out = buf.get_mut(from..to).expect("the extent is clipped to the buffer");
            match self.patches.range(..=at).next_back() {
                Some((start, bytes)) if start.saturating_add(buf_len(bytes)) > at => {
                    let skip = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
                    out.copy_from_slice(bytes.get(skip..skip.saturating_add(out.len())).expect("inside the patch"));
                }
                _ if extent.kind == ExtentKind::Bad || extent.kind == ExtentKind::Data => self.base.read_at(out, at)?,
                _ => out.fill(0),
            }
            at = stop;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let extent = |end: u64, kind| Extent { offset, len: end.saturating_sub(offset), kind };
        if let Some(end) = self.patch_at(offset) {
            return Ok(extent(end, ExtentKind::Data));
        }
        let next_patch = self.patches.range(offset..).next().map_or(self.len, |(at, _)| *at);
        let (zero_end, is_zero) = self.zeroed.run_at(offset).unwrap_or((u64::MAX, false));
        let end = next_patch.min(zero_end).min(self.len);
        if is_zero {
            return Ok(extent(end, ExtentKind::Zero));
        }
        if offset >= self.base.len() {
            return Ok(extent(end, ExtentKind::Absent));
        }
        let below = self.base.extent_at(offset)?;
        Ok(extent(end.min(below.end()), below.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn patches_win_over_zeros_and_zeros_over_the_disk_below() {
        let mut wanted = Wanted::new(Arc::new(MemoryDisk::new(vec![7; 1000])), 1500);
        let mut model = vec![7; 1000];
        model.resize(1500, 0);
        wanted.zero(900, 300);
        model[900..1200].fill(0);
        for (at, len, value) in [(100, 50, 1), (140, 30, 2), (90, 20, 3), (120, 5, 4), (950, 10, 5), (1490, 40, 6)] {
            wanted.patch(at, &vec![value; len]);
            let end = (at as usize + len).min(1500);
            model[at as usize..end].fill(value);
        }
        let mut buf = vec![9; 1500];
        wanted.read_at(&mut buf, 0).unwrap();
        assert!(buf == model);
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < 1500 {
            let extent = wanted.extent_at(at).unwrap();
            assert!(extent.len > 0 && extent.offset == at);
            let mut part = vec![9; extent.len as usize];
            wanted.read_at(&mut part, at).unwrap();
            assert!(part == model[at as usize..extent.end() as usize]);
            kinds.push((at, extent.kind));
            at = extent.end();
        }
        assert!(kinds.contains(&(900, ExtentKind::Zero)) && kinds.contains(&(950, ExtentKind::Data)));
        assert!(kinds.contains(&(1200, ExtentKind::Absent)) && kinds.contains(&(1490, ExtentKind::Data)));
        assert!(wanted.read_at(&mut [0; 2], 1499).is_err());
    }
}

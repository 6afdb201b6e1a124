//! The source as the plan sees it: what is wanted, what is elided, what nobody wants.

use crate::disk::{Disk, Extent, ExtentKind, check_range};
use crate::error::Result;
use crate::ranges::RangeSet;

/// Extents never end inside such a unit, except at the end of the disk: the image's map has this granularity.
const UNIT: u64 = 512;

/// A disk over the source whose extents are the plan's: Data where it is wanted (Zero where the source has a hole), Zero where it is elided,
/// Absent elsewhere.
#[derive(Debug)]
pub struct PlannedDisk<D> {
    source: D,
    unwanted: RangeSet,
    elided: RangeSet,
}

impl<D: Disk> PlannedDisk<D> {
    /// `unwanted` becomes Absent and `elided` Zero, each shrunk to whole units of 512 bytes; elided wins.
    pub fn new(source: D, unwanted: &RangeSet, elided: &RangeSet) -> Self {
        Self { source, unwanted: whole_units(unwanted), elided: whole_units(elided) }
    }

    /// The disk below.
    pub fn source(&self) -> &D {
        &self.source
    }

    /// Bytes of each kind, holes of the source counted as Data where they are wanted.
    pub fn wanted(&self) -> u64 {
        let out = self.unwanted.union(&self.elided).clipped(self.source.len());
        self.source.len().saturating_sub(out.total())
    }
}

fn whole_units(set: &RangeSet) -> RangeSet {
    let mut out = RangeSet::empty();
    for range in set.iter() {
        let start = range.start.div_ceil(UNIT).saturating_mul(UNIT);
        out.push(start..(range.end / UNIT).saturating_mul(UNIT).max(start));
    }
    out
}

impl<D: Disk> Disk for PlannedDisk<D> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.source.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let mut end = self.len();
        for (set, kind) in [(&self.elided, ExtentKind::Zero), (&self.unwanted, ExtentKind::Absent)] {
            let (run_end, inside) = set.run_at(offset).unwrap_or((u64::MAX, false));
            end = end.min(run_end);
            if inside {
                return Ok(Extent { offset, len: end.saturating_sub(offset), kind });
            }
        }
        let below = self.source.extent_at(offset)?;
        let mut end = end.min(below.end());
        if end < self.len() {
            // A hole that ends inside a unit is told up to the unit's start; what is shorter is read.
            let whole = (end / UNIT).saturating_mul(UNIT);
            if whole <= offset {
                end = whole.saturating_add(UNIT).min(self.len());
                return Ok(Extent { offset, len: end.saturating_sub(offset), kind: ExtentKind::Data });
            }
            end = whole;
        }
        Ok(Extent { offset, len: end.saturating_sub(offset), kind: below.kind })
    }
}

//! What is wanted, piece by piece, and where a target differs from it.

use std::ops::Range;

use crate::capture::bad::read_tolerant;
use crate::disk::{Disk, Extent, ExtentKind, Extents};
use crate::error::Result;
use crate::ranges::RangeSet;
use crate::target::copy::BAD_MARKER;

/// Bytes that a worker reads and compares at once.
pub(super) const PIECE: u64 = 1 << 20;
/// What differs is found in units of this many bytes, aligned to the scope.
const UNIT: usize = 4096;

/// The extents of what is wanted, in pieces for the workers, without the tables.
pub(super) struct Pieces<'a> {
    disk: &'a dyn Disk,
    skip: &'a RangeSet,
    extents: Extents<'a>,
    at: u64,
    zero_piece: u64,
}

impl<'a> Pieces<'a> {
    /// The pieces of `disk` from `at` on, without those in `skip`. Zero and Absent come in pieces of `zero_piece` bytes at the most.
    pub(super) fn new(disk: &'a dyn Disk, skip: &'a RangeSet, at: u64, zero_piece: u64) -> Self {
        Self { disk, skip, extents: Extents::new(disk), at, zero_piece }
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Option<Extent>> {
        loop {
            if self.at >= self.disk.len() {
                return Ok(None);
            }
            let (run_end, inside) = self.skip.run_at(self.at).unwrap_or((u64::MAX, false));
            if inside {
                self.at = run_end;
                continue;
            }
            let extent = self.extents.rest_at(self.at)?;
            let most = match extent.kind {
                ExtentKind::Zero | ExtentKind::Absent => self.zero_piece,
                ExtentKind::Data | ExtentKind::Bad => PIECE,
            };
            // Pieces are aligned, so that the same bytes make the same pieces in the next run.
            let aligned = self.at.checked_div(most).unwrap_or(0).saturating_add(1).saturating_mul(most);
            let end = extent.end().min(run_end).min(aligned);
            let piece = Extent { offset: self.at, len: end.saturating_sub(self.at), kind: extent.kind };
            self.at = end;
            return Ok(Some(piece));
        }
    }
}

/// Reads a piece of what is wanted. What cannot be read becomes the marker, and is appended to `bad`.
pub(super) fn fill(wanted: &dyn Disk, piece: Extent, bytes: &mut Vec<u8>, bad: &mut Vec<Range<u64>>) -> Result<()> {
    bytes.resize(usize::try_from(piece.len).expect("a piece is small"), 0);
    if piece.kind == ExtentKind::Bad {
        bad.push(piece.offset..piece.end());
    } else {
        read_tolerant(wanted, bytes, piece.offset, bad)?;
    }
    for range in bad.iter() {
        for at in range.clone() {
            let within = usize::try_from(at.saturating_sub(piece.offset)).unwrap_or(usize::MAX);
            let letter = usize::try_from(at & 31).unwrap_or(0);
            if let (Some(byte), Some(letter)) = (bytes.get_mut(within), BAD_MARKER.get(letter)) {
                *byte = *letter;
            }
        }
    }
    Ok(())
}

/// Appends the units in which two buffers differ; `None` stands for zeros.
pub(super) fn differences(wanted: Option<&[u8]>, there: &[u8], offset: u64, writes: &mut Vec<Range<usize>>) {
    let zeros = [0; UNIT];
    if wanted == Some(there) {
        return;
    }
    let unit = u64::try_from(UNIT).unwrap_or(u64::MAX);
    let mut at = 0;
    while at < there.len() {
        // Units are aligned to the scope, whatever the piece is.
        let into = offset.saturating_add(u64::try_from(at).unwrap_or(0)).checked_rem(unit).unwrap_or(0);
        let end = at.saturating_add(UNIT.saturating_sub(usize::try_from(into).unwrap_or(0))).min(there.len());
        let theirs = there.get(at..end).unwrap_or_default();
        let ours = match wanted {
            Some(wanted) => wanted.get(at..end),
            None => zeros.get(..theirs.len()),
        };
        if ours != Some(theirs) {
            writes.push(at..end);
        }
        at = end;
    }
}

/// The ranges in order, with those that touch made one.
pub(super) fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_whole_units_of_the_scope() {
        let ours = vec![1_u8; 20_000];
        let mut theirs = ours.clone();
        let mut writes = Vec::new();
        differences(Some(&ours), &theirs, 512, &mut writes);
        assert!(writes.is_empty());
        theirs[0] = 2;
        theirs[3583] = 2;
        theirs[3584] = 2;
        theirs[19_999] = 2;
        differences(Some(&ours), &theirs, 512, &mut writes);
        assert_eq!(writes, [0..3584, 3584..7680, 19_968..20_000]);
        assert_eq!(joined(writes), [0..7680, 19_968..20_000]);
        let mut zeros = Vec::new();
        differences(None, &[0, 0, 1], 4095, &mut zeros);
        assert_eq!(zeros, [1..3]);
    }
}

//! A set of byte ranges with a bounded size.

use std::ops::Range;

/// Ranges kept before the set starts to close gaps: 16 bytes each, so 32 MiB at the most.
const MAX_RANGES: usize = 2 << 20;

/// A set of bytes, kept as sorted, disjoint, non-adjacent ranges.
///
/// Memory is bounded: past about two million ranges the smallest gaps are closed, so the set can only grow. That suits
/// its use, which is "bytes that must be kept": never less than the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
    /// Gaps below this many bytes are closed when a range is pushed; 0 and 1 close only gaps of no bytes.
    min_gap: u64,
}

impl RangeSet {
    /// The empty set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The set of one range.
    pub fn from_range(range: Range<u64>) -> Self {
        let mut set = Self::default();
        set.push(range);
        set
    }

    /// The set of any ranges, in any order, overlapping or not.
    pub fn from_unsorted(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut set = Self::default();
        for range in ranges {
            set.push(range);
        }
        set
    }

    /// Adds a range that starts no earlier than the last one pushed did. An empty range adds nothing.
    ///
    /// # Panics
    ///
    /// Where the order is broken: a bug of the caller, never of the input.
    pub fn push(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        if let Some(last) = self.ranges.last_mut() {
            assert!(range.start >= last.start, "ranges are pushed in ascending order");
            if range.start <= last.end.saturating_add(self.min_gap) {
                last.end = last.end.max(range.end);
                return;
            }
        }
        if self.ranges.len() >= MAX_RANGES {
            self.close_gaps();
            return self.push(range);
        }
        self.ranges.push(range);
    }

    /// Raises `min_gap` until at most half of the ranges are left.
    fn close_gaps(&mut self) {
        while self.ranges.len() > MAX_RANGES / 2 {
            self.min_gap = self.min_gap.saturating_mul(2).max(4096);
            let min_gap = self.min_gap;
            self.ranges.dedup_by(|next, kept| {
                let close = next.start <= kept.end.saturating_add(min_gap);
                if close {
                    kept.end = kept.end.max(next.end);
                }
                close
            });
        }
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Number of bytes in the set.
    pub fn total(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)))
    }

    /// Says whether every byte of `range` is in the set. An empty range is.
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.start >= range.end || self.run_at(range.start).is_some_and(|(end, inside)| inside && end >= range.end)
    }

    /// The run that holds `offset`: its end, and whether it is in the set. `None` where nothing follows `offset`, which
    /// is then outside of the set.
    pub fn run_at(&self, offset: u64) -> Option<(u64, bool)> {
        let next = self.ranges.partition_point(|range| range.end <= offset);
        let range = self.ranges.get(next)?;
        if range.start <= offset { Some((range.end, true)) } else { Some((range.start, false)) }
    }

    /// The bytes in either set.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.ranges.clone();
        all.extend(other.iter());
        Self::from_unsorted(all)
    }

    /// The bytes of `self` that are not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for range in &self.ranges {
            let mut at = range.start;
            while at < range.end {
                let (end, inside) = other.run_at(at).unwrap_or((u64::MAX, false));
                let end = end.min(range.end);
                if !inside {
                    rest.push(at..end);
                }
                at = end;
            }
        }
        rest
    }

    /// The set with every range moved up by `by` bytes (saturating).
    pub fn shifted(&self, by: u64) -> Self {
        let ranges = self.ranges.iter().map(|range| range.start.saturating_add(by)..range.end.saturating_add(by));
        Self { ranges: ranges.collect(), min_gap: self.min_gap }
    }

    /// The part of the set below `end`.
    pub fn clipped(&self, end: u64) -> Self {
        let mut set = Self::default();
        for range in &self.ranges {
            set.push(range.start.min(end)..range.end.min(end));
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_and_overlapping_ranges_become_one() {
        let set = RangeSet::from_unsorted(vec![10..20, 0..5, 20..30, 4..7]);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0..7, 10..30]);
        assert_eq!(set.total(), 27);
    }

    #[test]
    fn contains_needs_every_byte() {
        let set = RangeSet::from_unsorted(vec![0..7, 10..30]);
        assert!(set.contains(10..30));
        assert!(!set.contains(6..8));
        assert!(!set.contains(30..31));
        assert!(set.contains(9..9));
    }

    #[test]
    fn minus_keeps_what_the_other_set_lacks() {
        let set = RangeSet::from_range(0..100).minus(&RangeSet::from_unsorted(vec![10..20, 90..200]));
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0..10, 20..90]);
    }

    #[test]
    fn past_its_limit_the_set_grows_and_never_shrinks() {
        let mut set = RangeSet::empty();
        let count = u64::try_from(MAX_RANGES).unwrap() + 10;
        for n in 0..count {
            set.push(n * 8192..n * 8192 + 1);
        }
        assert!(set.iter().len() <= MAX_RANGES);
        for n in (0..count).step_by(1013) {
            assert!(set.contains(n * 8192..n * 8192 + 1));
        }
    }
}

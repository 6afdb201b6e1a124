//! Allocation bitmaps: one bit a unit, least significant bit first, 1 for used.

use crate::ranges::RangeSet;

/// Gathers used units from pieces of a bitmap that come in order.
#[derive(Debug)]
pub struct UsedUnits {
    unit_len: u64,
    count: u64,
    first_unit_offset: u64,
    next: u64,
    run_start: Option<u64>,
    set: RangeSet,
}

impl UsedUnits {
    /// A map of `count` units of `unit_len` bytes, the first of them at byte 0. Bits past the count are ignored.
    pub fn new(unit_len: u64, count: u64) -> Self {
        Self::starting_at(0, unit_len, count)
    }

    /// The same with the first unit at byte `offset`.
    pub fn starting_at(offset: u64, unit_len: u64, count: u64) -> Self {
        Self { unit_len, count, first_unit_offset: offset, next: 0, run_start: None, set: RangeSet::empty() }
    }

    /// Takes the next bytes of the map.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (*byte, self.run_start.is_some()) {
                // Whole bytes that change nothing are by far the most frequent.
                (0x00, false) | (0xff, true) if self.next.saturating_add(8) <= self.count => {
                    self.next = self.next.saturating_add(8);
                }
                (byte, _) => {
                    for bit in 0..8 {
                        self.unit(byte & (1 << bit) != 0);
                    }
                }
            }
        }
    }

    /// Takes the next `count` units, all used or all free.
    pub fn push_units(&mut self, used: bool, count: u64) {
        let end = self.next.saturating_add(count).min(self.count);
        if used != self.run_start.is_some() && self.next < end {
            self.unit(used);
        }
        self.next = self.next.max(end);
    }

    fn unit(&mut self, used: bool) {
        if self.next >= self.count {
            return;
        }
        match (used, self.run_start) {
            (true, None) => self.run_start = Some(self.next),
            (false, Some(start)) => {
                self.end_run(start);
                self.run_start = None;
            }
            _ => {}
        }
        self.next = self.next.saturating_add(1);
    }

    fn end_run(&mut self, start: u64) {
        let byte = |unit: u64| unit.saturating_mul(self.unit_len).saturating_add(self.first_unit_offset);
        self.set.push(byte(start)..byte(self.next));
    }

    /// The used bytes. Units that no map told of are used.
    pub fn finish(mut self) -> RangeSet {
        self.push_units(true, u64::MAX);
        if let Some(start) = self.run_start {
            self.end_run(start);
        }
        self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_bits() {
        let mut units = UsedUnits::new(10, 30);
        units.push(&[0b0000_0110, 0xff]);
        units.push(&[0xff, 0b0000_0001]);
        let set = units.finish();
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![10..30, 80..250]);
    }

    #[test]
    fn what_the_map_does_not_tell_is_used() {
        let mut units = UsedUnits::starting_at(1000, 1, 20);
        units.push(&[0]);
        assert_eq!(units.finish().iter().collect::<Vec<_>>(), vec![1008..1020]);
        let mut units = UsedUnits::new(1, 20);
        units.push_units(false, 5);
        units.push_units(true, 3);
        units.push_units(false, 100);
        assert_eq!(units.finish().iter().collect::<Vec<_>>(), vec![5..8]);
    }
}

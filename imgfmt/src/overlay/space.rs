//! Which slots of the file are free.
//!
//! A slot that the last commit uses is not written again before the next one exists. So what is given up waits as *pending* until then, and
//! only what was free already is *free* to be used now. The list of free slots in the file is a stack of pages: the upper ones hold what is in
//! memory and are written anew with each commit, the lower ones are settled and are read when memory has no more.
//!
//! Source: docs/overlay.md sections 5 and 6.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::overlay::layout::{MAX_RUN, MAX_SLOTS, Place, RUNS, Run, parse_free_page, write_free_page};
use crate::overlay::medium::Medium;

/// Runs in memory above which some settle.
const MANY: usize = 8192;
/// Runs that stay in memory then.
const KEPT: usize = 1024;

/// Runs of slots that never touch: first slot and number.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    fn add(&mut self, run: Run) {
        let Run { mut start, mut len } = run;
        if len == 0 {
            return;
        }
        if let Some((before, count)) = self.0.range(..start).next_back().map(|(start, len)| (*start, *len))
            && before.saturating_add(count) == start
        {
            self.0.remove(&before);
            start = before;
            len = len.saturating_add(count);
        }
        if let Some(count) = self.0.remove(&start.saturating_add(len)) {
            len = len.saturating_add(count);
        }
        self.0.insert(start, len);
    }

    /// Takes up to `wanted` slots that follow each other.
    fn take(&mut self, wanted: u64) -> Option<Run> {
        let (start, len) = self.0.pop_first()?;
        let taken = len.min(wanted);
        if len > taken {
            self.0.insert(start.saturating_add(taken), len.saturating_sub(taken));
        }
        Some(Run { start, len: taken })
    }

    /// In pieces that the file can hold.
    fn pieces(&self) -> Vec<Run> {
        let mut pieces = Vec::new();
        for (start, len) in &self.0 {
            let (mut start, mut len) = (*start, *len);
            while len > 0 {
                let part = len.min(MAX_RUN);
                pieces.push(Run { start, len: part });
                start = start.saturating_add(part);
                len = len.saturating_sub(part);
            }
        }
        pieces
    }

    fn slots(&self) -> u64 {
        self.0.values().fold(0, |sum, len| sum.saturating_add(*len))
    }
}

/// The slots of a file.
#[derive(Debug)]
pub(super) struct Space {
    /// Slots of the file.
    slots: u64,
    free: Runs,
    pending: Runs,
    pending_slots: u64,
    /// First settled page of the list.
    settled: Place,
    /// Slots that the settled pages list.
    settled_slots: u64,
    /// Where the upper pages of the list lie.
    upper: Vec<u64>,
}

impl Space {
    /// As the last commit has it.
    pub(super) fn new(slots: u64, list: Place, free_slots: u64) -> Self {
        let (free, pending) = (Runs::default(), Runs::default());
        Self { slots, free, pending, pending_slots: 0, settled: list, settled_slots: free_slots, upper: Vec::new() }
    }

    /// Slots of the file.
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots that are free, now or with the next commit.
    pub(super) fn free_slots(&self) -> u64 {
        self.settled_slots.saturating_add(self.free.slots()).saturating_add(self.pending_slots)
    }

    /// Runs and slots that wait for the next commit.
    pub(super) fn pending(&self) -> (usize, u64) {
        (self.pending.0.len(), self.pending_slots)
    }

    /// Takes up to `wanted` slots that follow each other, at least one.
    pub(super) fn take(&mut self, medium: &Medium, wanted: u64) -> Result<Run> {
        if self.free.0.is_empty() {
            self.unsettle(medium);
        }
        if let Some(run) = self.free.take(wanted) {
            return Ok(run);
        }
        let run = Run { start: self.slots, len: wanted };
        if run.end() >= MAX_SLOTS {
            return Err(medium.full());
        }
        self.slots = run.end();
        Ok(run)
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&mut self, run: Run) {
        self.free.add(run);
    }

    /// Gives up a slot that the last commit may use.
    pub(super) fn release(&mut self, slot: u64) {
        self.pending.add(Run { start: slot, len: 1 });
        self.pending_slots = self.pending_slots.saturating_add(1);
    }

    /// Brings the runs of one settled page into memory. A page that cannot be read costs the space that it lists.
    fn unsettle(&mut self, medium: &Medium) {
        let place = self.settled;
        if place.slot == 0 {
            return;
        }
        let page = medium.read_slot(place, "free list").ok().and_then(|bytes| parse_free_page(&bytes, self.slots));
        let Some((runs, next)) = page else {
            self.settled = Place::default();
            self.settled_slots = 0;
            return;
        };
        for run in runs {
            self.settled_slots = self.settled_slots.saturating_sub(run.len);
            self.free.add(run);
        }
        self.settled = next;
        self.release(place.slot);
    }

    /// Writes the list as it is after the commit that is being made. Returns its first page.
    pub(super) fn write_list(&mut self, medium: &Medium) -> Result<Place> {
        for slot in std::mem::take(&mut self.upper) {
            self.release(slot);
        }
        if self.free.0.len() > MANY {
            self.settle(medium)?;
        }
        let mut runs = self.pieces();
        // Each slot that is taken for a page may change the runs.
        while self.upper.len() < runs.len().div_ceil(RUNS) {
            let slot = self.take(medium, 1)?.start;
            self.upper.push(slot);
            runs = self.pieces();
        }
        let mut next = self.settled;
        for (slot, runs) in self.upper.iter().zip(runs.chunks(RUNS)) {
            let checksum = medium.write_slot(*slot, &write_free_page(runs, next))?;
            next = Place { slot: *slot, checksum };
        }
        Ok(next)
    }

    /// What is in memory, in pieces that the file can hold.
    fn pieces(&self) -> Vec<Run> {
        let mut pieces = self.free.pieces();
        pieces.extend(self.pending.pieces());
        pieces
    }

    /// Moves most runs from memory into settled pages.
    fn settle(&mut self, medium: &Medium) -> Result<()> {
        let mut rest = self.free.pieces();
        let mut settling = rest.split_off(KEPT.min(rest.len()));
        // Whole pages.
        settling.truncate(settling.len().saturating_sub(settling.len() % RUNS));
        for runs in settling.chunks(RUNS) {
            // The lowest run, which is one of those that stay.
            let slot = self.take(medium, 1)?.start;
            let place = Place { slot, checksum: medium.write_slot(slot, &write_free_page(runs, self.settled))? };
            for run in runs {
                self.free.remove(*run);
                self.settled_slots = self.settled_slots.saturating_add(run.len);
            }
            self.settled = place;
        }
        Ok(())
    }

    /// The commit exists: what waited for it can be used. The caller made sure that nobody reads it any more.
    pub(super) fn committed(&mut self) {
        self.pending_slots = 0;
        for (start, len) in std::mem::take(&mut self.pending).0 {
            self.free.add(Run { start, len });
        }
    }
}

impl Runs {
    /// Takes out a run that lies in one of these.
    fn remove(&mut self, run: Run) {
        let Some((start, len)) = self.0.range(..=run.start).next_back().map(|(start, len)| (*start, *len)) else {
            return;
        };
        let end = start.saturating_add(len);
        self.0.remove(&start);
        if run.start > start {
            self.0.insert(start, run.start.saturating_sub(start));
        }
        if end > run.end() {
            self.0.insert(run.end(), end.saturating_sub(run.end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_become_one() {
        let mut runs = Runs::default();
        for start in [10, 12, 11, 20, 9] {
            runs.add(Run { start, len: 1 });
        }
        assert_eq!(runs.0.iter().map(|(start, len)| (*start, *len)).collect::<Vec<_>>(), [(9, 4), (20, 1)]);
        runs.remove(Run { start: 10, len: 2 });
        assert_eq!(runs.take(8), Some(Run { start: 9, len: 1 }));
        assert_eq!((runs.take(8), runs.take(8)), (Some(Run { start: 12, len: 1 }), Some(Run { start: 20, len: 1 })));
        assert_eq!(runs.take(1), None);
        runs.add(Run { start: 4, len: 200_000 });
        assert_eq!(runs.pieces().len(), 4);
    }
}

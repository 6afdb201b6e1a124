//! Units of a disk that a table of its file calls zero: a cluster of qcow2 whose L2 entry has the bit for that.
//!
//! A program that is to zero a cluster sets the bit, and clears it when it writes to the cluster again. Between the two the table comes and goes by itself:
//! it is kept in memory and written late, in any order with the data. So what counts is what the table says *here*. As long as it calls a unit zero, the disk has zeros
//! there, and what is written into the unit waits in the file's own layer, at the place of the unit in the file. When the table takes the bit back, what waits
//! becomes the disk. Each state of this is one that a crash could leave of a real file.
//!
//! Who writes to the disk by another way, such as another file of it, knows nothing of the table. So a bit counts for as long as the disk still has its hole there, and is
//! read as cleared from then on.

use std::ops::Range;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::{Disk, ExtentKind, WritableDisk, buf_len, read_vec};
use crate::error::{Error, Result};
use crate::overlay::ResizableDisk;
use crate::view::pieces::{View, ZeroMap};

/// Bytes of an entry of the table.
const WIDTH: u64 = 8;
/// Bytes of the table, and of a unit, that are looked at at once.
const PART: u64 = 64 << 10;

/// The units of a view that its table can call zero.
pub(super) struct Zeroed {
    map: ZeroMap,
    view: Arc<View>,
    disk: Arc<dyn WritableDisk>,
    /// The file with what was written around the disk; in the place of the disk it has what waits.
    own: Arc<dyn ResizableDisk>,
    /// Held for writing by who writes to the table, for reading by who writes to the disk.
    changing: RwLock<()>,
}

/// The right to write.
pub(super) enum Right<'a> {
    Data(#[expect(dead_code, reason = "held for its drop")] RwLockReadGuard<'a, ()>),
    Table(#[expect(dead_code, reason = "held for its drop")] RwLockWriteGuard<'a, ()>),
}

fn index(byte: u64) -> usize {
    usize::try_from(byte).expect("a part of a buffer")
}

impl Zeroed {
    pub(super) fn new(
        map: ZeroMap,
        view: &Arc<View>,
        disk: &Arc<dyn WritableDisk>,
        own: &Arc<dyn ResizableDisk>,
    ) -> Self {
        let (view, disk, own) = (Arc::clone(view), Arc::clone(disk), Arc::clone(own));
        Self { map, view, disk, own, changing: RwLock::new(()) }
    }

    /// Takes the right to write to the disk, or to the table too.
    pub(super) fn right(&self, to_table: bool) -> Right<'_> {
        match to_table {
            true => Right::Table(self.changing.write().expect("no holder of the lock panics")),
            false => Right::Data(self.changing.read().expect("no holder of the lock panics")),
        }
    }

    fn is_zero(&self, entry: &[u8]) -> bool {
        entry.iter().zip(self.map.bit).any(|(byte, bit)| byte & bit != 0)
    }

    /// Whether the disk has no data in a unit.
    fn is_hole(&self, unit: &Range<u64>) -> Result<bool> {
        let mut at = unit.start;
        while at < unit.end {
            let extent = self.disk.extent_at(at)?;
            if extent.kind != ExtentKind::Zero || extent.len == 0 {
                return Ok(false);
            }
            at = at.saturating_add(extent.len);
        }
        Ok(true)
    }

    /// `count` entries of the table from the one numbered `first`, with the bits that count.
    fn table(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let start = self.map.start.saturating_add(first.saturating_mul(WIDTH));
        let mut table = read_vec(&self.own, start, index(count.saturating_mul(WIDTH)))?;
        for (number, entry) in (first..).zip(table.chunks_mut(index(WIDTH))) {
            if self.is_zero(entry) && !self.is_hole(&self.unit(number))? {
                entry.iter_mut().zip(self.map.bit).for_each(|(byte, bit)| *byte &= !bit);
            }
        }
        Ok(table)
    }

    /// The entries that these bytes of the table lie in: the first one, how many, and the bytes before `offset` in them.
    fn entries_of(&self, len: u64, offset: u64) -> (u64, u64, usize) {
        let within = offset.saturating_sub(self.map.start);
        let first = within / WIDTH;
        let count = within.saturating_add(len).div_ceil(WIDTH).saturating_sub(first);
        (first, count, index(within % WIDTH))
    }

    /// Reads the table; `offset` is one of the file.
    pub(super) fn read_table(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        for part in buf.chunks_mut(index(PART)) {
            let (first, count, skip) = self.entries_of(buf_len(part), at);
            let table = self.table(first, count)?;
            part.copy_from_slice(table.get(skip..skip.saturating_add(part.len())).unwrap_or_default());
            at = at.saturating_add(buf_len(part));
        }
        Ok(())
    }

    /// Where the units of a run of entries lie on the disk.
    fn unit(&self, entry: u64) -> Range<u64> {
        let start = entry.saturating_mul(self.map.unit);
        start.min(self.disk.len())..start.saturating_add(self.map.unit).min(self.disk.len())
    }

    fn in_file(&self, place: u64) -> u64 {
        self.view.data_offset().saturating_add(place)
    }

    /// Cuts a range of the disk into runs that are all called zero, or not.
    fn runs(&self, range: &Range<u64>) -> Result<Vec<(Range<u64>, bool)>> {
        let mut runs: Vec<(Range<u64>, bool)> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let first = at.checked_div(self.map.unit).unwrap_or(0);
            let last = range.end.div_ceil(self.map.unit.max(1)).min(first.saturating_add(PART / WIDTH));
            let entries = self.table(first, last.saturating_sub(first))?;
            for (number, entry) in (first..).zip(entries.chunks(index(WIDTH))) {
                let end = self.unit(number).end.min(range.end);
                let is_zero = self.is_zero(entry);
                match runs.last_mut() {
                    Some((run, kind)) if *kind == is_zero => run.end = end,
                    _ => runs.push((at..end, is_zero)),
                }
                at = end;
            }
        }
        Ok(runs)
    }

    /// Writes to the disk in the file; `at` counts from its first byte.
    pub(super) fn write_data(&self, bytes: &[u8], at: u64) -> Result<()> {
        for (run, waits) in self.runs(&(at..at.saturating_add(buf_len(bytes))))? {
            let part = index(run.start.saturating_sub(at))..index(run.end.saturating_sub(at));
            let part = bytes.get(part).expect("runs tile the range");
            match waits {
                true => self.own.write_at(part, self.in_file(run.start))?,
                false => self.disk.write_at(part, run.start)?,
            }
        }
        Ok(())
    }

    /// Zeroes a range of the disk in the file.
    pub(super) fn zero_data(&self, range: &Range<u64>) -> Result<()> {
        for (run, waits) in self.runs(range)? {
            let len = run.end.saturating_sub(run.start);
            match waits {
                true => self.own.zero_at(self.in_file(run.start), len)?,
                false => self.disk.zero_at(run.start, len)?,
            }
        }
        Ok(())
    }

    /// The entries that a write to the table touches: the first one, what they are and what they become.
    fn entries(&self, bytes: &[u8], offset: u64) -> Result<(u64, Vec<u8>, Vec<u8>)> {
        let (first, count, skip) = self.entries_of(buf_len(bytes), offset);
        let old = self.table(first, count)?;
        let mut new = old.clone();
        new.get_mut(skip..skip.saturating_add(bytes.len())).unwrap_or_default().copy_from_slice(bytes);
        Ok((first, old, new))
    }

    /// Fails unless these bytes, at most [`PART`], say in the table what it says, but for the bits.
    pub(super) fn check_table(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (first, _, mut new) = self.entries(bytes, offset)?;
        let start = self.map.start.saturating_add(first.saturating_mul(WIDTH));
        let made = read_vec(&self.view, start, new.len())?;
        for (byte, bit) in new.iter_mut().zip(self.map.bit.iter().cycle()) {
            *byte &= !bit;
        }
        if new == made { Ok(()) } else { Err(moved(offset)) }
    }

    /// Writes to the table what [`Self::check_table`] has passed, of any length.
    pub(super) fn write_table(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut at = offset;
        for part in bytes.chunks(index(PART)) {
            self.write_part(part, at)?;
            at = at.saturating_add(buf_len(part));
        }
        Ok(())
    }

    fn write_part(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (first, old, new) = self.entries(bytes, offset)?;
        let width = index(WIDTH);
        for (number, (old, new)) in (first..).zip(old.chunks(width).zip(new.chunks(width))) {
            let unit = self.unit(number);
            let len = unit.end.saturating_sub(unit.start);
            match (self.is_zero(old), self.is_zero(new)) {
                (false, true) => {
                    // Nothing waits yet; the range of the disk may end before the unit does.
                    self.own.zero_at(self.in_file(unit.start), len)?;
                    self.disk.zero_at(unit.start, len)?;
                }
                (true, false) => {
                    let mut at = unit.start;
                    while at < unit.end {
                        let end = unit.end.min(at.saturating_add(PART));
                        let waiting = read_vec(&self.own, self.in_file(at), index(end.saturating_sub(at)))?;
                        self.disk.write_at(&waiting, at)?;
                        at = end;
                    }
                    self.own.zero_at(self.in_file(unit.start), len)?;
                }
                _ => {}
            }
        }
        self.own.write_at(bytes, offset)
    }
}

/// What is said of a write to a table that would move, add or drop a part of the disk.
pub(super) fn moved(offset: u64) -> Error {
    Error::Refused(format!(
        "the table at byte {offset:#x} says where the disk lies in this file, and that cannot change"
    ))
}

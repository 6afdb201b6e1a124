//! A layer over its base, as a disk.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, WritableDisk, buf_len, check_range};
use crate::error::{Error, Result};
use crate::overlay::ResizableDisk;
use crate::overlay::layout::{ALL, ENTRIES, Entry, Place, SECTOR, SLOT, SLOT_LEN};
use crate::overlay::map::{Found, MAX_ZERO};
use crate::overlay::shared::{Shared, Writing};

/// What blocks are called in messages.
const STRUCTURE: &str = "data block";
/// Bytes of a sector.
const SECTOR_BYTES: usize = 512;
const _: () = assert!(SECTOR == 512);
/// Bytes that one page of the map describes, and that are written at once.
const WINDOW: u64 = SLOT_LEN * 256;
const _: () = assert!(ENTRIES == 256);

/// A disk: a base with what was written over it.
pub(super) struct LayerDisk {
    shared: Arc<Shared>,
    layer: usize,
    base: Arc<dyn Disk>,
}

/// The bits of the sectors that a part of a block touches, and of those that it covers.
fn masks(part: &Range<u64>) -> (u8, u8) {
    let bits =
        |sectors: Range<u64>| sectors.fold(0, |mask, sector| mask | 1_u8.checked_shl(bit_of(sector)).unwrap_or(0));
    (bits(part.start / SECTOR..part.end.div_ceil(SECTOR)), bits(part.start.div_ceil(SECTOR)..part.end / SECTOR))
}

fn bit_of(sector: u64) -> u32 {
    u32::try_from(sector).unwrap_or(u32::MAX)
}

fn has(mask: u8, sector: u64) -> bool {
    mask.checked_shr(bit_of(sector)).is_some_and(|mask| mask & 1 != 0)
}

/// A part of a block as indices.
fn indices(part: &Range<u64>) -> Range<usize> {
    let at = |byte: u64| usize::try_from(byte).expect("a part of a block or of a buffer");
    at(part.start)..at(part.end)
}

/// The part of `block` that lies in `range`, from the start of the block.
fn part_of(block: u64, range: &Range<u64>) -> Range<u64> {
    let start = block.saturating_mul(SLOT_LEN);
    range.start.saturating_sub(start)..range.end.saturating_sub(start).min(SLOT_LEN)
}

/// Where the whole blocks from `block` on lie that follow each other in the file as they do on the disk, up to byte `end` of the disk.
fn full_run(found: &Found, block: u64, end: u64) -> Vec<Place> {
    let blocks = block..end.min(found.end().saturating_mul(SLOT_LEN)) / SLOT_LEN;
    let first = found.entry(block).place.slot;
    let entries = blocks.map(|block| found.entry(block)).zip(first..);
    entries.map_while(|(entry, slot)| (entry.data == ALL && entry.place.slot == slot).then_some(entry.place)).collect()
}

/// The base's bytes of the sectors that a write cuts, read before the right to write is waited for: the base may be slow, and others write meanwhile.
///
/// What the base has never changes, so bytes that were read early are right. Where a sector is missing here, it is read when it is needed.
struct Cut(Vec<(u64, [u8; SECTOR_BYTES])>);

impl Cut {
    /// What the base has of a sector, by its first byte.
    fn get(&self, start: u64) -> Option<&[u8; SECTOR_BYTES]> {
        self.0.iter().find(|(at, _)| *at == start).map(|(_, bytes)| bytes)
    }
}

impl LayerDisk {
    pub(super) fn new(shared: Arc<Shared>, layer: usize, base: Arc<dyn Disk>) -> Self {
        Self { shared, layer, base }
    }

    /// Reads what the base has, and zero behind its end.
    fn read_base(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let there = self.base.len().saturating_sub(offset).min(buf_len(buf));
        let (there, behind) = buf.split_at_mut(indices(&(0..there)).end);
        behind.fill(0);
        if there.is_empty() { Ok(()) } else { self.base.read_at(there, offset) }
    }

    /// Reads what the map says of blocks that it is about: data into `buf`, which is for `range`, and the silent parts of the range into a list.
    fn read_known(
        &self,
        found: &Found,
        range: &Range<u64>,
        buf: &mut [u8],
        silent: &mut Vec<Range<u64>>,
    ) -> Result<()> {
        let mut block = range.start / SLOT_LEN;
        while block.saturating_mul(SLOT_LEN) < range.end {
            let entry = found.entry(block);
            let part = part_of(block, range);
            let start = block.saturating_mul(SLOT_LEN);
            let at = start.saturating_add(part.start).saturating_sub(range.start);
            let to = buf.get_mut(indices(&(at..at.saturating_add(part.end.saturating_sub(part.start)))));
            let to = to.expect("the buffer is as long as the range");
            if entry.data == ALL && to.len() == SLOT {
                let places = full_run(found, block, range.end);
                let blocks = u64::try_from(places.len()).expect("at most what a page describes");
                let end = at.saturating_add(SLOT_LEN.saturating_mul(blocks));
                let to = buf.get_mut(indices(&(at..end))).expect("whole blocks of the range");
                self.shared.medium().read(entry.place.slot, to)?;
                for (bytes, place) in to.chunks(SLOT).zip(&places) {
                    self.shared.medium().prove(bytes, *place, STRUCTURE)?;
                }
                block = block.saturating_add(blocks);
                continue;
            } else if entry.is_zero() {
                to.fill(0);
            } else {
                let bytes = match entry.data {
                    0 => [0; SLOT],
                    _ => self.shared.medium().read_slot(entry.place, STRUCTURE)?,
                };
                for sector in part.start / SECTOR..part.end.div_ceil(SECTOR) {
                    let first = sector.saturating_mul(SECTOR);
                    let of_sector = first.max(part.start)..first.saturating_add(SECTOR).min(part.end);
                    let shift = |byte: u64| byte.saturating_sub(part.start);
                    let to = to.get_mut(indices(&(shift(of_sector.start)..shift(of_sector.end)))).unwrap_or_default();
                    if has(entry.data, sector) {
                        to.copy_from_slice(bytes.get(indices(&of_sector)).unwrap_or_default());
                    } else if has(entry.zero, sector) {
                        to.fill(0);
                    } else {
                        let here = start.saturating_add(of_sector.start)..start.saturating_add(of_sector.end);
                        match silent.last_mut() {
                            Some(last) if last.end == here.start => last.end = here.end,
                            _ => silent.push(here),
                        }
                    }
                }
            }
            block = block.saturating_add(1);
        }
        Ok(())
    }

    /// Reads what the base has of the sectors that begin or end within `range`, as far as they are silent now and can be read.
    fn read_cut(&self, range: &Range<u64>) -> Result<Cut> {
        let mut cut = Cut(Vec::new());
        for edge in [range.start, range.end].into_iter().filter(|edge| !edge.is_multiple_of(SECTOR)) {
            let start = (edge / SECTOR).saturating_mul(SECTOR);
            let entry = self.shared.find(self.layer, start / SLOT_LEN)?.entry(start / SLOT_LEN);
            let mut bytes = [0; SECTOR_BYTES];
            let is_silent = !has(entry.data | entry.zero, start % SLOT_LEN / SECTOR);
            // An error is told where the bytes are needed in the end: somebody else may write the whole sector first.
            if is_silent && self.read_base(&mut bytes, start).is_ok() {
                cut.0.push((start, bytes));
            }
        }
        Ok(cut)
    }

    /// Writes a part of the disk that one page of the map describes.
    fn write_window(&self, writing: &Writing<'_>, cut: &Cut, bytes: &[u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(buf_len(bytes));
        let first = range.start / SLOT_LEN;
        let found = self.shared.find(self.layer, first)?;
        let mut entries = Vec::new();
        let mut data = Vec::with_capacity(bytes.len().saturating_add(2 * SLOT));
        for block in first..range.end.div_ceil(SLOT_LEN) {
            let entry = if block < found.end() {
                found.entry(block)
            } else {
                self.shared.find(self.layer, block)?.entry(block)
            };
            let part = part_of(block, &range);
            let at = block.saturating_mul(SLOT_LEN).saturating_add(part.start).saturating_sub(offset);
            let from = bytes.get(indices(&(at..at.saturating_add(part.end.saturating_sub(part.start)))));
            let from = from.expect("the bytes are as long as the range");
            if from.len() == SLOT {
                let zero = from.iter().all(|byte| *byte == 0);
                if zero {
                    entries.push((block, Entry::ZERO, false));
                } else {
                    entries.push((block, Entry { data: ALL, ..Entry::SILENT }, true));
                    data.extend_from_slice(from);
                }
                continue;
            }
            let (touched, covered) = masks(&part);
            let slot = self.merge(block, entry, &part, from, (touched & !covered, cut))?;
            let entry = Entry { data: entry.data | touched, zero: entry.zero & !touched, ..Entry::SILENT };
            entries.push((block, entry, true));
            data.extend_from_slice(&slot);
        }
        self.shared.put(writing, self.layer, entries, &data)
    }

    /// The slot for a block of which a part is written: that part, the sectors that the overlay has, and what the sectors in the mask had before.
    fn merge(
        &self,
        block: u64,
        entry: Entry,
        part: &Range<u64>,
        from: &[u8],
        (mask, cut): (u8, &Cut),
    ) -> Result<[u8; SLOT]> {
        let mut slot = match entry.data {
            0 => [0; SLOT],
            _ => self.shared.medium().read_slot(entry.place, STRUCTURE)?,
        };
        for sector in 0..SLOT_LEN / SECTOR {
            let start = sector.saturating_mul(SECTOR);
            let of_sector = slot.get_mut(indices(&(start..start.saturating_add(SECTOR)))).unwrap_or_default();
            if has(entry.zero, sector) {
                of_sector.fill(0);
            } else if !has(entry.data, sector) {
                of_sector.fill(0);
                let start = block.saturating_mul(SLOT_LEN).saturating_add(start);
                match cut.get(start) {
                    _ if !has(mask, sector) => {}
                    Some(bytes) => of_sector.copy_from_slice(bytes),
                    None => self.read_base(of_sector, start)?,
                }
            }
        }
        if let Some(to) = slot.get_mut(indices(part)) {
            to.copy_from_slice(from);
        }
        Ok(slot)
    }

    /// Makes a part of one block zero.
    fn zero_part(&self, writing: &Writing<'_>, known: &Cut, block: u64, part: &Range<u64>) -> Result<()> {
        let start = block.saturating_mul(SLOT_LEN);
        let first = part.start.div_ceil(SECTOR).saturating_mul(SECTOR).min(part.end);
        let last = (part.end / SECTOR).saturating_mul(SECTOR).max(first);
        for cut in [part.start..first, last..part.end] {
            if !cut.is_empty() {
                let zeros = [0; SLOT];
                let zeros = zeros.get(..indices(&(0..cut.end.saturating_sub(cut.start))).end).unwrap_or_default();
                self.write_window(writing, known, zeros, start.saturating_add(cut.start))?;
            }
        }
        let (_, covered) = masks(&(first..last));
        let entry = self.shared.find(self.layer, block)?.entry(block);
        let zero = entry.zero | covered;
        let data = entry.data & !covered;
        let entry = if data == 0 { Entry { zero, ..Entry::SILENT } } else { Entry { data, zero, place: entry.place } };
        self.shared.put(writing, self.layer, vec![(block, entry, false)], &[])
    }

    /// Makes a range zero that lies inside the layer.
    fn zero_range(&self, writing: &Writing<'_>, cut: &Cut, range: Range<u64>, len: u64) -> Result<()> {
        self.shared.commit_if_due(writing)?;
        let whole_from = range.start.div_ceil(SLOT_LEN);
        // The last block is whole where it reaches to the end of the disk.
        let whole_to = if range.end == len { range.end.div_ceil(SLOT_LEN) } else { range.end / SLOT_LEN };
        if whole_from > whole_to || (whole_from == whole_to && !range.is_empty()) {
            // No block is covered: the range lies in one, or in two.
            let block = range.start / SLOT_LEN;
            let first = part_of(block, &range);
            self.zero_part(writing, cut, block, &first)?;
            let second = part_of(block.saturating_add(1), &range);
            if range.end > block.saturating_add(1).saturating_mul(SLOT_LEN) {
                self.zero_part(writing, cut, block.saturating_add(1), &second)?;
            }
            return Ok(());
        }
        if !range.start.is_multiple_of(SLOT_LEN) {
            let block = range.start / SLOT_LEN;
            self.zero_part(writing, cut, block, &part_of(block, &range))?;
        }
        let mut at = whole_from;
        while at < whole_to {
            // A container may be longer than anything that was ever in it: what is zero already is passed over, however long.
            if let Found::Alike(entry, blocks) = self.shared.find(self.layer, at)?
                && (entry.is_zero() || (entry.is_silent() && at.saturating_mul(SLOT_LEN) >= self.base.len()))
            {
                at = blocks.end.min(whole_to);
                continue;
            }
            // Pieces end at multiples of their size, so that whole pages become one entry.
            let end = (at / MAX_ZERO).saturating_add(1).saturating_mul(MAX_ZERO).min(whole_to);
            self.shared.commit_if_due(writing)?;
            self.shared.zero(writing, self.layer, at..end)?;
            at = end;
        }
        if whole_to.saturating_mul(SLOT_LEN) < range.end {
            self.zero_part(writing, cut, whole_to, &part_of(whole_to, &range))?;
        }
        Ok(())
    }
}

impl Disk for LayerDisk {
    fn len(&self) -> u64 {
        self.shared.len(self.layer)
    }

    fn sector_size(&self) -> u32 {
        self.shared.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf_len(buf), self.len())?;
        let mut at = offset;
        let mut silent = Vec::new();
        while at < end {
            let reading = self.shared.read();
            let found = self.shared.find(self.layer, at / SLOT_LEN)?;
            let part = at..found.end().saturating_mul(SLOT_LEN).min(end);
            let shift = |byte: u64| byte.saturating_sub(offset);
            let to = buf.get_mut(indices(&(shift(part.start)..shift(part.end)))).expect("inside the buffer");
            match &found {
                Found::Alike(entry, _) if entry.is_silent() => silent.push(part.clone()),
                Found::Alike(..) => to.fill(0),
                Found::Page(..) => self.read_known(&found, &part, to, &mut silent)?,
            }
            drop(reading);
            for part in silent.drain(..) {
                let to = buf.get_mut(indices(&(shift(part.start)..shift(part.end)))).expect("inside the buffer");
                self.read_base(to, part.start)?;
            }
            at = part.end;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let len = self.len();
        check_range(offset, 1, len)?;
        let found = self.shared.find(self.layer, offset / SLOT_LEN)?;
        let kind_at = |sector: u64| {
            let entry = found.entry(sector / (SLOT_LEN / SECTOR));
            let sector = sector % (SLOT_LEN / SECTOR);
            match (has(entry.data, sector), has(entry.zero, sector)) {
                (true, _) => Some(ExtentKind::Data),
                (_, true) => Some(ExtentKind::Zero),
                _ => None,
            }
        };
        let kind = kind_at(offset / SECTOR);
        let found_end = found.end().saturating_mul(SLOT_LEN).min(len);
        let mut end = found_end;
        if let Found::Page(..) = found {
            let mut sector = (offset / SECTOR).saturating_add(1);
            while sector.saturating_mul(SECTOR) < found_end && kind_at(sector) == kind {
                sector = sector.saturating_add(1);
            }
            end = sector.saturating_mul(SECTOR).min(found_end);
        }
        let run = end.saturating_sub(offset);
        match kind {
            Some(kind) => Ok(Extent { offset, len: run, kind }),
            None if offset >= self.base.len() => Ok(Extent { offset, len: run, kind: ExtentKind::Zero }),
            None => {
                let below = self.base.extent_at(offset)?;
                Ok(Extent { offset, len: below.len.min(run), kind: below.kind })
            }
        }
    }
}

impl WritableDisk for LayerDisk {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf_len(bytes), self.len())?;
        let cut = self.read_cut(&(offset..end))?;
        let writing = self.shared.write()?;
        // A container may have become shorter.
        check_range(offset, buf_len(bytes), self.len())?;
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let room = WINDOW.saturating_sub(offset % WINDOW);
            let (part, rest) = bytes.split_at(indices(&(0..room.min(buf_len(bytes)))).end);
            self.shared.commit_if_due(&writing)?;
            self.write_window(&writing, &cut, part, offset)?;
            offset = offset.saturating_add(buf_len(part));
            bytes = rest;
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        let end = check_range(offset, len, self.len())?;
        let cut = self.read_cut(&(offset..end))?;
        let writing = self.shared.write()?;
        let whole = self.len();
        check_range(offset, len, whole)?;
        if len == 0 { Ok(()) } else { self.zero_range(&writing, &cut, offset..end, whole) }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let writing = self.shared.write()?;
        let whole = self.len();
        let end = check_range(offset, len, whole)?;
        let start = offset.div_ceil(SECTOR).saturating_mul(SECTOR);
        let end = if end == whole { end } else { (end / SECTOR).saturating_mul(SECTOR) };
        if start < end { self.zero_range(&writing, &Cut(Vec::new()), start..end, whole) } else { Ok(()) }
    }

    fn flush(&self) -> Result<()> {
        self.shared.commit()
    }
}

impl ResizableDisk for LayerDisk {
    fn set_len(&self, len: u64) -> Result<()> {
        let writing = self.shared.write()?;
        let before = self.len();
        if len > i64::MAX.unsigned_abs() {
            return Err(Error::Refused(format!("a container cannot be {len} bytes long")));
        }
        if len < before {
            // What is cut off must not come back from the base when it grows again.
            self.zero_range(&writing, &Cut(Vec::new()), len..before, before)?;
        }
        self.shared.set_len(&writing, self.layer, len);
        Ok(())
    }
}

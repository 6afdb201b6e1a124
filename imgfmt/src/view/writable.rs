//! A view that takes writes, over an overlay.
//!
//! What is written to the disk in the file is written to the overlay's disk, so all views of one overlay agree. What is written to the structures around it, and
//! behind its end, goes into a layer of the overlay that belongs to this format.
//!
//! Byte `n` of the disk stays at byte `data_offset + n`, whatever is written: a program may rewrite a table (block allocation, block map, L1, L2, reference counts) with what is in it,
//! and no other bytes. So one that wants to move, drop or add blocks is refused, and never understood half. What a table may say besides is that a unit of the disk is zero
//! (`zeroed`).

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, Extent, WritableDisk, buf_len, check_range, read_vec};
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::overlay::{Overlay, ResizableDisk};
use crate::view::pieces::{Run, View};
use crate::view::table::{WITH_TABLE, identity_of_partition, is_partition_alone, with_table};
use crate::view::zeroed::{Right, Zeroed, moved};
use crate::view::{Offer, offers, raw};

/// Bytes of a table that are compared at once.
const PART: u64 = 64 << 10;

/// A virtual disk file that takes writes.
pub struct WritableView {
    view: Arc<View>,
    disk: Arc<dyn WritableDisk>,
    /// The file with what was written around the disk; a file that is the disk and nothing else has none.
    own: Option<Arc<dyn ResizableDisk>>,
    /// The table in it that can call parts of the disk zero.
    zeroed: Option<Zeroed>,
    /// Held while the file grows, so that no thread makes shorter what another one made longer.
    growing: Mutex<()>,
}

impl std::fmt::Debug for WritableView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritableView").field("view", &self.view).finish_non_exhaustive()
    }
}

/// A writable view of a disk, or why there is none.
#[derive(Debug)]
pub struct WritableOffer {
    /// The name of the file.
    pub name: String,
    /// The file, or why it cannot be: a phrase.
    pub view: Result<Arc<WritableView>, String>,
}

/// Shows `base` with what is written to an overlay, in every format, and a partition alone with a table around it too. The files have identifiers of their own, since
/// they are other disks than `base`.
pub fn writable_offers(overlay: &Overlay, base: Arc<dyn Disk>, identity: &Identity) -> Result<Vec<WritableOffer>> {
    // What the base is counts, so that what is written to it changes no names.
    let is_alone = is_partition_alone(&base);
    let disk = overlay.disk(base)?;
    let mut all = offers_of(overlay, &disk, "disk", &identity.of_part(&id_text(overlay)), "")?;
    if is_alone {
        match writable_with_table(overlay, disk, 1, identity)? {
            Ok(whole) => {
                let identity = identity_of_partition(identity, 1);
                let whole: Arc<dyn WritableDisk> = whole;
                all.extend(offers_of(overlay, &whole, WITH_TABLE, &identity.of_part(&id_text(overlay)), "t")?);
            }
            Err(reason) => all.push(WritableOffer { name: format!("{WITH_TABLE}.raw"), view: Err(reason) }),
        }
    }
    Ok(all)
}

/// Shows a partition that takes writes as a disk with a table around it ([`with_table`]). What is written to the table goes into a layer of the overlay that belongs to
/// the partition of this number. `identity` is that of the disk. The inner error is a phrase.
pub fn writable_with_table(
    overlay: &Overlay,
    partition: Arc<dyn WritableDisk>,
    number: u32,
    identity: &Identity,
) -> Result<Result<Arc<WritableView>, String>> {
    let shown: Arc<dyn Disk> = Arc::<dyn WritableDisk>::clone(&partition);
    match with_table(shown, &identity_of_partition(identity, number).of_part(&id_text(overlay))) {
        Ok(view) => WritableView::open(overlay, Arc::new(view), partition, &format!("t{number}")).map(Ok),
        Err(reason) => Ok(Err(reason)),
    }
}

fn id_text(overlay: &Overlay) -> String {
    overlay.summary().id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Shows a disk in every format; layers have the format's name behind `prefix`.
fn offers_of(
    overlay: &Overlay,
    disk: &Arc<dyn WritableDisk>,
    stem: &str,
    identity: &Identity,
    prefix: &str,
) -> Result<Vec<WritableOffer>> {
    let shown: Arc<dyn Disk> = Arc::<dyn WritableDisk>::clone(disk);
    let open = |offer: Offer| {
        let view = match offer.view {
            Err(reason) => return Ok(WritableOffer { name: offer.name, view: Err(reason) }),
            Ok(view) => view,
        };
        let view = WritableView::open(overlay, view, Arc::clone(disk), &format!("{prefix}{}", offer.format.name()))?;
        Ok(WritableOffer { name: offer.name, view: Ok(view) })
    };
    offers(&shown, stem, identity).into_iter().map(open).collect()
}

/// Shows a disk alone, such as a partition of an overlay's disk, as a raw file that takes writes.
pub fn writable_raw(disk: Arc<dyn WritableDisk>) -> WritableView {
    let view = Arc::new(raw::view(Arc::<dyn WritableDisk>::clone(&disk)));
    WritableView { view, disk, own: None, zeroed: None, growing: Mutex::new(()) }
}

/// Where a part of a range goes.
struct Part {
    run: Run,
    range: Range<u64>,
}

impl WritableView {
    /// Shows `disk` as `view` does; what is written around it goes to the layer `key`.
    fn open(overlay: &Overlay, view: Arc<View>, disk: Arc<dyn WritableDisk>, key: &str) -> Result<Arc<Self>> {
        let own = if view.is_disk_alone() { None } else { Some(overlay.container(key, Arc::<View>::clone(&view))?) };
        let zeroed = match (view.zero_map(), &own) {
            (Some(map), Some(own)) => Some(Zeroed::new(map, &view, &disk, own)),
            _ => None,
        };
        Ok(Arc::new(Self { view, disk, own, zeroed, growing: Mutex::new(()) }))
    }

    /// The parts of a range, which may reach past the end of the file.
    fn parts(&self, offset: u64, len: u64) -> Vec<Part> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        let mut parts = Vec::new();
        while at < end {
            let (run, run_end) = if at < self.view.len() { self.view.run_at(at) } else { (Run::Structure, u64::MAX) };
            let part_end = run_end.min(end);
            parts.push(Part { run, range: at..part_end });
            at = part_end;
        }
        parts
    }

    fn in_disk(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.view.data_offset())
    }

    /// Fails unless `wanted` may be written to all of these parts, so that a refused write changes nothing.
    fn check(&self, parts: &[Part], start: u64, wanted: &dyn Fn(Range<u64>) -> Vec<u8>) -> Result<()> {
        for part in parts {
            let mut at = part.range.start;
            while at < part.range.end && matches!(part.run, Run::Table | Run::ZeroMap | Run::Padding) {
                let end = part.range.end.min(at.saturating_add(PART));
                let len = usize::try_from(end.saturating_sub(at)).expect("a small part");
                let wanted = wanted(at.saturating_sub(start)..end.saturating_sub(start));
                match (part.run, &self.zeroed) {
                    (Run::ZeroMap, Some(zeroed)) => zeroed.check_table(&wanted, at)?,
                    _ if wanted == read_vec(&self.view, at, len)? => {}
                    (Run::Padding, _) => {
                        let text = format!("byte {at:#x} lies behind the end of the disk: only zeros can be there");
                        return Err(Error::Refused(text));
                    }
                    _ => return Err(moved(at)),
                }
                at = end;
            }
            let is_behind = part.range.end > self.view.len();
            if is_behind && self.own.is_none() {
                return Err(Error::Refused("the file is the disk and nothing else: it cannot become longer".into()));
            }
        }
        Ok(())
    }

    fn grow(&self, own: &dyn ResizableDisk, len: u64) -> Result<()> {
        let _growing = self.growing.lock().expect("no holder of the lock panics");
        if own.len() < len { own.set_len(len) } else { Ok(()) }
    }

    /// Takes the right to write to these parts, where the file has a table that this is about.
    fn right(&self, parts: &[Part]) -> Option<Right<'_>> {
        let to_table = parts.iter().any(|part| part.run == Run::ZeroMap);
        self.zeroed.as_ref().map(|zeroed| zeroed.right(to_table))
    }

    fn own_for(&self, range: &Range<u64>) -> Result<&dyn ResizableDisk> {
        let own = self.own.as_deref().expect("a file that is the disk alone has no structures");
        self.grow(own, range.end)?;
        Ok(own)
    }
}

impl Disk for WritableView {
    fn len(&self) -> u64 {
        self.own.as_ref().map_or(self.view.len(), |own| own.len())
    }

    fn sector_size(&self) -> u32 {
        self.view.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let mut rest = buf;
        for Part { run, range } in self.parts(offset, buf_len(rest)) {
            let len = usize::try_from(range.end.saturating_sub(range.start)).expect("a part of a buffer");
            let (part, after) = rest.split_at_mut(len);
            match (run, &self.own, &self.zeroed) {
                (Run::ZeroMap, _, Some(zeroed)) => zeroed.read_table(part, range.start)?,
                (Run::Structure, Some(own), _) => own.read_at(part, range.start)?,
                _ => self.view.read_at(part, range.start)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let rest = self.len().saturating_sub(offset);
        let part = self.parts(offset, rest).into_iter().next().expect("the offset is in the file");
        let extent = match (part.run, &self.own) {
            (Run::Structure | Run::ZeroMap, Some(own)) => own.extent_at(offset)?,
            _ => self.view.extent_at(offset)?,
        };
        let len = extent.len.min(part.range.end.saturating_sub(offset));
        Ok(Extent { len, ..extent })
    }
}

impl WritableDisk for WritableView {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(bytes), u64::MAX)?;
        let parts = self.parts(offset, buf_len(bytes));
        let part = |range: Range<u64>| {
            let at = |byte: u64| usize::try_from(byte).expect("a part of a buffer");
            bytes.get(at(range.start)..at(range.end)).expect("parts tile the buffer")
        };
        let _right = self.right(&parts);
        self.check(&parts, offset, &|range| part(range).to_vec())?;
        for Part { run, range } in parts {
            let bytes = part(range.start.saturating_sub(offset)..range.end.saturating_sub(offset));
            match (run, &self.zeroed) {
                (Run::Disk, Some(zeroed)) => zeroed.write_data(bytes, self.in_disk(range.start))?,
                (Run::Disk, None) => self.disk.write_at(bytes, self.in_disk(range.start))?,
                (Run::ZeroMap, Some(zeroed)) => zeroed.write_table(bytes, range.start)?,
                (Run::Structure, _) => self.own_for(&range)?.write_at(bytes, range.start)?,
                (Run::Table | Run::ZeroMap | Run::Padding, _) => {}
            }
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len, u64::MAX)?;
        let parts = self.parts(offset, len);
        let zeros = |range: Range<u64>| vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
        let _right = self.right(&parts);
        self.check(&parts, offset, &zeros)?;
        for Part { run, range } in parts {
            let len = range.end.saturating_sub(range.start);
            match (run, &self.zeroed) {
                (Run::Disk, Some(zeroed)) => {
                    zeroed.zero_data(&(self.in_disk(range.start)..self.in_disk(range.end)))?;
                }
                (Run::Disk, None) => self.disk.zero_at(self.in_disk(range.start), len)?,
                (Run::Structure, _) => self.own_for(&range)?.zero_at(range.start, len)?,
                // Its entries are never zero, so a range in it has been refused.
                (Run::Table | Run::ZeroMap | Run::Padding, _) => {}
            }
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len, self.len())?;
        for Part { run, range } in self.parts(offset, len) {
            if run == Run::Disk {
                self.disk.discard(self.in_disk(range.start), range.end.saturating_sub(range.start))?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        // One commit of the overlay makes all its layers durable.
        self.disk.flush()
    }
}

impl ResizableDisk for WritableView {
    /// Refused where a part of the disk would be cut off, or where the file is the disk and nothing else.
    fn set_len(&self, len: u64) -> Result<()> {
        if len == self.len() {
            return Ok(());
        }
        let least = self.view.padded_end();
        match &self.own {
            Some(own) if len >= least => {
                let _growing = self.growing.lock().expect("no holder of the lock panics");
                own.set_len(len)
            }
            Some(_) => {
                Err(Error::Refused(format!("the disk reaches to byte {least:#x} of the file: it cannot be cut")))
            }
            None => Err(Error::Refused("the file is the disk and nothing else: its length cannot change".into())),
        }
    }
}

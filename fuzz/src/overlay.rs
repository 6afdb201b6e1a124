//! Overlay files: whatever the bytes, a file is refused with an error or is a disk that keeps its promises, before and after it is written to.
//!
//! The oracle: what the file says of itself opens; extents tile and reads agree ([`formats`](crate::formats)); what was written is read back, also
//! after the file was opened again, or the read fails; and the file grows by no more than was written.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use imgfmt::overlay::{Overlay, ResizableDisk, SLOT, Storage};
use imgfmt::{Disk, Extent, ExtentKind, Result, WritableDisk};

use crate::formats::hold;
use crate::mutate::Random;

/// Slots by which the file may grow: what [`change`] writes, the pages of the map above it for each commit, and the free list.
const MOST_NEW: usize = 4096;
/// Levels of the map.
const LEVELS: u8 = 7;

/// A file in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|bytes| {
            let start = usize::try_from(offset).ok();
            let part = start.and_then(|start| bytes.get(start..start.checked_add(buf.len())?));
            buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|file| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let end = start.saturating_add(bytes.len());
            if file.len() < end {
                file.resize(end, 0);
            }
            file.get_mut(start..end).expect("made long enough").copy_from_slice(bytes);
            Ok(())
        })
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| u64::try_from(bytes.len()).expect("usize is at most 64 bits")))
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn name(&self) -> String {
        "fuzz.overlay".to_owned()
    }
}

/// A base of any length: sectors that hold their numbers, and a hole in each 16 MiB.
#[derive(Debug)]
struct Base {
    len: u64,
    sector_size: u32,
}

/// After how much there is the next hole.
const EACH: u64 = 16 << 20;
/// Where in each of these the hole begins, which ends with it.
const HOLE: u64 = 15 << 20;

impl Disk for Base {
    fn len(&self) -> u64 {
        self.len
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        imgfmt::disk::check_range(offset, imgfmt::disk::buf_len(buf), self.len)?;
        for (byte, at) in buf.iter_mut().zip(offset..) {
            *byte = if at % EACH >= HOLE { 0 } else { (at >> 9).to_le_bytes()[0] };
        }
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        imgfmt::disk::check_range(offset, 1, self.len)?;
        let (end, kind) = match offset % EACH {
            at if at < HOLE => (HOLE.saturating_sub(at), ExtentKind::Data),
            at => (EACH.saturating_sub(at), ExtentKind::Zero),
        };
        Ok(Extent { offset, len: end.min(self.len.saturating_sub(offset)), kind })
    }
}

/// Takes `data` as the file of an overlay: as it is, and with its checksums made right.
pub fn run(data: &[u8]) {
    let mut sealed = data.to_vec();
    Seal::all(&mut sealed);
    check(data);
    if sealed != data {
        check(&sealed);
    }
}

fn check(data: &[u8]) {
    let file = Memory::new(data.to_vec());
    let Ok(summary) = Overlay::examine_storage(Arc::new(file.clone())) else { return };
    let about = summary.about;
    let base = Arc::new(Base { len: about.disk_len, sector_size: about.sector_size });
    let open = || Overlay::open_on(Arc::new(file.clone()), &about).expect("what was looked at opens");
    let overlay = open();
    let mut random = Random::new(about.disk_len ^ summary.sequence);
    if let Ok(disk) = overlay.disk(Arc::<Base>::clone(&base)) {
        hold(&*disk);
        let written = change(&*disk, &mut random);
        if overlay.flush().is_ok() {
            // What was written is as it was, or it cannot be read: another part of the file may have been given the same slots.
            drop((disk, overlay));
            let overlay = open();
            let disk = overlay.disk(Arc::<Base>::clone(&base)).expect("it opened before");
            hold(&*disk);
            for (offset, bytes) in written {
                holds(&*disk, offset, &bytes);
            }
        }
    }
    for (key, base_len) in containers(data) {
        container(&open(), &key, base_len, &mut random);
    }
    let new = file.with(|bytes| bytes.len()).saturating_sub(data.len()) / SLOT;
    assert!(new <= MOST_NEW, "{new} slots are new");
}

/// Fails where a range can be read and has other bytes than these.
fn holds(disk: &dyn Disk, offset: u64, bytes: &[u8]) {
    let mut found = vec![0xcc; bytes.len()];
    if disk.read_at(&mut found, offset).is_ok() {
        assert!(found == bytes, "{} bytes at {offset} are others than were written", bytes.len());
    }
}

/// Writes, zeroes and discards. Returns what the writes of the last round wrote.
fn change(disk: &dyn WritableDisk, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
    let len = disk.len();
    let mut written = Vec::new();
    for round in 0..3_u8 {
        for most in [700, 9000, 200_000] {
            let part = random.below(most).saturating_add(1);
            let Some(room) = len.checked_sub(u64::try_from(part).unwrap_or(u64::MAX)) else { continue };
            let offset = random.next_u64().checked_rem(room.saturating_add(1)).unwrap_or(0);
            let bytes = vec![round.saturating_add(1); part];
            match random.below(5) {
                0 => drop(disk.zero_at(offset, 1 << 20)),
                1 => drop(disk.discard(offset, 1 << 18)),
                _ if disk.write_at(&bytes, offset).is_ok() => {
                    holds(disk, offset, &bytes);
                    written.push((offset, bytes));
                }
                _ => {}
            }
        }
        if round < 2 {
            written.clear();
            let _ = disk.flush();
        }
    }
    // Only the last one counts of those that overlap, or that something was zeroed over: the others were held when they were written.
    written.pop().into_iter().filter(|(offset, bytes)| still(disk, *offset, bytes)).collect()
}

/// Says whether nothing came after a write.
fn still(disk: &dyn Disk, offset: u64, bytes: &[u8]) -> bool {
    let mut found = vec![0; bytes.len()];
    disk.read_at(&mut found, offset).is_ok() && found == bytes
}

/// Opens a layer of a container, writes to it and changes its length.
fn container(overlay: &Overlay, key: &str, base_len: u64, random: &mut Random) {
    let base = Arc::new(Base { len: base_len, sector_size: 512 });
    let Ok(disk) = overlay.container(key, base) else { return };
    let disk: &dyn ResizableDisk = &*disk;
    hold(disk);
    change(disk, random);
    let len = disk.len();
    let less = len.saturating_sub(random.next_u64() & 0xf_ffff);
    if disk.set_len(less).is_ok() && disk.set_len(len).is_ok() {
        let cut = usize::try_from(len.saturating_sub(less)).expect("at most a MiB");
        holds(disk, less, &vec![0; cut]);
        hold(disk);
    }
}

/// Names and lengths of the bases of the layers behind the first one, by either commit.
fn containers(data: &[u8]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for commit in [1_usize, 2] {
        for layer in 1..16_usize {
            let at = commit.saturating_mul(SLOT).saturating_add(0x80).saturating_add(layer.saturating_mul(64));
            let (Some(key), Some(len)) = (data.get(at..at.saturating_add(8)), u64_at(data, at.saturating_add(0x10)))
            else {
                continue;
            };
            let key: String = key.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
            if !key.is_empty() && !found.contains(&(key.clone(), len)) {
                found.push((key, len));
            }
        }
    }
    found
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Makes checksums right, from the data and pages up to the commits: a fuzzer cannot, and would never get past them.
struct Seal<'a> {
    bytes: &'a mut [u8],
    /// Checksums of slots that were met, by level of the page; 0 while they are being made, so that loops end.
    done: HashMap<(u64, u8), u32>,
}

impl Seal<'_> {
    fn all(bytes: &mut [u8]) {
        for commit in [1_usize, 2] {
            let at = commit.saturating_mul(SLOT);
            let mut seal = Seal { bytes, done: HashMap::new() };
            for layer in 0..16_usize {
                let layer = at.saturating_add(0x80).saturating_add(layer.saturating_mul(64));
                let level = seal.bytes.get(layer.saturating_add(0x24)).copied().unwrap_or(0);
                seal.entry(layer.saturating_add(0x18), (level < LEVELS).then_some(level));
            }
            seal.free_list(at.saturating_add(0x38));
            seal.own(at);
        }
        Seal { bytes, done: HashMap::new() }.own(0);
    }

    fn slot(&mut self, slot: u64) -> Option<&mut [u8]> {
        let start = usize::try_from(slot).ok()?.checked_mul(SLOT)?;
        self.bytes.get_mut(start..start.checked_add(SLOT)?)
    }

    fn checksum(&mut self, slot: u64) -> u32 {
        self.slot(slot).map_or(0, |bytes| crc32fast::hash(bytes))
    }

    /// Puts the checksum of a slot behind its number.
    fn put(&mut self, at: usize, checksum: u32) {
        let at = at.saturating_add(8);
        if let Some(to) = self.bytes.get_mut(at..at.saturating_add(4)) {
            to.copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Seals what the number at byte `at` leads to: a page of a level, or data.
    fn entry(&mut self, at: usize, level: Option<u8>) {
        let Some(slot) = u64_at(self.bytes, at).filter(|slot| *slot != 0) else { return };
        let checksum = match level {
            Some(level) => self.page(slot, level),
            None => self.checksum(slot),
        };
        self.put(at, checksum);
    }

    fn page(&mut self, slot: u64, level: u8) -> u32 {
        if let Some(checksum) = self.done.get(&(slot, level)) {
            return *checksum;
        }
        self.done.insert((slot, level), 0);
        let start = usize::try_from(slot).ok().and_then(|slot| slot.checked_mul(SLOT));
        for entry in 0..SLOT / 16 {
            if let Some(start) = start {
                self.entry(start.saturating_add(entry.saturating_mul(16)), level.checked_sub(1));
            }
        }
        let checksum = self.checksum(slot);
        self.done.insert((slot, level), checksum);
        checksum
    }

    /// Seals the pages of the free list, from its end.
    fn free_list(&mut self, at: usize) {
        let mut chain = vec![at];
        while let Some(slot) = chain.last().and_then(|at| u64_at(self.bytes, *at)).filter(|slot| *slot != 0) {
            let start = usize::try_from(slot).ok().and_then(|slot| slot.checked_mul(SLOT));
            let Some(start) = start.filter(|start| *start < self.bytes.len() && !chain.contains(start)) else { break };
            chain.push(start);
        }
        for at in chain.into_iter().rev() {
            if let Some(slot) = u64_at(self.bytes, at).filter(|slot| *slot != 0) {
                let checksum = self.checksum(slot);
                self.put(at, checksum);
            }
        }
    }

    /// Seals a header or commit, whose checksum is at 0x0c in itself.
    fn own(&mut self, at: usize) {
        let Some(slot) = self.bytes.get_mut(at..at.saturating_add(SLOT)) else { return };
        slot[0x0c..0x10].fill(0);
        let checksum = crc32fast::hash(slot);
        slot[0x0c..0x10].copy_from_slice(&checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use imgfmt::overlay::{About, Proof};

    use super::*;
    use crate::mutate::mutate;

    /// An overlay with two commits, a container, pages of two levels, free slots, and a few runs of data.
    fn seed() -> Vec<u8> {
        let base = Arc::new(Base { len: (300 << 20) + 700, sector_size: 512 });
        let proof = Proof::Other { format: "raw".to_owned(), digest: [7; 32] };
        let about = About { name: "disk.raw".into(), proof, modified: 1, disk_len: base.len, sector_size: 512 };
        let file = Memory::default();
        let overlay = Overlay::create_on(Arc::new(file.clone()), &about).unwrap();
        let disk = overlay.disk(base).unwrap();
        disk.write_at(&[1; 40_000], 1000).unwrap();
        disk.zero_at(200 << 20, 2 << 20).unwrap();
        disk.flush().unwrap();
        disk.write_at(&[2; 9_000], 5000).unwrap();
        disk.write_at(&[3; 512], (300 << 20) + 100).unwrap();
        disk.flush().unwrap();
        let container = overlay.container("vmdk", Arc::new(Base { len: 1 << 20, sector_size: 512 })).unwrap();
        container.set_len(3 << 20).unwrap();
        container.write_at(&[4; 700], 2 << 20).unwrap();
        container.flush().unwrap();
        drop((disk, container, overlay));
        file.with(|bytes| bytes.clone())
    }

    #[test]
    fn a_seed_is_sealed_as_it_is() {
        let seed = seed();
        let mut sealed = seed.clone();
        Seal::all(&mut sealed);
        assert!(seed == sealed, "making its checksums right changes a file whose checksums are right");
        assert!(Overlay::examine_storage(Arc::new(Memory::new(seed.clone()))).is_ok());
        assert_eq!(containers(&seed), [("vmdk".to_owned(), 1 << 20)]);
    }

    #[test]
    fn seed_and_mutations_of_it() {
        let seed = seed();
        run(&seed);
        let slots = seed.len() / SLOT;
        let mut random = Random::new(61);
        for round in 0..250 {
            let mut bytes = seed.clone();
            // The header and the commits, where they hold something; and slots, of which most are data.
            let (start, len) = match round % 5 {
                0 => (0, 0x120),
                1 => (SLOT, 0x100),
                2 => (2 * SLOT, 0x100),
                _ => (random.below(slots) * SLOT, [64, SLOT][random.below(2)]),
            };
            mutate(&mut bytes[start..start + len], len, &mut random);
            if round % 4 == 3 {
                // A number of a slot that is another one's.
                let to = random.below(slots) * SLOT + random.below(256) * 16;
                bytes[to..to + 8].copy_from_slice(&u64::try_from(random.below(slots + 2)).unwrap().to_le_bytes());
            }
            if round % 10 == 9 {
                bytes.truncate(random.below(bytes.len()));
            }
            run(&bytes);
        }
    }
}

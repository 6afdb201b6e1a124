//! Changing tables: a GPT for a disk of another length, other ends of partitions, other identities.
//!
//! Nothing is written here: each function gives the bytes that a disk would need.
//!
//! Source: UEFI specification 2.10 sections 5.2 and 5.3.

use std::ops::Range;

use crate::bytes::{array, le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::partition::gpt::{Copy, read_copy};
use crate::partition::{Layout, mbr};

/// Bytes of an entry of the MBR.
const MBR_ENTRY: usize = 16;
/// Where the four entries of an MBR begin.
const MBR_ENTRIES: usize = 446;

/// Bytes at a place of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First byte on the disk.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A GPT taken apart for changing.
#[derive(Clone, Debug)]
pub struct Gpt {
    copy: Copy,
    primary_array: u64,
    sector: u64,
    /// Where both copies lie on the disk that it was read from, entries included, as far as they could be read.
    places: Vec<Range<u64>>,
}

impl Gpt {
    /// Reads the copy in force: the primary, or the backup where that is damaged. `None` where there is neither.
    pub fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let sector = u64::from(disk.sector_size());
        let last = disk.len().checked_div(sector).unwrap_or(0).saturating_sub(1);
        let primary = read_copy(disk, 1)?.ok();
        let backup = read_copy(disk, primary.as_ref().map_or(last, |primary| primary.alternate_lba))?.ok();
        let backup = match backup {
            None => read_copy(disk, last)?.ok(),
            backup => backup,
        };
        let mut places = Vec::new();
        for copy in [&primary, &backup].into_iter().flatten() {
            let len = u64::try_from(copy.entries.len()).unwrap_or(0);
            for (lba, len) in [(copy.my_lba, sector), (copy.array_lba, len)] {
                let start = lba.saturating_mul(sector).min(disk.len());
                places.push(start..start.saturating_add(len).min(disk.len()));
            }
        }
        let primary_array = primary.as_ref().map_or(2, |primary| primary.array_lba);
        let Some(copy) = primary.or(backup) else { return Ok(None) };
        Ok(Some(Self { copy, primary_array, sector, places }))
    }

    /// Where its copies lie on the disk that it was read from.
    pub fn places(&self) -> &[Range<u64>] {
        &self.places
    }

    fn array_sectors(&self) -> u64 {
        u64::try_from(self.copy.entries.len()).unwrap_or(u64::MAX).div_ceil(self.sector.max(1))
    }

    /// First byte behind the last one that partitions can use on a disk of `disk_len` bytes. `None` where the disk is too small for the table.
    pub fn usable_end(&self, disk_len: u64) -> Option<u64> {
        let sectors = disk_len.checked_div(self.sector)?;
        let end = sectors.checked_sub(1)?.checked_sub(self.array_sectors())?;
        let first = le64(&self.copy.header, 40)?;
        (end > first).then(|| end.saturating_mul(self.sector))
    }

    fn entry(&mut self, number: u32) -> Result<&mut [u8]> {
        let missing = || Error::NotFound(format!("the GPT has no entry {number}"));
        let len = usize::try_from(self.copy.entry_len).map_err(|_| missing())?;
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or_else(missing)?;
        let start = index.checked_mul(len).ok_or_else(missing)?;
        self.copy.entries.get_mut(start..start.saturating_add(len)).ok_or_else(missing)
    }

    /// Lets partition `number` end before byte `end` of the disk.
    pub fn set_end(&mut self, number: u32, end: u64) -> Result<()> {
        let last = end.checked_div(self.sector).unwrap_or(0).saturating_sub(1);
        put(self.entry(number)?, 40, &last.to_le_bytes());
        Ok(())
    }

    /// Gives partition `number` another GUID, in the order of bytes on the disk.
    pub fn set_partition_guid(&mut self, number: u32, guid: [u8; 16]) -> Result<()> {
        put(self.entry(number)?, 16, &guid);
        Ok(())
    }

    /// Gives the disk another GUID, in the order of bytes on the disk.
    pub fn set_disk_guid(&mut self, guid: [u8; 16]) {
        self.copy.disk_guid = guid;
    }

    /// The GUID of the disk, in the order of bytes on the disk.
    pub fn disk_guid(&self) -> [u8; 16] {
        self.copy.disk_guid
    }

    /// The GUID of partition `number`, in the order of bytes on the disk.
    pub fn partition_guid(&mut self, number: u32) -> Result<[u8; 16]> {
        let missing = || Error::NotFound(format!("the GPT has no entry {number}"));
        array(self.entry(number)?, 16).ok_or_else(missing)
    }

    /// The numbers of the entries in use.
    pub fn numbers(&self) -> Vec<u32> {
        let len = usize::try_from(self.copy.entry_len).unwrap_or(128).max(1);
        let used = |(_, entry): &(u32, &[u8])| array::<16>(entry, 0).is_some_and(|kind| kind != [0; 16]);
        (1_u32..).zip(self.copy.entries.chunks_exact(len)).filter(used).map(|(number, _)| number).collect()
    }

    /// Both copies, for a disk of `disk_len` bytes, with places and checksums made anew: the backup's entries and header first.
    pub fn render(&self, disk_len: u64) -> Result<Vec<Patch>> {
        let too_small = || Error::Refused(format!("a disk of {disk_len} bytes is too small for the GPT"));
        let usable_end = self.usable_end(disk_len).ok_or_else(too_small)?;
        let last_usable = usable_end.checked_div(self.sector).unwrap_or(0).saturating_sub(1);
        let last = disk_len.checked_div(self.sector).ok_or_else(too_small)?.saturating_sub(1);
        let backup_array = last.saturating_sub(self.array_sectors());
        let mut patches = Vec::new();
        for (my, alternate, array) in [(last, 1, backup_array), (1, last, self.primary_array)] {
            patches.push(Patch { offset: array.saturating_mul(self.sector), bytes: self.copy.entries.clone() });
            let mut header = self.copy.header.clone();
            put(&mut header, 24, &my.to_le_bytes());
            put(&mut header, 32, &alternate.to_le_bytes());
            put(&mut header, 48, &last_usable.to_le_bytes());
            put(&mut header, 56, &self.copy.disk_guid);
            put(&mut header, 72, &array.to_le_bytes());
            put(&mut header, 88, &crc32fast::hash(&self.copy.entries).to_le_bytes());
            put(&mut header, 16, &[0; 4]);
            let len = le32(&header, 12).and_then(|len| usize::try_from(len).ok()).unwrap_or(92);
            let crc = crc32fast::hash(header.get(..len).unwrap_or(&header));
            put(&mut header, 16, &crc.to_le_bytes());
            patches.push(Patch { offset: my.saturating_mul(self.sector), bytes: header });
        }
        Ok(patches)
    }
}

/// Writes `bytes` at a place of a buffer that is known to be long enough.
pub(super) fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    let place = at.checked_add(bytes.len()).and_then(|end| buffer.get_mut(at..end));
    place.expect("a table is longer than its fields").copy_from_slice(bytes);
}

/// The first sector with its protective entry made for a disk of `disk_len` bytes. `None` where there is no such entry, or one that protects only a part.
pub fn protective_mbr(first: &[u8], old_len: u64, disk_len: u64, sector: u64) -> Option<Vec<u8>> {
    let table = mbr::parse_sector(first)?;
    let index = table.entries.iter().position(|entry| entry.os_type == 0xee)?;
    let entry = table.entries.get(index)?;
    let sectors = |len: u64| u32::try_from(len.checked_div(sector).unwrap_or(0).saturating_sub(1)).unwrap_or(u32::MAX);
    // A hybrid MBR lets the entry end before the first partition that it lists; that place does not move.
    let whole = entry.starting_lba == 1 && (entry.size_in_lba == u32::MAX || entry.size_in_lba == sectors(old_len));
    if !whole {
        return None;
    }
    let mut bytes = first.to_vec();
    let at = MBR_ENTRIES.saturating_add(index.saturating_mul(MBR_ENTRY));
    put(&mut bytes, at.saturating_add(12), &sectors(disk_len).to_le_bytes());
    Some(bytes)
}

/// Where the entry of an MBR partition lies, and what its first sector counts from.
struct EntryPlace {
    /// The sector that holds it.
    sector: u64,
    /// Its index there.
    index: usize,
    /// Sectors are counted from here, in bytes.
    base: u64,
}

/// Lets an MBR partition, primary or logical, end before byte `end`; an extended partition around it and the link that leads to it follow. The end is
/// clipped to what an entry can say.
pub fn set_mbr_end(disk: &dyn Disk, layout: &Layout, number: u32, end: u64) -> Result<Vec<Patch>> {
    let sector = u64::from(disk.sector_size());
    let partition = layout.partitions.iter().find(|partition| partition.number == number);
    let partition = partition.ok_or_else(|| Error::NotFound(format!("there is no partition {number}")))?;
    let old_end = partition.range.end;
    let mut places = Vec::new();
    if number <= 4 {
        let index = usize::try_from(number.saturating_sub(1)).unwrap_or(0);
        places.push(EntryPlace { sector: 0, index, base: 0 });
    } else {
        let ebr = |number: u32| {
            let name = format!("EBR of partition {number}");
            // An empty record before the real one has the same name.
            layout.structures.iter().rfind(|structure| structure.what == name).map(|structure| structure.range.start)
        };
        let own = ebr(number).ok_or_else(|| Error::NotFound(format!("partition {number} has no boot record")))?;
        let first = read_vec(disk, 0, 512)?;
        let extended = mbr::parse_sector(&first)
            .and_then(|table| table.entries.iter().position(mbr::Entry::is_extended).map(|index| (index, table)));
        let (index, table) = extended.ok_or_else(|| Error::NotFound("there is no extended partition".into()))?;
        let base = table.entries.get(index).map_or(0, |entry| u64::from(entry.starting_lba)).saturating_mul(sector);
        places.push(EntryPlace { sector: own, index: 0, base: own });
        if let Some(before) = ebr(number.saturating_sub(1)).filter(|_| number > 5) {
            places.push(EntryPlace { sector: before, index: 1, base });
        }
        places.push(EntryPlace { sector: 0, index, base: 0 });
    }
    let mut patches: Vec<Patch> = Vec::new();
    for (n, place) in places.iter().enumerate() {
        let existing = patches.iter().position(|patch| patch.offset == place.sector);
        let mut bytes = match existing.and_then(|index| patches.get(index)) {
            Some(patch) => patch.bytes.clone(),
            None => read_vec(disk, place.sector, 512)?,
        };
        let at = MBR_ENTRIES.saturating_add(place.index.saturating_mul(MBR_ENTRY));
        let start = le32(&bytes, at.saturating_add(8)).map_or(0, u64::from).saturating_mul(sector);
        let start = start.saturating_add(place.base);
        let len = le32(&bytes, at.saturating_add(12)).map_or(0, u64::from).saturating_mul(sector);
        let entry_end = start.saturating_add(len);
        // The partition itself, the link to it, and the extended partition: each ends with it, or goes on behind it and stays.
        let new_end = if n == 0 || entry_end == old_end || (end > old_end && entry_end < end) { end } else { continue };
        let sectors = new_end.saturating_sub(start).checked_div(sector).unwrap_or(0);
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        put(&mut bytes, at.saturating_add(12), &sectors.to_le_bytes());
        let last = start.checked_div(sector).unwrap_or(0).saturating_add(u64::from(sectors)).saturating_sub(1);
        put(&mut bytes, at.saturating_add(5), &chs(last));
        match existing.and_then(|index| patches.get_mut(index)) {
            Some(patch) => patch.bytes = bytes,
            None => patches.push(Patch { offset: place.sector, bytes }),
        }
    }
    Ok(patches)
}

/// Lets the extended partition end before byte `end` where it reaches further.
pub fn clip_extended(first: &[u8], end: u64, sector: u64) -> Option<Vec<u8>> {
    let table = mbr::parse_sector(first)?;
    let index = table.entries.iter().position(mbr::Entry::is_extended)?;
    let entry = table.entries.get(index)?;
    let end_lba = end.checked_div(sector)?;
    let start = u64::from(entry.starting_lba);
    if start.saturating_add(u64::from(entry.size_in_lba)) <= end_lba {
        return None;
    }
    let sectors = u32::try_from(end_lba.checked_sub(start)?).ok()?;
    let mut bytes = first.to_vec();
    let at = MBR_ENTRIES.saturating_add(index.saturating_mul(MBR_ENTRY));
    put(&mut bytes, at.saturating_add(12), &sectors.to_le_bytes());
    put(&mut bytes, at.saturating_add(5), &chs(end_lba.saturating_sub(1)));
    Some(bytes)
}

/// The cylinder, head and sector of an entry's end, for 255 heads and 63 sectors; what lies past the last cylinder is what everybody writes there.
pub(super) fn chs(lba: u64) -> [u8; 3] {
    const PER_CYLINDER: u64 = 255 * 63;
    let cylinder = lba / PER_CYLINDER;
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let head = u8::try_from((lba % PER_CYLINDER) / 63).unwrap_or(0xfe);
    let sector = u8::try_from(lba % 63).unwrap_or(0).saturating_add(1);
    let (low, high) = (u8::try_from(cylinder & 0xff).unwrap_or(0xff), u8::try_from(cylinder >> 8).unwrap_or(3));
    [head, sector | (high << 6), low]
}

/// The boot sectors of a filesystem that was moved to byte `start` of its disk, where they say where they lie: NTFS, FAT and exFAT. Offsets are of the
/// partition. The parameter `partition` is the partition as it will be.
pub fn moved_boot_sectors(partition: &dyn Disk, start: u64) -> Result<Vec<Patch>> {
    let sector = u64::from(partition.sector_size());
    let lba = start.checked_div(sector).unwrap_or(0);
    if partition.len() < 4096 {
        return Ok(Vec::new());
    }
    let head = read_vec(partition, 0, 512)?;
    if head.get(3..11) == Some(b"EXFAT   ") {
        return moved_exfat(partition, lba);
    }
    if !mbr::looks_like_boot_sector(&head) {
        return Ok(Vec::new());
    }
    let Ok(hidden) = u32::try_from(lba) else { return Ok(Vec::new()) };
    let mut places = vec![0];
    let bytes_per_sector = crate::bytes::le16(&head, 11).map_or(512, u64::from);
    if head.get(3..11) == Some(b"NTFS    ") {
        places.extend(le64(&head, 0x28).and_then(|total| total.checked_mul(bytes_per_sector)));
    } else if head.get(82..87) == Some(b"FAT32") {
        places.extend(crate::bytes::le16(&head, 50).map(|backup| u64::from(backup).saturating_mul(bytes_per_sector)));
    }
    places.dedup();
    let mut patches = Vec::new();
    for place in places {
        if place.checked_add(512).is_none_or(|end| end > partition.len()) {
            continue;
        }
        let mut bytes = read_vec(partition, place, 512)?;
        // A backup that is none is left alone.
        if bytes.get(3..11) != head.get(3..11) || le32(&bytes, 28) == Some(hidden) {
            continue;
        }
        put(&mut bytes, 28, &hidden.to_le_bytes());
        patches.push(Patch { offset: place, bytes });
    }
    Ok(patches)
}

/// Both boot regions with another partition offset, and their checksum sectors.
///
/// Source: exFAT file system specification, sections 3.1.4 and 3.4.
fn moved_exfat(partition: &dyn Disk, lba: u64) -> Result<Vec<Patch>> {
    let head = read_vec(partition, 0, 512)?;
    let shift = head.get(108).copied().filter(|shift| (9..=12).contains(shift));
    let Some(sector) = shift.map(|shift| 1_usize << shift) else { return Ok(Vec::new()) };
    let region = sector.saturating_mul(12);
    let mut patches = Vec::new();
    for place in [0, u64::try_from(region).unwrap_or(u64::MAX)] {
        if place.saturating_add(u64::try_from(region).unwrap_or(u64::MAX)) > partition.len() {
            continue;
        }
        let mut bytes = read_vec(partition, place, region)?;
        if bytes.get(3..11) != Some(b"EXFAT   ") || le64(&bytes, 64) == Some(lba) {
            continue;
        }
        put(&mut bytes, 64, &lba.to_le_bytes());
        let covered = sector.saturating_mul(11);
        let mut sum = 0_u32;
        for (at, byte) in bytes.iter().take(covered).enumerate() {
            // Flags and percent in use change while the volume is used.
            if !matches!(at, 106 | 107 | 112) {
                sum = sum.rotate_right(1).wrapping_add(u32::from(*byte));
            }
        }
        for at in (covered..region).step_by(4) {
            put(&mut bytes, at, &sum.to_le_bytes());
        }
        patches.push(Patch { offset: place, bytes });
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_past_the_last_cylinder_are_what_everybody_writes() {
        assert_eq!(chs(0), [0, 1, 0]);
        assert_eq!(chs(62), [0, 63, 0]);
        assert_eq!(chs(63), [1, 1, 0]);
        assert_eq!(chs(255 * 63), [0, 1, 1]);
        assert_eq!(chs(255 * 63 * 1024 - 1), [254, 63 | 0xc0, 255]);
        assert_eq!(chs(255 * 63 * 1024), [0xfe, 0xff, 0xff]);
    }
}

//! Which ranges of a scope are tables: written last, and made invalid first.

use std::ops::Range;

use crate::bytes::{le16, le32, le64, u8_at};
use crate::disk::{Disk, Slice, read_vec};
use crate::error::{Error, Result};
use crate::partition::{Layout, Scheme, Structure};
use crate::ranges::RangeSet;

/// What counts as the start of a filesystem that is not known better.
const HEAD: u64 = 4096;
/// Longest reserved area of a FAT filesystem that counts as its boot sectors.
const MAX_RESERVED: u64 = 64 << 10;

/// The tables of a scope in the order in which they are written: each group is flushed before the next, and the last one makes the scope valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// EBRs, backup GPT, backups of boot sectors and superblocks.
    pub backup: Vec<Structure>,
    /// The primary GPT.
    pub primary: Vec<Structure>,
    /// The first sector of a disk, or the head of a filesystem.
    pub first: Vec<Structure>,
}

impl Tables {
    /// The groups in the order of writing.
    pub fn groups(&self) -> [&[Structure]; 3] {
        [&self.backup, &self.primary, &self.first]
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Structure> {
        self.groups().into_iter().flatten()
    }

    /// Every byte of them.
    pub fn ranges(&self) -> RangeSet {
        RangeSet::from_unsorted(self.all().map(|structure| structure.range.clone()).collect())
    }

    /// Cuts overlaps, so that each byte belongs to one structure: the one that is written last.
    fn without_overlaps(mut self) -> Self {
        let mut taken = RangeSet::empty();
        for group in [&mut self.first, &mut self.primary, &mut self.backup] {
            let mut rest = Vec::new();
            for structure in group.drain(..) {
                let own = RangeSet::from_range(structure.range.clone()).minus(&taken);
                rest.extend(own.iter().map(|range| Structure { what: structure.what.clone(), range }));
                taken = taken.union(&own);
            }
            *group = rest;
        }
        self
    }
}

/// The tables of a whole disk. Without a partition table, those of the filesystem that fills it.
pub fn of_disk(disk: &dyn Disk, layout: &Layout) -> Result<Tables> {
    if layout.scheme == Scheme::None {
        let mut tables = of_filesystem(disk)?;
        tables.backup.extend(stray_gpt(disk)?);
        return Ok(tables.without_overlaps());
    }
    let mut tables = Tables::default();
    let sector = u64::from(disk.sector_size());
    for structure in &layout.structures {
        let structure = structure.clone();
        if structure.range.start == 0 {
            tables.first.push(Structure { what: structure.what, range: 0..sector.min(disk.len()) });
        } else if structure.what.starts_with("primary") {
            tables.primary.push(structure);
        } else {
            tables.backup.push(structure);
        }
    }
    tables.backup.extend(stray_gpt(disk)?);
    Ok(tables.without_overlaps())
}

/// Headers of a GPT that is not in force: some programs would take them for one.
fn stray_gpt(disk: &dyn Disk) -> Result<Vec<Structure>> {
    let sector = u64::from(disk.sector_size());
    let mut found = Vec::new();
    let last = disk.len().checked_div(sector).unwrap_or(0).saturating_sub(1);
    for lba in [1, last] {
        let at = lba.saturating_mul(sector);
        if lba >= 1 && at.saturating_add(sector) <= disk.len() && has(disk, at, b"EFI PART")? {
            found.push(Structure { what: "GPT header".into(), range: at..at.saturating_add(sector) });
        }
    }
    Ok(found)
}

/// Says whether `magic` lies at a place. What cannot be read has none.
fn has(disk: &dyn Disk, offset: u64, magic: &[u8]) -> Result<bool> {
    Ok(read_or_none(disk, offset, magic.len())?.is_some_and(|bytes| bytes == magic))
}

fn read_or_none(disk: &dyn Disk, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
    let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
    if end.is_none_or(|end| end > disk.len()) {
        return Ok(None);
    }
    match read_vec(disk, offset, len) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_unreadable_medium() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The boot sectors or the superblock of the filesystem in a partition, and their backup. Where none is known, the first 4 KiB.
pub fn of_filesystem(partition: &dyn Disk) -> Result<Tables> {
    let len = partition.len();
    let clip = |range: Range<u64>| range.start.min(len)..range.end.min(len);
    let mut tables = Tables::default();
    let mut push = |is_first: bool, what: &str, range: Range<u64>| {
        let range = clip(range);
        if !range.is_empty() {
            let group = if is_first { &mut tables.first } else { &mut tables.backup };
            group.push(Structure { what: what.to_owned(), range });
        }
    };
    let head = read_or_none(partition, 0, 2048.min(usize::try_from(len).unwrap_or(2048)))?.unwrap_or_default();
    let sector = u64::from(le16(&head, 11).unwrap_or(0));
    let is_sector = matches!(sector, 512 | 1024 | 2048 | 4096);
    if head.get(3..11) == Some(b"NTFS    ") && is_sector {
        push(true, "NTFS boot sectors", 0..8192);
        if let Some(at) = le64(&head, 0x28).and_then(|total| total.checked_mul(sector)) {
            push(false, "NTFS backup boot sector", at..at.saturating_add(sector));
        }
    } else if head.get(3..11) == Some(b"EXFAT   ") {
        let shift = u8_at(&head, 108).filter(|shift| (9..=12).contains(shift)).unwrap_or(9);
        let boot = 12_u64 << shift;
        push(true, "exFAT boot sectors", 0..boot);
        push(false, "exFAT backup boot sectors", boot..boot.saturating_mul(2));
    } else if crate::partition::mbr::looks_like_boot_sector(&head) && is_sector {
        let reserved = u64::from(le16(&head, 14).unwrap_or(1)).max(1).saturating_mul(sector).min(MAX_RESERVED);
        push(true, "FAT boot sectors", 0..reserved);
    } else if le16(&head, 1024 + 56) == Some(0xef53) {
        push(true, "ext superblock", 0..HEAD);
        let per_group = le32(&head, 1024 + 32).unwrap_or(0);
        let first = le32(&head, 1024 + 20).unwrap_or(0);
        if let Some(block) = le32(&head, 1024 + 24).filter(|log| *log <= 6).map(|log| 1024_u64 << log) {
            let at = u64::from(first).saturating_add(u64::from(per_group)).saturating_mul(block);
            push(false, "ext backup superblock", at..at.saturating_add(block));
        }
    } else if has(partition, 0x1_0040, b"_BHRfS_M")? {
        push(true, "btrfs superblock", 0x1_0000..0x1_1000);
        push(false, "btrfs backup superblock", 0x400_0000..0x400_1000);
        push(true, "boot block", 0..HEAD);
    } else {
        push(true, "start of the partition", 0..HEAD);
    }
    Ok(tables.without_overlaps())
}

/// A partition of a disk for looking into it.
pub fn partition_of<D: Disk>(disk: D, layout: &Layout, number: u32) -> Result<Slice<D>> {
    let partition = layout.partitions.iter().find(|partition| partition.number == number);
    let partition = partition.ok_or_else(|| Error::NotFound(format!("there is no partition {number}")))?;
    if let Some(reason) = partition.unusable {
        return Err(Error::Refused(format!("partition {number} {reason}")));
    }
    Slice::open(disk, partition.range.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn every_byte_of_a_table_belongs_to_the_structure_that_is_written_last() {
        let structure = |what: &str, range| Structure { what: what.into(), range };
        let tables = Tables {
            backup: vec![structure("b", 0..5000)],
            primary: vec![structure("p", 400..1000)],
            first: vec![structure("f", 0..512)],
        }
        .without_overlaps();
        assert_eq!(tables.first, [structure("f", 0..512)]);
        assert_eq!(tables.primary, [structure("p", 512..1000)]);
        assert_eq!(tables.backup, [structure("b", 1000..5000)]);
        assert_eq!(tables.ranges().total(), 5000);
    }

    #[test]
    fn an_unknown_partition_begins_with_its_first_4_kib() {
        let tables = of_filesystem(&MemoryDisk::new(vec![1; 10_000])).unwrap();
        assert_eq!(tables.first[0].range, 0..4096);
        assert!(tables.backup.is_empty());
        assert_eq!(of_filesystem(&MemoryDisk::new(vec![1; 700])).unwrap().first[0].range, 0..700);
        assert!(of_filesystem(&MemoryDisk::new(Vec::new())).unwrap().first.is_empty());
    }
}

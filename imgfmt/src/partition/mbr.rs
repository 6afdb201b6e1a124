//! Master boot record: four primary entries, and a chain of extended boot records for the logical ones.
//!
//! Source: UEFI specification 2.10 section 5.2 (legacy MBR), and the extended partition chain as documented for fdisk.

use crate::bytes::{array, le16, le32, u8_at};
use crate::disk::{Disk, read_vec};
use crate::error::Result;
use crate::partition::{Layout, Partition, Scheme, Structure};

/// Logical partitions that are followed: more than any system makes, and an end to chains that loop.
const MAX_LOGICAL: u32 = 256;

/// One of the four entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 0x80 where the boot indicator is set, 0 where not; anything else breaks the rules.
    pub boot_indicator: u8,
    /// Type byte; 0 for an empty entry.
    pub os_type: u8,
    /// First sector.
    pub starting_lba: u32,
    /// Number of sectors.
    pub size_in_lba: u32,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.os_type == 0 || self.size_in_lba == 0
    }

    /// Says whether it holds logical partitions.
    pub fn is_extended(&self) -> bool {
        matches!(self.os_type, 0x05 | 0x0f | 0x85)
    }
}

/// The sector's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Disk signature at byte 440.
    pub signature: u32,
    /// Entries at byte 446.
    pub entries: [Entry; 4],
}

impl Table {
    /// Says whether it protects a GPT (one entry of type 0xee).
    pub fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.os_type == 0xee)
    }

    /// Says whether it lists nothing.
    pub fn is_blank(&self) -> bool {
        self.entries.iter().all(Entry::is_empty)
    }
}

/// Parses 512 bytes as an MBR or EBR; `None` without the 0x55 0xaa at their end.
pub fn parse_sector(bytes: &[u8]) -> Option<Table> {
    if le16(bytes, 510)? != 0xaa55 {
        return None;
    }
    let entry = |at: usize| {
        let raw: [u8; 16] = array(bytes, at)?;
        Some(Entry {
            boot_indicator: u8_at(&raw, 0)?,
            os_type: u8_at(&raw, 4)?,
            starting_lba: le32(&raw, 8)?,
            size_in_lba: le32(&raw, 12)?,
        })
    };
    Some(Table { signature: le32(bytes, 440)?, entries: [entry(446)?, entry(462)?, entry(478)?, entry(494)?] })
}

/// Says whether the sector is the boot sector of a filesystem, which also ends in 0x55 0xaa.
pub fn looks_like_boot_sector(bytes: &[u8]) -> bool {
    let named = [&b"NTFS    "[..], b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0"];
    if bytes.get(3..11).is_some_and(|name| named.contains(&name)) {
        return true;
    }
    // FAT: a jump, a plausible parameter block, and one of its own type strings.
    let jump = matches!(bytes.first(), Some(0xeb | 0xe9));
    let strings = bytes.get(54..59) == Some(b"FAT12")
        || bytes.get(54..59) == Some(b"FAT16")
        || bytes.get(54..57) == Some(b"FAT")
        || bytes.get(82..87) == Some(b"FAT32");
    let sector = le16(bytes, 11).unwrap_or(0);
    jump && strings && matches!(sector, 512 | 1024 | 2048 | 4096)
}

/// Says whether the entries could be a table: at least one, indicators of 0 or 0x80, all inside the disk, none overlapping.
pub fn is_plausible(table: &Table, disk: &dyn Disk) -> bool {
    let sectors = disk.len().checked_div(u64::from(disk.sector_size())).unwrap_or(0);
    let mut used: Vec<(u64, u64)> = Vec::new();
    for entry in &table.entries {
        if !matches!(entry.boot_indicator, 0 | 0x80) {
            return false;
        }
        if entry.is_empty() {
            continue;
        }
        let start = u64::from(entry.starting_lba);
        let end = start.saturating_add(u64::from(entry.size_in_lba));
        if start == 0 || end > sectors || used.iter().any(|(a, b)| start < *b && *a < end) {
            return false;
        }
        used.push((start, end));
    }
    !used.is_empty()
}

/// Reads the primary and logical partitions into `layout`.
pub fn read(disk: &dyn Disk, table: &Table, layout: &mut Layout) -> Result<()> {
    layout.scheme = Scheme::Mbr;
    layout.disk_id = format!("{:08x}", table.signature);
    let sector = u64::from(disk.sector_size());
    let mut extended = Vec::new();
    for (number, entry) in (1_u32..).zip(&table.entries) {
        if !matches!(entry.boot_indicator, 0 | 0x80) {
            layout.problems.push(format!("the boot indicator of entry {number} is neither set nor clear"));
        }
        if entry.is_empty() {
            continue;
        }
        if entry.is_extended() {
            extended.push(*entry);
            continue;
        }
        let start = u64::from(entry.starting_lba).saturating_mul(sector);
        push(layout, number, start, entry, sector);
    }
    if extended.len() > 1 {
        layout.problems.push(format!("the table has {} extended partitions; the first is followed", extended.len()));
    }
    match extended.first() {
        Some(entry) => read_logical(disk, entry, layout),
        None => Ok(()),
    }
}

fn push(layout: &mut Layout, number: u32, start: u64, entry: &Entry, sector: u64) {
    let end = start.saturating_add(u64::from(entry.size_in_lba).saturating_mul(sector));
    layout.partitions.push(Partition {
        number,
        range: start..end,
        type_code: format!("{:02x}", entry.os_type),
        type_name: type_name(entry.os_type),
        id: format!("{}-{number:02x}", layout.disk_id),
        active: entry.boot_indicator == 0x80,
        ..Partition::default()
    });
}

/// Follows the chain of extended boot records.
fn read_logical(disk: &dyn Disk, extended: &Entry, layout: &mut Layout) -> Result<()> {
    let sector = u64::from(disk.sector_size());
    let base = u64::from(extended.starting_lba);
    let mut at = base;
    let mut seen = Vec::new();
    let mut number = 5_u32;
    loop {
        let offset = at.saturating_mul(sector);
        if seen.contains(&at) || number >= MAX_LOGICAL.saturating_add(5) {
            layout.problems.push(format!("the chain of logical partitions loops or has no end, at sector {at}"));
            return Ok(());
        }
        seen.push(at);
        if offset.saturating_add(512) > disk.len() {
            layout.problems.push(format!("the chain of logical partitions leaves the disk, at sector {at}"));
            return Ok(());
        }
        let Some(table) = parse_sector(&read_vec(disk, offset, 512)?) else {
            layout.problems.push(format!("the extended boot record at sector {at} has no signature"));
            return Ok(());
        };
        let end = offset.saturating_add(sector).min(disk.len());
        layout.structures.push(Structure { what: format!("EBR of partition {number}"), range: offset..end });
        let [logical, next, ..] = &table.entries;
        if !logical.is_empty() && !logical.is_extended() {
            let start = at.saturating_add(u64::from(logical.starting_lba)).saturating_mul(sector);
            push(layout, number, start, logical, sector);
            number = number.saturating_add(1);
        }
        if next.is_empty() || !next.is_extended() {
            return Ok(());
        }
        at = base.saturating_add(u64::from(next.starting_lba));
    }
}

/// The well-known types in words.
pub fn type_name(os_type: u8) -> &'static str {
    match os_type {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x0b | 0x0c => "FAT32",
        0x07 => "NTFS or exFAT",
        0x11 | 0x14 | 0x16 | 0x1b | 0x1c | 0x1e | 0x17 => "hidden FAT or NTFS",
        0x27 => "Windows recovery",
        0x42 => "Windows dynamic disk (LDM)",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa8 | 0xaf => "macOS",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfd => "Linux RAID",
        _ => "",
    }
}

//! The boot sector: which FAT it is, and where its areas lie.

use std::ops::Range;

use crate::bytes::{array, le16, le32, u8_at};
use crate::error::{Error, Result};
use crate::filesystem::chain::content::Heap;
use crate::filesystem::chain::table::Width;

/// Most clusters of FAT12 by the specification.
const MAX_FAT12: u64 = 4084;
/// Most clusters that Windows still takes for FAT12.
const MAX_FAT12_WINDOWS: u64 = 4086;
/// Most clusters of FAT16.
const MAX_FAT16: u64 = 65524;
/// Most clusters of FAT32: 28 bits without the special values.
const MAX_FAT32: u64 = 0x0fff_fff5;

/// Volume identifiers at 0x1a8 by which BitLocker To Go tells its encrypted volumes from what they look like.
const BITLOCKER_TO_GO: [[u8; 16]; 2] = [
    *b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01",
    *b"\x3b\x4d\xa8\x92\x80\xdd\x0e\x4d\x9e\x4e\xb1\xe3\x28\x4e\xae\xd8",
];

/// Where the root directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// FAT12 and FAT16: in an area of its own, in bytes of the partition.
    Area(Range<u64>),
    /// FAT32: in a chain that starts with this cluster.
    Chain(u32),
}

/// Sizes and places of a volume, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Bits of a table entry, and so which FAT this is.
    pub width: Width,
    /// Bytes in a cluster: 512 to 512 KiB, a power of two.
    pub cluster_size: u64,
    /// Clusters of the volume; they are numbered from 2.
    pub cluster_count: u32,
    /// First byte of the first table.
    pub table_offset: u64,
    /// Bytes of one table.
    pub table_len: u64,
    /// Tables, one behind the other; at least 1.
    pub table_count: u64,
    /// The table that is in force; below `table_count`.
    pub active_table: u64,
    /// The root directory.
    pub root: Root,
    /// First byte of cluster 2.
    pub data_offset: u64,
    /// Bytes that the boot sector says the volume has.
    pub len: u64,
    /// Media descriptor, repeated in the first entry of the table.
    pub media: u8,
    /// Version of FAT32; 0 is the only one there is.
    pub version: u16,
    /// Volume state: bit 0 not unmounted, bit 1 errors seen. 0 where the boot sector has no such field.
    pub state: u8,
    /// Volume serial number; `None` where the boot sector has none.
    pub serial: Option<u32>,
    /// Volume label of the boot sector in the OEM code page; blank where it has none.
    pub label: [u8; 11],
    /// What is odd about the volume, as phrases for people: reasons not to trust its table.
    pub oddities: Vec<&'static str>,
}

impl Boot {
    /// Parses the first 512 bytes of a partition of `partition_len` bytes; `None` where they are no FAT boot sector.
    ///
    /// Source: fatgen103, "Boot Sector and BPB" and "FAT Type Determination".
    pub fn parse(bytes: &[u8], partition_len: u64) -> Result<Option<Self>> {
        let Some(raw) = Raw::parse(bytes) else { return Ok(None) };
        let corrupt = |reason| Error::corrupt("FAT boot sector", 0, reason);
        let sector_bytes = |sectors: u64| sectors.saturating_mul(raw.sector_size);

        // All of these are at most 16 or 32 bits wide, so nothing saturates.
        let len = sector_bytes(raw.total_sectors);
        if len > partition_len {
            return Err(corrupt("the volume is longer than the partition"));
        }
        let table_sectors = raw.table_sectors.saturating_mul(raw.table_count);
        let root_start = raw.reserved_sectors.saturating_add(table_sectors);
        let root_sectors = raw.root_entries.saturating_mul(32).div_ceil(raw.sector_size);
        let data_start = root_start.saturating_add(root_sectors);
        let data_sectors = raw.total_sectors.saturating_sub(data_start);
        let mut cluster_count = data_sectors.checked_div(raw.sectors_per_cluster).unwrap_or(0);
        if cluster_count == 0 {
            return Err(corrupt("the volume has no clusters"));
        }

        let mut oddities = Vec::new();
        // The specification goes by the count alone; both drivers go by the length of the table first, and small FAT32 volumes exist.
        let width = match cluster_count {
            _ if raw.is_fat32 => Width::ThirtyTwo,
            0..=MAX_FAT12 => Width::Twelve,
            _ => Width::Sixteen,
        };
        match width {
            Width::Sixteen if cluster_count <= MAX_FAT12_WINDOWS => {
                oddities.push("drivers disagree whether so many clusters are FAT12 or FAT16");
            }
            Width::Sixteen if cluster_count > MAX_FAT16 => return Err(corrupt("it has too many clusters for FAT16")),
            Width::ThirtyTwo if cluster_count > MAX_FAT32 => return Err(corrupt("it has too many clusters for FAT32")),
            _ => {}
        }
        let table_len = sector_bytes(raw.table_sectors);
        let entries = table_len.saturating_mul(8).checked_div(width.bits()).unwrap_or(0);
        if entries < cluster_count.saturating_add(2) {
            oddities.push("the table is too short for the clusters");
            cluster_count = entries.saturating_sub(2);
            if cluster_count == 0 {
                return Err(corrupt("its table is too short for any cluster"));
            }
        }
        let cluster_count = u32::try_from(cluster_count).expect("at most 28 bits, checked above");

        let root = if raw.is_fat32 {
            if raw.root_entries != 0 {
                oddities.push("it is FAT32 and has a root directory area");
            }
            let last = cluster_count.saturating_add(1);
            if !(2..=last).contains(&raw.root_cluster) {
                return Err(corrupt("its root directory lies past the end of the volume"));
            }
            Root::Chain(raw.root_cluster)
        } else if root_sectors == 0 {
            return Err(corrupt("its root directory has no entries"));
        } else {
            Root::Area(sector_bytes(root_start)..sector_bytes(data_start))
        };

        // Bit 7 says that only one table is in force; the low bits say which.
        let active_table = if raw.flags & 0x80 == 0 { 0 } else { u64::from(raw.flags & 0x0f) };
        if active_table >= raw.table_count {
            return Err(corrupt("the table in force is none of its tables"));
        }
        if raw.bitlocker {
            oddities.push("BitLocker To Go encrypts what lies behind it");
        }
        Ok(Some(Self {
            width,
            cluster_size: sector_bytes(raw.sectors_per_cluster),
            cluster_count,
            table_offset: sector_bytes(raw.reserved_sectors),
            table_len,
            table_count: raw.table_count,
            active_table,
            root,
            data_offset: sector_bytes(data_start),
            len,
            media: raw.media,
            version: raw.version,
            state: raw.state,
            serial: raw.serial,
            label: raw.label,
            oddities,
        }))
    }

    /// Where the clusters lie.
    pub fn heap(&self) -> Heap {
        Heap { offset: self.data_offset, cluster_size: self.cluster_size }
    }

    /// First byte of a cluster of the volume.
    pub fn place(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(2));
        self.data_offset.saturating_add(index.saturating_mul(self.cluster_size))
    }

    /// First byte behind the last cluster.
    pub fn data_end(&self) -> u64 {
        self.place(self.cluster_count.saturating_add(2))
    }

    /// Where the entries of clusters lie in a table, in bytes from its start: without the two entries before them and without the rest behind.
    pub fn entries(&self) -> Range<u64> {
        let bytes = |entries: u64| entries.saturating_mul(self.width.bits()).div_ceil(8);
        bytes(2)..bytes(u64::from(self.cluster_count).saturating_add(2))
    }
}

/// Fields as they are stored, in sectors where not said otherwise.
struct Raw {
    sector_size: u64,
    sectors_per_cluster: u64,
    reserved_sectors: u64,
    table_count: u64,
    root_entries: u64,
    total_sectors: u64,
    media: u8,
    table_sectors: u64,
    is_fat32: bool,
    flags: u16,
    version: u16,
    root_cluster: u32,
    state: u8,
    serial: Option<u32>,
    label: [u8; 11],
    bitlocker: bool,
}

impl Raw {
    /// `None` where any field is out of what a FAT boot sector can hold: other boot sectors look much the same.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let jump = matches!(array(bytes, 0)?, [0xeb, _, 0x90] | [0xe9, _, _]);
        if !jump || array(bytes, 510)? != [0x55, 0xaa] {
            return None;
        }
        let sector_size = u64::from(le16(bytes, 0x0b)?);
        let sectors_per_cluster = u64::from(u8_at(bytes, 0x0d)?);
        let reserved_sectors = u64::from(le16(bytes, 0x0e)?);
        let table_count = u64::from(u8_at(bytes, 0x10)?);
        let media = u8_at(bytes, 0x15)?;
        let plausible = matches!(sector_size, 512 | 1024 | 2048 | 4096)
            && sectors_per_cluster.is_power_of_two()
            && reserved_sectors > 0
            && (1..=4).contains(&table_count)
            && matches!(media, 0xf0 | 0xf8..);
        if !plausible {
            return None;
        }
        let (small_total, total) = (u64::from(le16(bytes, 0x13)?), u64::from(le32(bytes, 0x20)?));
        let total_sectors = if small_total == 0 { total } else { small_total };
        let small_table = u64::from(le16(bytes, 0x16)?);
        let is_fat32 = small_table == 0;
        let table_sectors = if is_fat32 { u64::from(le32(bytes, 0x24)?) } else { small_table };
        if total_sectors == 0 || table_sectors == 0 {
            return None;
        }
        // The fields from the drive number on lie behind what FAT32 adds.
        let tail = if is_fat32 { 0x40_usize } else { 0x24 };
        let tail_at = |at: usize| tail.saturating_add(at);
        // 0x28 is the same without label; before DOS 4 there is boot code here.
        let signature = u8_at(bytes, tail_at(2))?;
        let extended = matches!(signature, 0x28 | 0x29);
        let guid: [u8; 16] = array(bytes, 0x1a8)?;
        Some(Self {
            sector_size,
            sectors_per_cluster,
            reserved_sectors,
            table_count,
            root_entries: u64::from(le16(bytes, 0x11)?),
            total_sectors,
            media,
            table_sectors,
            is_fat32,
            flags: if is_fat32 { le16(bytes, 0x28)? } else { 0 },
            version: if is_fat32 { le16(bytes, 0x2a)? } else { 0 },
            root_cluster: if is_fat32 { le32(bytes, 0x2c)? } else { 0 },
            state: if extended || is_fat32 { u8_at(bytes, tail_at(1))? } else { 0 },
            serial: if extended { Some(le32(bytes, tail_at(3))?) } else { None },
            label: if signature == 0x29 { array(bytes, tail_at(7))? } else { [b' '; 11] },
            bitlocker: BITLOCKER_TO_GO.contains(&guid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot sector of 512-byte sectors with one sector in a cluster, one in the reserved area, two tables and 16 root entries.
    fn sector(clusters: u32, table_sectors: u16) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        bytes[0x0b..0x0d].copy_from_slice(&512_u16.to_le_bytes());
        bytes[0x0d] = 1;
        bytes[0x0e] = 1;
        bytes[0x10] = 2;
        bytes[0x11] = 16;
        bytes[0x15] = 0xf8;
        bytes[0x16..0x18].copy_from_slice(&table_sectors.to_le_bytes());
        bytes[0x20..0x24].copy_from_slice(&(clusters + 2 + 2 * u32::from(table_sectors)).to_le_bytes());
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    fn parse(bytes: &[u8]) -> Boot {
        Boot::parse(bytes, u64::MAX).unwrap().unwrap()
    }

    #[test]
    fn the_kind_follows_from_the_cluster_count() {
        for (clusters, width, odd) in [
            (1, Width::Twelve, 0),
            (4084, Width::Twelve, 0),
            (4085, Width::Sixteen, 1),
            (4086, Width::Sixteen, 1),
            (4087, Width::Sixteen, 0),
            (65524, Width::Sixteen, 0),
        ] {
            let boot = parse(&sector(clusters, 256));
            assert_eq!((boot.width, boot.oddities.len()), (width, odd), "{clusters}");
            assert_eq!(boot.cluster_count, clusters);
            assert_eq!(boot.root, Root::Area(513 * 512..514 * 512));
            assert_eq!(boot.data_offset, 514 * 512);
        }
        assert!(Boot::parse(&sector(65525, 256), u64::MAX).is_err());
    }

    #[test]
    fn clusters_without_an_entry_in_the_table_are_not_counted() {
        let boot = parse(&sector(4084, 2));
        assert_eq!(boot.cluster_count, 1024 * 2 / 3 - 2);
        assert_eq!(boot.oddities.len(), 1);
    }

    #[test]
    fn other_boot_sectors_are_not_claimed() {
        for (at, value) in [(0, 0x33), (0x0b, 1), (0x0d, 0), (0x0d, 3), (0x0e, 0), (0x10, 0), (0x15, 0xf1), (511, 0)] {
            let mut bytes = sector(100, 1);
            bytes[at] = value;
            assert!(Boot::parse(&bytes, u64::MAX).unwrap().is_none(), "{value:#x} at {at:#x}");
        }
    }

    #[test]
    fn a_volume_past_the_end_of_its_partition_is_refused() {
        let bytes = sector(100, 1);
        assert!(Boot::parse(&bytes, 104 * 512).is_ok());
        assert!(Boot::parse(&bytes, 104 * 512 - 1).is_err());
    }
}

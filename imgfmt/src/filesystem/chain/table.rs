//! The file allocation table: what follows a cluster in its chain.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

/// Bytes of the table that are read at once.
const PAGE: u64 = 16 << 10;
/// Pages that are kept: 16 MiB.
const PAGES: usize = 1024;

/// Bits of a table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// FAT12.
    Twelve,
    /// FAT16.
    Sixteen,
    /// FAT32: 28 bits, and 4 that are not ours.
    ThirtyTwo,
    /// exFAT: all 32 bits.
    Exfat,
}

impl Width {
    /// Bits from one entry to the next.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Twelve => 12,
            Self::Sixteen => 16,
            Self::ThirtyTwo | Self::Exfat => 32,
        }
    }

    /// The entry of a cluster that ends its chain, all bits set.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Twelve => 0xfff,
            Self::Sixteen => 0xffff,
            Self::ThirtyTwo => 0x0fff_ffff,
            Self::Exfat => 0xffff_ffff,
        }
    }
}

/// What the table says of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is free.
    Free,
    /// This one follows; it is a cluster of the volume.
    Cluster(u32),
    /// It is the last of its chain.
    End,
    /// It is marked as bad.
    Bad,
    /// A value without a meaning: a cluster that the volume does not have, or a reserved one.
    Invalid,
}

/// A table on a disk, read in pages that all readers share.
pub struct Table {
    disk: Arc<dyn Disk>,
    /// First byte of the table in the partition.
    offset: u64,
    /// Bytes of the table.
    len: u64,
    width: Width,
    cluster_count: u32,
    pages: Cache<u64, Arc<Vec<u8>>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("offset", &self.offset).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Table {
    /// The table of `len` bytes at `offset`, for `cluster_count` clusters from number 2 on, all of which have an entry in it.
    pub fn new(disk: Arc<dyn Disk>, offset: u64, len: u64, width: Width, cluster_count: u32) -> Self {
        Self { disk, offset, len, width, cluster_count, pages: Cache::new(PAGES) }
    }

    /// Starts to read entries.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { table: self, page_number: 0, page: None }
    }

    /// Says whether the volume has a cluster of this number.
    pub fn has(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster.saturating_sub(2) < self.cluster_count
    }

    fn page(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        self.pages.get_or_insert_with(&number, || {
            let start = number.saturating_mul(PAGE);
            let len = self.len.saturating_sub(start).min(PAGE);
            let len = usize::try_from(len).expect("at most a page");
            read_vec(&self.disk, self.offset.saturating_add(start), len).map(Arc::new)
        })
    }
}

/// Reads entries of a table; cheap where they lie near each other.
#[derive(Debug)]
pub struct Cursor<'a> {
    table: &'a Table,
    page_number: u64,
    page: Option<Arc<Vec<u8>>>,
}

impl Cursor<'_> {
    /// `N` bytes at `at` of the table, which lie in one page.
    fn bytes<const N: usize>(&mut self, at: u64) -> Result<[u8; N]> {
        let number = at / PAGE;
        let page = match &self.page {
            Some(page) if self.page_number == number => page,
            _ => {
                let page = self.table.page(number)?;
                self.page_number = number;
                self.page.insert(page)
            }
        };
        let within = usize::try_from(at % PAGE).expect("at most a page");
        crate::bytes::array(page, within)
            .ok_or_else(|| Error::corrupt("file allocation table", at, "an entry past its end is asked for"))
    }

    /// The raw entry of any number, with the bits that are not ours masked out.
    pub fn entry(&mut self, number: u32) -> Result<u32> {
        let number = u64::from(number);
        Ok(match self.table.width {
            Width::Twelve => {
                // Three bytes for two entries, across borders of pages.
                let at = number.saturating_mul(3) / 2;
                let [low] = self.bytes(at)?;
                let [high] = self.bytes(at.saturating_add(1))?;
                let both = u32::from(u16::from_le_bytes([low, high]));
                if number % 2 == 0 { both & 0xfff } else { both >> 4 }
            }
            Width::Sixteen => u32::from(u16::from_le_bytes(self.bytes(number.saturating_mul(2))?)),
            width => u32::from_le_bytes(self.bytes(number.saturating_mul(4))?) & width.mask(),
        })
    }

    /// What the table says of a cluster, which must be one of the volume's.
    pub fn next(&mut self, cluster: u32) -> Result<Next> {
        let entry = self.entry(cluster)?;
        // Counted from the top: 0 to 7 are ends of chains, 8 is a bad cluster. exFAT has one end only.
        let from_top = self.table.width.mask().saturating_sub(entry);
        Ok(match (entry, from_top) {
            (0, _) => Next::Free,
            (entry, _) if self.table.has(entry) => Next::Cluster(entry),
            (_, 8) => Next::Bad,
            (_, 0) => Next::End,
            (_, 1..=7) if self.table.width != Width::Exfat => Next::End,
            _ => Next::Invalid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn table(bytes: &[u8], width: Width, count: u32) -> Table {
        let len = bytes.len() as u64;
        Table::new(Arc::new(MemoryDisk::new(bytes.to_vec())), 0, len, width, count)
    }

    #[test]
    fn twelve_bit_entries_share_bytes() {
        // 0xff8, 0xfff, 0x003, 0xff7, 0x000, 0xabc.
        let table = table(&[0xf8, 0xff, 0xff, 0x03, 0x70, 0xff, 0x00, 0xc0, 0xab], Width::Twelve, 4);
        let mut cursor = table.cursor();
        let next: Vec<_> = (2..6).map(|cluster| cursor.next(cluster).unwrap()).collect();
        assert_eq!(next, [Next::Cluster(3), Next::Bad, Next::Free, Next::Invalid]);
        assert_eq!(cursor.entry(0).unwrap(), 0xff8);
        assert!(cursor.entry(6).is_err());
    }

    #[test]
    fn twelve_bit_entries_cross_pages() {
        let mut bytes = vec![0; 3 * PAGE as usize];
        // Entry 10922 starts at byte 16383, the last of the first page.
        bytes[16383..16385].copy_from_slice(&[0x34, 0x02]);
        assert_eq!(table(&bytes, Width::Twelve, 20000).cursor().next(10922).unwrap(), Next::Cluster(0x234));
    }

    #[test]
    fn upper_bits_of_fat32_are_not_ours() {
        let bytes: Vec<u8> = [0, 0, 0xf000_0003_u32, 0xffff_fff8, 0xf000_0000, 0x0fff_fff7, 1]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let next = |width| {
            let table = table(&bytes, width, 5);
            let mut cursor = table.cursor();
            (2..7).map(|cluster| cursor.next(cluster).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(next(Width::ThirtyTwo), [Next::Cluster(3), Next::End, Next::Free, Next::Bad, Next::Invalid]);
        assert!(next(Width::Exfat).iter().all(|next| *next == Next::Invalid));
    }
}

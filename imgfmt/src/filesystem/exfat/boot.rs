//! The boot regions: sizes and places, twice, each with a checksum.

use crate::bytes::{array, le16, le32, le64, u8_at};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::chain::content::Heap;

/// Sectors in a boot region; the last holds the checksum of those before it.
const REGION: u64 = 12;
/// Most clusters: 2^32 - 11.
const MAX_CLUSTERS: u32 = 0xffff_fff5;

/// Bits of [`Boot::flags`].
pub mod flag {
    /// The second table and bitmap are in force.
    pub const SECOND_IN_FORCE: u16 = 1;
    /// The volume was not unmounted.
    pub const DIRTY: u16 = 2;
    /// A driver met errors of the medium.
    pub const MEDIA_FAILURE: u16 = 4;
}

/// Sizes and places of a volume, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Bytes of the volume.
    pub len: u64,
    /// First byte of the first table.
    pub table_offset: u64,
    /// Bytes of one table.
    pub table_len: u64,
    /// Tables: 1, or 2 with TexFAT.
    pub table_count: u8,
    /// First byte of cluster 2.
    pub heap_offset: u64,
    /// Bytes in a cluster: 512 to 32 MiB, a power of two.
    pub cluster_size: u64,
    /// Clusters; they are numbered from 2.
    pub cluster_count: u32,
    /// First cluster of the root directory.
    pub root: u32,
    /// Volume serial number.
    pub serial: u32,
    /// Major and minor revision.
    pub revision: (u8, u8),
    /// See [`flag`].
    pub flags: u16,
    /// What is odd about the regions, as phrases for people.
    pub oddities: Vec<&'static str>,
}

impl Boot {
    /// Reads the main region of a partition, or the backup region where the main one is damaged; `None` where there is no exFAT boot
    /// sector.
    pub fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        if disk.len() < 512 {
            return Ok(None);
        }
        let sector = read_vec(disk, 0, 512)?;
        if array(&sector, 3) != Some(*b"EXFAT   ") {
            return Ok(None);
        }
        let main = Self::region(disk, &sector, 0);
        let mut boot = match main {
            Ok((boot, true)) => return Ok(Some(boot)),
            ref damaged => match Self::backup(disk) {
                Some(mut backup) => {
                    backup.oddities.push("the main boot region is damaged, and its backup is used");
                    return Ok(Some(backup));
                }
                None => damaged.as_ref().map(|(boot, _)| boot.clone()).ok(),
            },
        };
        if let Some(boot) = &mut boot {
            boot.oddities.push("the checksum of the main boot region is wrong, and its backup is no better");
            return Ok(Some(boot.clone()));
        }
        main.map(|(boot, _)| Some(boot))
    }

    /// Looks for an undamaged backup region, whatever the sector size.
    fn backup(disk: &dyn Disk) -> Option<Self> {
        [512, 1024, 2048, 4096].into_iter().find_map(|sector_size: u64| {
            let offset = sector_size.saturating_mul(REGION);
            let sector = read_vec(disk, offset, 512).ok()?;
            match Self::region(disk, &sector, offset) {
                Ok((boot, true)) => Some(boot),
                _ => None,
            }
        })
    }

    /// Parses the region that starts with `sector` at `offset`, and says whether its checksum is right.
    fn region(disk: &dyn Disk, sector: &[u8], offset: u64) -> Result<(Self, bool)> {
        let (boot, sector_size) = Self::parse(sector, offset, disk.len())?;
        let len = usize::try_from(sector_size.saturating_mul(REGION)).expect("at most 48 KiB");
        let region = read_vec(disk, offset, len)?;
        let (covered, stored) = region.split_at(len.saturating_sub(len / 12));
        let sum = covered.iter().enumerate().fold(0_u32, |sum, (at, byte)| match at {
            // Flags and fill level change without it.
            106 | 107 | 112 => sum,
            _ => sum.rotate_right(1).wrapping_add(u32::from(*byte)),
        });
        let right = stored.chunks_exact(4).all(|stored| stored == sum.to_le_bytes());
        Ok((boot, right))
    }

    /// Parses a boot sector of a partition of `partition_len` bytes. Returns the sector size too.
    ///
    /// Source: exFAT specification 3.1.
    fn parse(bytes: &[u8], offset: u64, partition_len: u64) -> Result<(Self, u64)> {
        let corrupt = |reason| Error::corrupt("exFAT boot sector", offset, reason);
        let short = || corrupt("it is cut short");
        if array(bytes, 3) != Some(*b"EXFAT   ") || array(bytes, 510) != Some([0x55, 0xaa]) {
            return Err(corrupt("its signature is missing"));
        }
        let field = |at| le32(bytes, at).map(u64::from).ok_or_else(short);
        let sector_shift = u32::from(u8_at(bytes, 108).ok_or_else(short)?);
        let cluster_shift = u32::from(u8_at(bytes, 109).ok_or_else(short)?);
        if !(9..=12).contains(&sector_shift) {
            return Err(corrupt("its sector size is out of range"));
        }
        if sector_shift.saturating_add(cluster_shift) > 25 {
            return Err(corrupt("its cluster size is out of range"));
        }
        let sector_size = 1_u64 << sector_shift;
        let cluster_size = sector_size << cluster_shift;
        let table_count = u8_at(bytes, 110).ok_or_else(short)?;
        if !matches!(table_count, 1 | 2) {
            return Err(corrupt("it has neither one nor two tables"));
        }
        let len = le64(bytes, 72).ok_or_else(short)?.checked_mul(sector_size);
        let len = len.filter(|len| *len <= partition_len);
        let len = len.ok_or_else(|| corrupt("the volume is longer than the partition"))?;
        // 32-bit counts of at most 4096 bytes: nothing saturates.
        let table_offset = field(80)?.saturating_mul(sector_size);
        let table_len = field(84)?.saturating_mul(sector_size);
        let heap_offset = field(88)?.saturating_mul(sector_size);
        let cluster_count = le32(bytes, 92).ok_or_else(short)?;
        let tables_end = table_len.saturating_mul(u64::from(table_count)).saturating_add(table_offset);
        if table_offset < sector_size.saturating_mul(REGION.saturating_mul(2)) || tables_end > heap_offset {
            return Err(corrupt("its tables overlap what lies around them"));
        }
        let clusters_len = u64::from(cluster_count).saturating_mul(cluster_size);
        if cluster_count == 0 || cluster_count > MAX_CLUSTERS || heap_offset.saturating_add(clusters_len) > len {
            return Err(corrupt("it has no clusters, or more than the volume can hold"));
        }
        if table_len / 4 < u64::from(cluster_count).saturating_add(2) {
            return Err(corrupt("its table is too short for its clusters"));
        }
        let root = le32(bytes, 96).ok_or_else(short)?;
        if root < 2 || root.saturating_sub(2) >= cluster_count {
            return Err(corrupt("its root directory lies past the end of the volume"));
        }
        let [minor, major] = le16(bytes, 104).ok_or_else(short)?.to_le_bytes();
        let boot = Self {
            len,
            table_offset,
            table_len,
            table_count,
            heap_offset,
            cluster_size,
            cluster_count,
            root,
            serial: le32(bytes, 100).ok_or_else(short)?,
            revision: (major, minor),
            flags: le16(bytes, 106).ok_or_else(short)?,
            oddities: Vec::new(),
        };
        Ok((boot, sector_size))
    }

    /// Where the clusters lie.
    pub fn heap(&self) -> Heap {
        Heap { offset: self.heap_offset, cluster_size: self.cluster_size }
    }

    /// First byte of a cluster of the volume.
    pub fn place(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(2));
        self.heap_offset.saturating_add(index.saturating_mul(self.cluster_size))
    }

    /// First byte behind the last cluster.
    pub fn heap_end(&self) -> u64 {
        u64::from(self.cluster_count).saturating_mul(self.cluster_size).saturating_add(self.heap_offset)
    }

    /// Says whether the second table and bitmap are in force.
    pub fn second_in_force(&self) -> bool {
        self.table_count == 2 && self.flags & flag::SECOND_IN_FORCE != 0
    }
}

//! Group descriptors: where the bitmaps and the inode table of a group lie.

use crate::bytes::{le16, le32};
use crate::error::{Error, Result};
use crate::filesystem::ext::checksum::{crc16, crc32c_without};
use crate::filesystem::ext::superblock::{Superblock, incompat};

/// The inode bitmap is not initialised: no inode of the group is used.
const INODE_UNINIT: u16 = 0x1;
/// The block bitmap is not initialised: only metadata use blocks of the group.
const BLOCK_UNINIT: u16 = 0x2;

/// A group descriptor, checked.
///
/// Source: "Ext4 Data Structures and Algorithms", "Block Group Descriptors".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free clusters.
    pub free_clusters: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Inodes at the start of the table that can be in use; those behind it never were, and their bytes may be anything.
    pub inodes_used: u64,
    /// No block bitmap is stored: only metadata use blocks of the group.
    pub block_uninit: bool,
    /// Checksum of the block bitmap, as far as the descriptor holds it, and its mask.
    pub block_bitmap_csum: (u32, u32),
}

impl Group {
    /// Parses descriptor `number` of a filesystem; `bytes` has its size, `offset` says where it lies.
    pub fn parse(bytes: &[u8], number: u64, superblock: &Superblock, offset: u64) -> Result<Self> {
        let corrupt = |reason| Error::corrupt(format_args!("ext group descriptor {number}"), offset, reason);
        let short = || corrupt("it is cut short");
        let half = |at| le16(bytes, at).ok_or_else(short);
        let word = |at| le32(bytes, at).ok_or_else(short);
        let is_long = superblock.desc_size >= 64 && superblock.incompat & incompat::BIT64 != 0;
        let high = |at| if is_long { word(at) } else { Ok(0) };
        let high_half = |at| if is_long { half(at) } else { Ok(0) };
        if superblock.has_group_csum() {
            let stored = half(0x1e)?;
            let group = u32::try_from(number).map_err(|_| corrupt("there are too many groups"))?.to_le_bytes();
            let computed = if superblock.has_metadata_csum() {
                let seed = crate::crc32c::update(superblock.csum_seed, &group);
                let [low, second, ..] = crc32c_without(seed, bytes, &[(0x1e, 2)]).to_le_bytes();
                u16::from_le_bytes([low, second])
            } else {
                let state = crc16(crc16(!0, &superblock.uuid), &group);
                let state = crc16(state, bytes.get(..0x1e).ok_or_else(short)?);
                crc16(state, bytes.get(0x20..).unwrap_or_default())
            };
            if stored != computed {
                return Err(corrupt("its checksum does not match"));
            }
        }
        let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
        let join_half = |low: u16, high: u16| u32::from(low) | (u32::from(high) << 16);
        let flags = if superblock.has_group_csum() { half(0x12)? } else { 0 };
        let unused = u64::from(join_half(half(0x1c)?, high_half(0x32)?));
        let inodes_used = match (superblock.has_group_csum(), flags & INODE_UNINIT != 0) {
            (false, _) => superblock.inodes_per_group,
            (true, true) => 0,
            (true, false) => superblock
                .inodes_per_group
                .checked_sub(unused)
                .ok_or_else(|| corrupt("more of its inodes are unused than there are"))?,
        };
        let group = Self {
            block_bitmap: join(word(0x00)?, high(0x20)?),
            inode_bitmap: join(word(0x04)?, high(0x24)?),
            inode_table: join(word(0x08)?, high(0x28)?),
            free_clusters: u64::from(join_half(half(0x0c)?, high_half(0x2c)?)),
            free_inodes: u64::from(join_half(half(0x0e)?, high_half(0x2e)?)),
            inodes_used,
            block_uninit: flags & BLOCK_UNINIT != 0,
            block_bitmap_csum: (
                join_half(half(0x18)?, high_half(0x38)?),
                if is_long { u32::MAX } else { u32::from(u16::MAX) },
            ),
        };
        let holds = |block, count| superblock.holds(block, count);
        if !holds(group.block_bitmap, 1)
            || !holds(group.inode_bitmap, 1)
            || !holds(group.inode_table, superblock.inode_table_blocks())
        {
            return Err(corrupt("its bitmaps or its inode table lie outside of the filesystem"));
        }
        Ok(group)
    }
}

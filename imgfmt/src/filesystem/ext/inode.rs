//! Inodes: what a file says of itself, and the 60 bytes that lead to its content.

use crate::bytes::{array, le16, le32};
use crate::crc32c;
use crate::error::{Error, Result};
use crate::filesystem::ext::checksum::crc32c_without;
use crate::filesystem::ext::superblock::{Superblock, incompat};

/// Numbers of the filesystem's own inodes.
pub mod number {
    /// Blocks that the medium cannot keep.
    pub const BAD_BLOCKS: u32 = 1;
    /// The root directory.
    pub const ROOT: u32 = 2;
}

/// Values of the type bits of a mode.
pub mod file_type {
    /// Mask of the type bits.
    pub const MASK: u16 = 0xf000;
    /// Directory.
    pub const DIRECTORY: u16 = 0x4000;
    /// Regular file.
    pub const REGULAR: u16 = 0x8000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0xa000;
    /// Character device.
    pub const CHARACTER_DEVICE: u16 = 0x2000;
    /// Block device.
    pub const BLOCK_DEVICE: u16 = 0x6000;
    /// Named pipe.
    pub const FIFO: u16 = 0x1000;
    /// Socket.
    pub const SOCKET: u16 = 0xc000;
}

/// Inode flags.
pub mod flag {
    /// Content and names are encrypted.
    pub const ENCRYPT: u32 = 0x800;
    /// The directory has a hash tree.
    pub const INDEX: u32 = 0x1000;
    /// `blocks` counts filesystem blocks, not sectors.
    pub const HUGE_FILE: u32 = 0x4_0000;
    /// The map is a tree of extents.
    pub const EXTENTS: u32 = 0x8_0000;
    /// The content is the value of an extended attribute.
    pub const EA_INODE: u32 = 0x20_0000;
    /// The content lies in the inode.
    pub const INLINE_DATA: u32 = 0x1000_0000;
    /// Names differ by more than case.
    pub const CASEFOLD: u32 = 0x4000_0000;
}

/// An inode, its checksum checked.
///
/// Source: "Ext4 Data Structures and Algorithms", "Index Nodes".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number, from 1.
    pub number: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Hard links; 0 for an inode that is not in use.
    pub links: u16,
    /// Bytes of the content.
    pub size: u64,
    /// See [`flag`].
    pub flags: u32,
    /// Space that it takes, extended attributes included, in 512-byte sectors.
    pub sectors: u64,
    /// Block of extended attributes; 0 for none.
    pub file_acl: u64,
    /// The map, or what lies in its place: the target of a symbolic link, a device number, inline data.
    pub block: [u8; 60],
    /// Seed of the checksums of everything that belongs to this inode.
    pub csum_seed: u32,
    /// All bytes of the inode.
    pub raw: Vec<u8>,
}

/// The number of links in the raw bytes of an inode.
pub fn raw_links(raw: &[u8]) -> u16 {
    le16(raw, 0x1a).unwrap_or(0)
}

/// Says whether an inode is in use: by its links alone, since drivers leave the mode and much else in deleted ones. The inode of bad blocks has
/// no links.
pub fn is_in_use(number: u32, raw: &[u8]) -> bool {
    let has_map = raw.get(0x28..0x64).is_some_and(|block| block.iter().any(|byte| *byte != 0));
    raw_links(raw) != 0 || (number == number::BAD_BLOCKS && has_map)
}

impl Inode {
    /// Parses the bytes of inode `number`, which lie at byte `offset` of the partition.
    pub fn parse(raw: &[u8], number: u32, superblock: &Superblock, offset: u64) -> Result<Self> {
        let corrupt = |reason| Error::corrupt(format_args!("ext inode {number}"), offset, reason);
        if raw.len() != superblock.inode_size {
            return Err(corrupt("it is cut short"));
        }
        let half = |at| le16(raw, at).expect("an inode has at least 128 bytes");
        let word = |at| le32(raw, at).expect("an inode has at least 128 bytes");
        let extra_isize = le16(raw, 0x80).unwrap_or(0);
        if raw.len() > 128
            && (!extra_isize.is_multiple_of(4) || usize::from(extra_isize) > raw.len().saturating_sub(128))
        {
            return Err(corrupt("its extra size is out of range"));
        }
        let generation = word(0x64);
        let csum_seed = crc32c::update(superblock.csum_seed, &number.to_le_bytes());
        let csum_seed = crc32c::update(csum_seed, &generation.to_le_bytes());
        if superblock.has_metadata_csum() {
            let (stored, computed) = if extra_isize >= 4 {
                let high = u32::from(le16(raw, 0x82).unwrap_or(0)) << 16;
                (u32::from(half(0x7c)) | high, crc32c_without(csum_seed, raw, &[(0x7c, 2), (0x82, 2)]))
            } else {
                (u32::from(half(0x7c)), crc32c_without(csum_seed, raw, &[(0x7c, 2)]) & 0xffff)
            };
            if stored != computed {
                return Err(corrupt("its checksum does not match"));
            }
        }
        let mode = half(0x00);
        // Of other types the high half is something else in old revisions.
        let is_long = mode & file_type::MASK == file_type::REGULAR || superblock.incompat & incompat::LARGEDIR != 0;
        let size_high = if is_long { u64::from(word(0x6c)) << 32 } else { 0 };
        let flags = word(0x20);
        let high = |value: u16| if superblock.is_hurd { 0 } else { u64::from(value) << 32 };
        let blocks = u64::from(word(0x1c)) | high(half(0x74));
        let sectors_per_block = superblock.block_size / 512;
        let sectors = if flags & flag::HUGE_FILE != 0 { blocks.saturating_mul(sectors_per_block) } else { blocks };
        let acl_high = if superblock.incompat & incompat::BIT64 != 0 { high(half(0x76)) } else { 0 };
        Ok(Self {
            number,
            mode,
            links: half(0x1a),
            size: u64::from(word(0x04)) | size_high,
            flags,
            sectors,
            file_acl: u64::from(word(0x68)) | acl_high,
            block: array(raw, 0x28).expect("an inode has at least 128 bytes"),
            csum_seed,
            raw: raw.to_vec(),
        })
    }

    /// Builds [`Error::Corrupt`] for something that this inode leads to, at byte `offset` of the partition.
    pub fn corrupt(&self, offset: u64, reason: &'static str) -> Error {
        Error::corrupt(format_args!("ext inode {}", self.number), offset, reason)
    }

    /// The type bits of the mode.
    pub fn file_type(&self) -> u16 {
        self.mode & file_type::MASK
    }

    /// Says whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the target of a symbolic link lies in place of the map.
    ///
    /// Source: `ext4_inode_is_fast_symlink` of Linux.
    pub fn is_fast_symlink(&self, superblock: &Superblock) -> bool {
        if self.file_type() != file_type::SYMLINK || self.has(flag::INLINE_DATA) {
            return false;
        }
        if superblock.incompat & incompat::EA_INODE != 0 {
            return (1..60).contains(&self.size);
        }
        let cluster = superblock.block_size.saturating_mul(superblock.cluster_blocks) / 512;
        self.sectors == if self.file_acl != 0 { cluster } else { 0 }
    }

    /// Whether `block` is a map of blocks.
    pub fn has_map(&self, superblock: &Superblock) -> bool {
        let mapped = match self.file_type() {
            file_type::REGULAR | file_type::DIRECTORY => true,
            file_type::SYMLINK => !self.is_fast_symlink(superblock),
            // The filesystem's own inodes have no mode in old versions.
            0 => true,
            _ => false,
        };
        mapped && !self.has(flag::INLINE_DATA)
    }

    /// The bytes behind the fixed part, where extended attributes lie; their offset in `raw` comes first.
    pub fn attribute_area(&self) -> (usize, &[u8]) {
        let start = match le16(&self.raw, 0x80) {
            Some(extra_isize) if self.raw.len() > 128 => 128_usize.saturating_add(usize::from(extra_isize)),
            _ => return (self.raw.len(), &[]),
        };
        (start, self.raw.get(start..).unwrap_or_default())
    }
}

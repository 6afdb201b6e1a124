//! The superblock: sizes, features, identity.

use std::ops::Range;

use crate::bytes::{array, le16, le32, le64};
use crate::crc32c;
use crate::error::{Error, Result};

/// Where the superblock lies, in bytes from the start of the partition.
pub const OFFSET: u64 = 1024;
/// Bytes of the superblock.
pub const LEN: usize = 1024;
/// The inode whose map reaches the blocks that are reserved for group descriptors.
const RESIZE_INODE: u32 = 7;

/// Compatible features: a driver that does not know them may still write.
pub mod compat {
    /// There is a journal.
    pub const HAS_JOURNAL: u32 = 0x4;
    /// Blocks are reserved for more group descriptors.
    pub const RESIZE_INODE: u32 = 0x10;
    /// Large directories have hash trees; without it, what is left of one may be out of date.
    pub const DIR_INDEX: u32 = 0x20;
    /// Backups of the superblock in two groups only.
    pub const SPARSE_SUPER2: u32 = 0x200;
    /// A log of small changes follows the journal.
    pub const FAST_COMMIT: u32 = 0x400;
    /// Orphans are kept in a file.
    pub const ORPHAN_FILE: u32 = 0x1000;
}

/// Incompatible features: a driver that does not know them must not mount.
pub mod incompat {
    /// Directory entries hold the type of what they name.
    pub const FILETYPE: u32 = 0x2;
    /// The journal must be replayed.
    pub const RECOVER: u32 = 0x4;
    /// This is no filesystem but the journal of one.
    pub const JOURNAL_DEV: u32 = 0x8;
    /// Group descriptors lie in the groups that they describe.
    pub const META_BG: u32 = 0x10;
    /// Block numbers have 64 bits.
    pub const BIT64: u32 = 0x80;
    /// A block says which machine has mounted it.
    pub const MMP: u32 = 0x100;
    /// Bitmaps and inode tables may lie in other groups.
    pub const FLEX_BG: u32 = 0x200;
    /// Values of extended attributes may lie in inodes of their own.
    pub const EA_INODE: u32 = 0x400;
    /// The seed of checksums is stored, and not the UUID's.
    pub const CSUM_SEED: u32 = 0x2000;
    /// Directories may be longer than 2 GiB.
    pub const LARGEDIR: u32 = 0x4000;
}

/// Read-only compatible features: a driver that does not know them must not write.
pub mod ro_compat {
    /// Backups of the superblock in groups 0, 1 and powers of 3, 5 and 7 only.
    pub const SPARSE_SUPER: u32 = 0x1;
    /// Group descriptors have CRC-16 checksums; groups may be uninitialised.
    pub const GDT_CSUM: u32 = 0x10;
    /// Quotas are kept in hidden files.
    pub const QUOTA: u32 = 0x100;
    /// Blocks are allocated in clusters.
    pub const BIGALLOC: u32 = 0x200;
    /// All metadata have CRC-32C checksums.
    pub const METADATA_CSUM: u32 = 0x400;
    /// Orphans are listed in the orphan file.
    pub const ORPHAN_PRESENT: u32 = 0x1_0000;
}

/// Names of incompatible features by bit, and whether their layout is known here.
const INCOMPAT: [(u32, &str, bool); 16] = [
    (0x1, "compression", false),
    (incompat::FILETYPE, "filetype", true),
    (incompat::RECOVER, "needs_recovery", true),
    (incompat::JOURNAL_DEV, "journal_dev", false),
    (incompat::META_BG, "meta_bg", true),
    (0x40, "extents", true),
    (incompat::BIT64, "64bit", true),
    (incompat::MMP, "mmp", true),
    (incompat::FLEX_BG, "flex_bg", true),
    (incompat::EA_INODE, "ea_inode", true),
    (0x1000, "dirdata", false),
    (incompat::CSUM_SEED, "metadata_csum_seed", true),
    (incompat::LARGEDIR, "large_dir", true),
    (0x8000, "inline_data", true),
    (0x1_0000, "encrypt", true),
    (0x2_0000, "casefold", true),
];

/// The same for read-only compatible features.
const RO_COMPAT: [(u32, &str, bool); 17] = [
    (ro_compat::SPARSE_SUPER, "sparse_super", true),
    (0x2, "large_file", true),
    (0x4, "btree_dir", true),
    (0x8, "huge_file", true),
    (ro_compat::GDT_CSUM, "uninit_bg", true),
    (0x20, "dir_nlink", true),
    (0x40, "extra_isize", true),
    (0x80, "snapshot", false),
    (ro_compat::QUOTA, "quota", true),
    (ro_compat::BIGALLOC, "bigalloc", true),
    (ro_compat::METADATA_CSUM, "metadata_csum", true),
    (0x800, "replica", false),
    (0x1000, "read-only", true),
    (0x2000, "project", true),
    (0x4000, "shared_blocks", true),
    (0x8000, "verity", true),
    (ro_compat::ORPHAN_PRESENT, "orphan_present", true),
];

/// Names the bits of `features` that are not known here.
fn unknown(features: u32, known: &[(u32, &'static str, bool)]) -> Vec<String> {
    let mut names = Vec::new();
    for bit in (0..32).map(|bit| 1_u32 << bit).filter(|bit| features & bit != 0) {
        match known.iter().find(|(known, ..)| *known == bit) {
            Some((_, _, true)) => {}
            Some((_, name, false)) => names.push((*name).to_owned()),
            None => names.push(format!("{bit:#x}")),
        }
    }
    names
}

/// The superblock, checked. Names are those of the fields without their prefix.
///
/// Source: "Ext4 Data Structures and Algorithms" of the Linux kernel, "Super Block".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Inodes in all groups.
    pub inodes_count: u32,
    /// Blocks, the ones before the first group included.
    pub blocks_count: u64,
    /// Free blocks (with bigalloc: clusters), as counted at the last unmount.
    pub free_blocks_count: u64,
    /// Free inodes, as counted at the last unmount.
    pub free_inodes_count: u32,
    /// Block where group 0 starts: 0 or 1.
    pub first_data_block: u64,
    /// Bytes of a block: 1 KiB to 64 KiB, a power of two.
    pub block_size: u64,
    /// Blocks in a cluster: 1 without bigalloc, a power of two.
    pub cluster_blocks: u64,
    /// Blocks in a group.
    pub blocks_per_group: u64,
    /// Inodes in a group.
    pub inodes_per_group: u64,
    /// Bytes of an inode: 128 to a block, a power of two.
    pub inode_size: usize,
    /// Bytes of a group descriptor: 32 to 1024, a power of two.
    pub desc_size: usize,
    /// Clean 0x1, errors 0x2, orphans being recovered 0x4.
    pub state: u16,
    /// Errors since the last check.
    pub error_count: u32,
    /// First of the list of deleted inodes whose blocks are not yet freed; 0 for none.
    pub last_orphan: u32,
    /// Inodes below this one are the filesystem's.
    pub first_ino: u32,
    /// Compatible features.
    pub compat: u32,
    /// Incompatible features.
    pub incompat: u32,
    /// Read-only compatible features.
    pub ro_compat: u32,
    /// UUID.
    pub uuid: [u8; 16],
    /// Label, up to its first NUL.
    pub volume_name: Vec<u8>,
    /// Blocks reserved for more group descriptors, behind the descriptors in each group that holds them.
    pub reserved_gdt_blocks: u64,
    /// First descriptor block that lies in its own groups (meta_bg).
    pub first_meta_bg: u64,
    /// Groups with backups (sparse_super2); 0 for none.
    pub backup_bgs: [u32; 2],
    /// Inode of the journal; 0 where the journal is on another device.
    pub journal_inum: u32,
    /// Inodes that hold structures of the filesystem and that no directory names: the journal, reserved descriptors, quotas, the orphan file.
    pub own_inodes: Vec<u32>,
    /// Seed of the hashes of names.
    pub hash_seed: [u32; 4],
    /// How names are hashed where a directory does not say.
    pub def_hash_version: u8,
    /// 0x1 names are hashed as signed bytes, 0x2 unsigned.
    pub flags: u32,
    /// Block of multi-mount protection.
    pub mmp_block: u64,
    /// Seed of CRC-32C checksums.
    pub csum_seed: u32,
    /// Made by the Hurd, which uses two fields of the inode in its own way.
    pub is_hurd: bool,
}

impl Superblock {
    /// Parses the bytes at [`OFFSET`] of a partition of `partition_len` bytes; `None` where they are no superblock.
    pub fn parse(bytes: &[u8; LEN], partition_len: u64) -> Result<Option<Self>> {
        let le16 = |at| le16(bytes, at).expect("inside the superblock");
        let le32 = |at| le32(bytes, at).expect("inside the superblock");
        let le64 = |at| le64(bytes, at).expect("inside the superblock");
        // s_magic
        if le16(0x38) != 0xef53 {
            return Ok(None);
        }
        let corrupt = |reason| Error::corrupt("ext superblock", OFFSET, reason);
        // s_rev_level: revision 0 has no features and fixed sizes.
        let dynamic = match le32(0x4c) {
            0 => false,
            1 => true,
            level => return Err(Error::unsupported("ext superblock", format_args!("revision {level}"))),
        };
        let feature = |at| if dynamic { le32(at) } else { 0 };
        let (compat, incompat, ro_compat) = (feature(0x5c), feature(0x60), feature(0x64));
        if incompat & incompat::JOURNAL_DEV != 0 {
            return Err(Error::unsupported("ext superblock", "this is the journal of another filesystem"));
        }
        let uuid = array(bytes, 0x68).expect("inside the superblock");
        if ro_compat & ro_compat::METADATA_CSUM != 0 {
            // s_checksum_type
            if bytes[0x175] != 1 {
                return Err(Error::unsupported("ext superblock", format_args!("checksum type {}", bytes[0x175])));
            }
            if crc32c::update(!0, &bytes[..0x3fc]) != le32(0x3fc) {
                return Err(corrupt("its checksum does not match"));
            }
        }
        // s_log_block_size
        let log_block_size = le32(0x18);
        if log_block_size > 6 {
            return Err(corrupt("its block size is out of range"));
        }
        let block_size = 1024_u64 << log_block_size;
        let is_64bit = incompat & incompat::BIT64 != 0;
        let high = |at| if is_64bit { u64::from(le32(at)) << 32 } else { 0 };
        // s_journal_inum, s_usr_quota_inum, s_grp_quota_inum, s_prj_quota_inum, s_orphan_file_inum
        let mut own_inodes = Vec::new();
        for (present, inode) in [
            (compat & compat::HAS_JOURNAL != 0, le32(0xe0)),
            (compat & compat::RESIZE_INODE != 0, RESIZE_INODE),
            (ro_compat & ro_compat::QUOTA != 0, le32(0x240)),
            (ro_compat & ro_compat::QUOTA != 0, le32(0x244)),
            (ro_compat & ro_compat::QUOTA != 0, le32(0x26c)),
            (compat & compat::ORPHAN_FILE != 0, le32(0x280)),
        ] {
            if present && inode != 0 {
                own_inodes.push(inode);
            }
        }
        let mut cluster_blocks = 1;
        if ro_compat & ro_compat::BIGALLOC != 0 {
            // s_log_cluster_size
            match le32(0x1c).checked_sub(log_block_size) {
                Some(log) if log <= 20 => cluster_blocks = 1_u64 << log,
                _ => return Err(corrupt("its cluster size is out of range")),
            }
        }
        let superblock = Self {
            inodes_count: le32(0x00),
            blocks_count: u64::from(le32(0x04)) | high(0x150),
            free_blocks_count: u64::from(le32(0x0c)) | high(0x158),
            free_inodes_count: le32(0x10),
            first_data_block: u64::from(le32(0x14)),
            block_size,
            cluster_blocks,
            blocks_per_group: u64::from(le32(0x20)),
            inodes_per_group: u64::from(le32(0x28)),
            inode_size: if dynamic { usize::from(le16(0x58)) } else { 128 },
            desc_size: if is_64bit { usize::from(le16(0xfe)) } else { 32 },
            state: le16(0x3a),
            error_count: le32(0x194),
            last_orphan: le32(0xe8),
            first_ino: if dynamic { le32(0x54) } else { 11 },
            compat,
            incompat,
            ro_compat,
            uuid,
            volume_name: bytes[0x78..0x88].split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            reserved_gdt_blocks: u64::from(le16(0xce)),
            first_meta_bg: u64::from(le32(0x104)),
            backup_bgs: [le32(0x24c), le32(0x250)],
            journal_inum: le32(0xe0),
            own_inodes,
            hash_seed: [le32(0xec), le32(0xf0), le32(0xf4), le32(0xf8)],
            def_hash_version: bytes[0xfc],
            flags: le32(0x160),
            mmp_block: le64(0x168),
            csum_seed: if incompat & incompat::CSUM_SEED != 0 { le32(0x270) } else { crc32c::update(!0, &uuid) },
            // s_creator_os
            is_hurd: le32(0x48) == 1,
        };
        superblock.check(partition_len).map_err(corrupt)?;
        Ok(Some(superblock))
    }

    fn check(&self, partition_len: u64) -> Result<(), &'static str> {
        let bits_per_block = self.block_size.saturating_mul(8);
        let clusters = self.clusters_per_group();
        if clusters == 0 || !clusters.is_multiple_of(8) || clusters > bits_per_block {
            return Err("its blocks per group are out of range");
        }
        if clusters.saturating_mul(self.cluster_blocks) != self.blocks_per_group {
            return Err("its blocks per group are no whole clusters");
        }
        let inode_len = u64::try_from(self.inode_size).unwrap_or(u64::MAX);
        if !self.inode_size.is_power_of_two() || !(128..=self.block_size).contains(&inode_len) {
            return Err("its inode size is out of range");
        }
        if self.inodes_per_group == 0
            || !self.inodes_per_group.is_multiple_of(8)
            || self.inodes_per_group > bits_per_block
        {
            return Err("its inodes per group are out of range");
        }
        let smallest = if self.incompat & incompat::BIT64 != 0 { 64 } else { 32 };
        if !self.desc_size.is_power_of_two() || !(smallest..=1024).contains(&self.desc_size) {
            return Err("its group descriptor size is out of range");
        }
        // With 1 KiB blocks the superblock is block 1, unless clusters are larger.
        let expected = u64::from(self.block_size == 1024 && self.cluster_blocks == 1);
        if self.first_data_block != expected || self.blocks_count <= self.first_data_block {
            return Err("its first data block is out of range");
        }
        match self.blocks_count.checked_mul(self.block_size) {
            Some(len) if len <= partition_len => {}
            _ => return Err("the filesystem is longer than the partition"),
        }
        let inodes = self.groups().saturating_mul(self.inodes_per_group);
        if u64::from(self.inodes_count) != inodes || self.inodes_count < self.first_ino {
            return Err("its number of inodes does not fit its groups");
        }
        Ok(())
    }

    /// Whether metadata have CRC-32C checksums.
    pub fn has_metadata_csum(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    /// Whether group descriptors have checksums, so that their flags mean something.
    pub fn has_group_csum(&self) -> bool {
        self.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    /// Number of groups.
    pub fn groups(&self) -> u64 {
        let blocks = self.blocks_count.saturating_sub(self.first_data_block);
        blocks.saturating_add(self.blocks_per_group.saturating_sub(1)).checked_div(self.blocks_per_group).unwrap_or(0)
    }

    /// Clusters in a group.
    pub fn clusters_per_group(&self) -> u64 {
        self.blocks_per_group.checked_div(self.cluster_blocks).unwrap_or(0)
    }

    /// Blocks of the inode table of a group.
    pub fn inode_table_blocks(&self) -> u64 {
        let len = self.inodes_per_group.saturating_mul(u64::try_from(self.inode_size).unwrap_or(u64::MAX));
        len.div_ceil(self.block_size.max(1))
    }

    /// First block of a group.
    pub fn group_start(&self, group: u64) -> u64 {
        group.saturating_mul(self.blocks_per_group).saturating_add(self.first_data_block)
    }

    /// First block after a group: the last one may be short.
    pub fn group_end(&self, group: u64) -> u64 {
        self.group_start(group.saturating_add(1)).min(self.blocks_count)
    }

    /// Group descriptors in a block.
    pub fn descs_per_block(&self) -> u64 {
        u64::try_from(self.desc_size).ok().and_then(|len| self.block_size.checked_div(len)).unwrap_or(0)
    }

    /// Blocks of group descriptors.
    pub fn desc_blocks(&self) -> u64 {
        self.groups().div_ceil(self.descs_per_block().max(1))
    }

    /// The bytes of `count` blocks from `block`.
    pub fn bytes_of(&self, block: u64, count: u64) -> Range<u64> {
        let start = block.saturating_mul(self.block_size);
        start..start.saturating_add(count.saturating_mul(self.block_size))
    }

    /// Says whether `count` blocks from `block` lie where files and metadata can.
    pub fn holds(&self, block: u64, count: u64) -> bool {
        block > 0
            && block >= self.first_data_block
            && block.checked_add(count).is_some_and(|end| end <= self.blocks_count)
    }

    /// Whether a group starts with a copy of the superblock.
    pub fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return self.backup_bgs.iter().any(|backup| u64::from(*backup) == group);
        }
        if group == 1 || self.ro_compat & ro_compat::SPARSE_SUPER == 0 {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| {
            let mut power: u64 = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        })
    }

    /// The blocks at the start of a group that hold copies of the superblock and of group descriptors, and what is reserved for more of
    /// them. In group 0 that is the superblock itself.
    ///
    /// Source: `ext4_num_base_meta_blocks` of Linux for the rules.
    pub fn base_blocks(&self, group: u64) -> Range<u64> {
        // The superblock of a filesystem with small blocks and large clusters is block 1 of a group that starts at block 0.
        let shift = u64::from(group == 0 && self.first_data_block == 0 && self.block_size == 1024);
        let start = self.group_start(group);
        let has_super = self.has_super(group);
        let meta_bg = self.incompat & incompat::META_BG != 0;
        let metagroup = group.checked_div(self.descs_per_block()).unwrap_or(0);
        let descs = if !meta_bg || metagroup < self.first_meta_bg {
            let old = if meta_bg { self.first_meta_bg } else { self.desc_blocks() };
            if has_super { old.saturating_add(self.reserved_gdt_blocks) } else { 0 }
        } else {
            // The first, second and last group of a metagroup hold its descriptors.
            let place = group.checked_rem(self.descs_per_block()).unwrap_or(0);
            u64::from(place <= 1 || place.saturating_add(1) == self.descs_per_block())
        };
        let len = u64::from(has_super).saturating_add(descs);
        if len == 0 {
            return start..start;
        }
        start..start.saturating_add(shift).saturating_add(len).min(self.blocks_count)
    }

    /// The block that holds descriptor block `index`.
    pub fn desc_block(&self, index: u64) -> u64 {
        let small = u64::from(self.first_data_block == 0 && self.block_size == 1024);
        if self.incompat & incompat::META_BG == 0 || index < self.first_meta_bg {
            return self.first_data_block.saturating_add(1).saturating_add(small).saturating_add(index);
        }
        let group = index.saturating_mul(self.descs_per_block());
        let shift = if group == 0 { small } else { 0 };
        self.group_start(group).saturating_add(u64::from(self.has_super(group))).saturating_add(shift)
    }

    /// Incompatible features that are not known here, by name.
    pub fn unknown_incompat(&self) -> Vec<String> {
        unknown(self.incompat, &INCOMPAT)
    }

    /// Read-only compatible features that are not known here, by name.
    pub fn unknown_ro_compat(&self) -> Vec<String> {
        unknown(self.ro_compat, &RO_COMPAT)
    }

    /// Which of the three it is, by the features that the drivers of each know.
    pub fn kind(&self) -> &'static str {
        let journal = self.compat & compat::HAS_JOURNAL != 0;
        let old_incompat = incompat::FILETYPE | incompat::META_BG | if journal { incompat::RECOVER } else { 0 };
        let old = self.incompat & !old_incompat == 0 && self.ro_compat & !0x7 == 0;
        match (old, journal) {
            (true, false) => "ext2",
            (true, true) => "ext3",
            (false, _) => "ext4",
        }
    }

    /// The UUID in its usual form.
    pub fn uuid_text(&self) -> String {
        uuid::Uuid::from_bytes(self.uuid).hyphenated().to_string()
    }
}

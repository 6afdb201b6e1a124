//! A filesystem: reads blocks, group descriptors and inodes.

use std::ops::Range;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::disk::{Disk, check_range, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::ext::group::Group;
use crate::filesystem::ext::inode::Inode;
use crate::filesystem::ext::journal;
use crate::filesystem::ext::replay::Replayed;
use crate::filesystem::ext::superblock::{self, Superblock};

/// Bytes of blocks with metadata that are kept.
const CACHE_BYTES: u64 = 8 << 20;

/// A block counts with its bytes.
#[derive(Clone, Debug)]
struct ByLen;

impl Weighter<u64, Arc<[u8]>> for ByLen {
    fn weight(&self, _: &u64, block: &Arc<[u8]>) -> u64 {
        u64::try_from(block.len()).unwrap_or(u64::MAX)
    }
}

/// An ext filesystem in a partition.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) superblock: Superblock,
    /// The journal, where it was replayed.
    replayed: Option<Arc<Replayed>>,
    blocks: Cache<u64, Arc<[u8]>, ByLen>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens the filesystem in a partition; `None` where there is no superblock.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Option<Self>> {
        let len = u64::try_from(superblock::LEN).unwrap_or(u64::MAX);
        if check_range(superblock::OFFSET, len, disk.len()).is_err() {
            return Ok(None);
        }
        let mut bytes = [0; superblock::LEN];
        disk.read_at(&mut bytes, superblock::OFFSET)?;
        let Some(superblock) = Superblock::parse(&bytes, disk.len())? else { return Ok(None) };
        let blocks = Cache::with_weighter(1024, CACHE_BYTES, ByLen);
        Ok(Some(Self { disk, superblock, replayed: None, blocks }))
    }

    /// The same filesystem after its journal was replayed: in memory, nothing is written. As it is where there is nothing to replay.
    pub(super) fn replay_journal(self) -> Result<Self> {
        if self.superblock.incompat & superblock::incompat::RECOVER == 0 {
            return Ok(self);
        }
        let logged = journal::logged_blocks(&self)?;
        let replayed = Replayed { below: self.disk, block_size: self.superblock.block_size, logged };
        let replayed = Arc::new(replayed);
        // The superblock may be among what is replayed.
        let volume = Self::open(Arc::<Replayed>::clone(&replayed))?;
        let volume =
            volume.ok_or_else(|| Error::corrupt("ext journal", superblock::OFFSET, "the superblock in it is none"))?;
        if volume.superblock.block_size != replayed.block_size {
            return Err(Error::corrupt("ext journal", superblock::OFFSET, "the superblock in it is another one's"));
        }
        Ok(Self { replayed: Some(replayed), ..volume })
    }

    /// Whether the bytes of a range are those of the partition, and not of its journal.
    pub(super) fn is_in_place(&self, range: &Range<u64>) -> bool {
        self.replayed.as_ref().is_none_or(|replayed| replayed.is_in_place(range))
    }

    /// Bytes of a block, as a length in memory.
    pub fn block_len(&self) -> usize {
        usize::try_from(self.superblock.block_size).expect("a block has at most 64 KiB")
    }

    /// Where a block lies, in bytes of the partition.
    pub fn offset_of(&self, block: u64) -> u64 {
        block.saturating_mul(self.superblock.block_size)
    }

    /// A block with metadata.
    pub fn block(&self, block: u64) -> Result<Arc<[u8]>> {
        if let Some(bytes) = self.blocks.get(&block) {
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = read_vec(&self.disk, self.offset_of(block), self.block_len())?.into();
        self.blocks.insert(block, Arc::clone(&bytes));
        Ok(bytes)
    }

    /// The descriptor of a group.
    pub fn group(&self, number: u64) -> Result<Group> {
        let superblock = &self.superblock;
        if number >= superblock.groups() {
            return Err(Error::corrupt(format_args!("ext group {number}"), 0, "there is no such group"));
        }
        let per_block = superblock.descs_per_block().max(1);
        let index = number.checked_div(per_block).unwrap_or(0);
        let within = usize::try_from(number.checked_rem(per_block).unwrap_or(0)).expect("below the size of a block");
        let block = superblock.desc_block(index);
        let at = within.saturating_mul(superblock.desc_size);
        let offset = self.offset_of(block).saturating_add(u64::try_from(at).unwrap_or(0));
        if block >= superblock.blocks_count {
            return Err(Error::corrupt("ext group descriptors", offset, "they reach past the end of the filesystem"));
        }
        let bytes = self.block(block)?;
        let bytes = bytes.get(at..at.saturating_add(superblock.desc_size)).unwrap_or_default();
        Group::parse(bytes, number, superblock, offset)
    }

    /// The group of an inode and its place in the group's table.
    pub fn place_of(&self, inode: u32) -> Result<(u64, u64)> {
        let corrupt = || Error::corrupt(format_args!("ext inode {inode}"), 0, "there is no such inode");
        if inode > self.superblock.inodes_count {
            return Err(corrupt());
        }
        let index = u64::from(inode.checked_sub(1).ok_or_else(corrupt)?);
        let per_group = self.superblock.inodes_per_group;
        let place = index.checked_div(per_group).zip(index.checked_rem(per_group));
        place.ok_or_else(corrupt)
    }

    /// Where an inode lies, in bytes of the partition.
    pub fn inode_place(&self, number: u32) -> Result<Range<u64>> {
        let (group, index) = self.place_of(number)?;
        let inode_len = u64::try_from(self.superblock.inode_size).unwrap_or(u64::MAX);
        let table = self.offset_of(self.group(group)?.inode_table);
        let start = table.saturating_add(index.saturating_mul(inode_len));
        Ok(start..start.saturating_add(inode_len))
    }

    /// The inode `number`, whether in use or not.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let place = self.inode_place(number)?;
        let block_size = self.superblock.block_size;
        let block = place.start.checked_div(block_size).unwrap_or(0);
        let at = usize::try_from(place.start.checked_rem(block_size).unwrap_or(0)).expect("below the size of a block");
        let bytes = self.block(block)?;
        let raw = bytes.get(at..at.saturating_add(self.superblock.inode_size)).unwrap_or_default();
        Inode::parse(raw, number, &self.superblock, place.start)
    }
}

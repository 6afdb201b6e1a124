//! Directory blocks: entries one behind the other, with a checksum where the filesystem has them.

use crate::bytes::{le16, le32, u8_at};
use crate::crc32c;
use crate::filesystem::ext::superblock::{Superblock, incompat};

/// Bytes of an entry before its name.
const HEADER: usize = 8;
/// Bytes of the entry that holds the checksum of a block, at its end.
const TAIL: usize = 12;

/// An entry of a directory that names an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry<'a> {
    /// What it names; never 0.
    pub inode: u32,
    /// Its name; may be empty or anything else.
    pub name: &'a [u8],
    /// Type of the inode: 1 regular, 2 directory, 3 character device, 4 block device, 5 pipe, 6 socket, 7 symbolic link; 0 unknown.
    pub file_type: u8,
}

/// The length of an entry as it is stored: of blocks of 64 KiB, the length of a whole one does not fit.
fn record_len(stored: u16, block_len: usize) -> usize {
    let stored = usize::from(stored);
    match (stored, block_len) {
        (0 | 0xffff, 0x1_0000) => block_len,
        (_, 0x1_0000) => (stored & 0xfffc) | ((stored & 3) << 16),
        _ => stored,
    }
}

/// The entries in a block of a directory, or in a part of an inode that holds some. Those that name nothing are left out, so that nodes of a hash tree have
/// none. An error is the rule that is broken, and the last item.
///
/// Source: `__ext4_check_dir_entry` of Linux for the rules.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    block_len: usize,
    has_type: bool,
    inodes_count: u32,
}

impl<'a> Entries<'a> {
    /// Starts at the first entry of `bytes`.
    pub fn new(bytes: &'a [u8], superblock: &Superblock) -> Self {
        Self {
            rest: bytes,
            block_len: bytes.len(),
            has_type: superblock.incompat & incompat::FILETYPE != 0,
            inodes_count: superblock.inodes_count,
        }
    }

    fn entry(&mut self) -> Result<RawEntry<'a>, &'static str> {
        let rest = std::mem::take(&mut self.rest);
        let fields = (le32(rest, 0), le16(rest, 4), le16(rest, 6));
        let (Some(inode), Some(stored), Some(name_field)) = fields else {
            return Err("an entry of the directory is cut short");
        };
        let len = record_len(stored, self.block_len);
        let [name_len, file_type] = name_field.to_le_bytes();
        let name_len = usize::from(if self.has_type { u16::from(name_len) } else { name_field });
        if len < 12 || !len.is_multiple_of(4) || len > rest.len() || HEADER.saturating_add(name_len) > len {
            return Err("the length of an entry of the directory is out of range");
        }
        if inode > self.inodes_count {
            return Err("an entry of the directory names an inode that does not exist");
        }
        let (entry, behind) = rest.split_at(len);
        self.rest = behind;
        let name = entry.get(HEADER..HEADER.saturating_add(name_len)).unwrap_or_default();
        Ok(RawEntry { inode, name, file_type: if self.has_type { file_type & 7 } else { 0 } })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.entry() {
                Ok(entry) if entry.inode == 0 => {}
                other => return Some(other),
            }
        }
        None
    }
}

/// Where count and limit of a node of a hash tree lie; `None` where the block is no such node.
pub fn hash_node(block: &[u8]) -> Option<usize> {
    let first = record_len(le16(block, 4)?, block.len());
    if first == block.len() {
        return Some(8);
    }
    let second = record_len(le16(block, 16)?, block.len());
    // The root: "." and ".." with the rest of the block, and 8 bytes about the tree.
    let is_root =
        first == 12 && second == block.len().checked_sub(12)? && le32(block, 24)? == 0 && u8_at(block, 29)? == 8;
    is_root.then_some(32)
}

/// Checks the checksum of a block of a directory whose seed is `csum_seed`.
pub fn check_block(block: &[u8], csum_seed: u32) -> bool {
    // First, since a node that was a plain block before may still end like one.
    if let Some(at) = hash_node(block) {
        return check_hash_node(block, at, csum_seed) == Some(true);
    }
    let Some(tail) = block.len().checked_sub(TAIL) else { return false };
    let (covered, tail) = block.split_at(tail);
    // No inode, 12 bytes, no name, type 0xde.
    tail.starts_with(&[0, 0, 0, 0, 12, 0, 0, 0xde]) && le32(tail, 8) == Some(crc32c::update(csum_seed, covered))
}

fn check_hash_node(block: &[u8], at: usize, csum_seed: u32) -> Option<bool> {
    let (limit, count) = (le16(block, at)?, le16(block, at.saturating_add(2))?);
    let end = |entries: u16| at.saturating_add(usize::from(entries).saturating_mul(8));
    let covered = block.get(..end(count))?;
    // Behind the last entry that there could be: four bytes of anything, and the checksum.
    let tail = block.get(end(limit)..)?;
    let state = crc32c::update(crc32c::update(csum_seed, covered), tail.get(..4)?);
    Some(count <= limit && crc32c::update(state, &[0; 4]) == le32(tail, 4)?)
}

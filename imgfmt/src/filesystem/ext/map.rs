//! From blocks of a file to blocks of the filesystem: trees of extents, and block maps.

use std::collections::HashSet;
use std::ops::Range;

use crate::bytes::{le16, le32};
use crate::crc32c;
use crate::error::Result;
use crate::filesystem::ext::inode::{Inode, flag};
use crate::filesystem::ext::volume::Volume;

/// Levels of an extent tree below its root.
const MAX_DEPTH: u16 = 5;
/// Blocks that an inode points at directly.
const DIRECT: usize = 12;
/// First number of a length that says "not written yet".
const UNWRITTEN: u16 = 0x8000;
/// Bytes of an extent, of an index entry and of the header before them.
const ENTRY: usize = 12;

/// A run of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First block of the file.
    pub logical: u64,
    /// First block of the filesystem.
    pub physical: u64,
    /// Blocks; never 0.
    pub len: u64,
    /// Whether its bytes count; otherwise it reads as zero.
    pub written: bool,
}

/// What a map consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A block of the map itself.
    Node(u64),
    /// A run of the file, in ascending order.
    Run(Run),
}

/// Follows one map.
struct Follower<'a> {
    volume: &'a Volume,
    inode: &'a Inode,
    /// Blocks of maps that were read: none is read twice, so hostile maps cost no more than honest ones.
    seen: &'a mut HashSet<u64>,
    visit: &'a mut dyn FnMut(Piece) -> Result<()>,
    /// The run that may go on.
    pending: Option<Run>,
}

impl Volume {
    /// Calls `visit` for each block of the map of an inode and for each run of it, past the end of the file too. The same `seen` for several inodes makes
    /// sure that they share no block of a map.
    pub fn follow(
        &self,
        inode: &Inode,
        seen: &mut HashSet<u64>,
        visit: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        if !inode.has_map(&self.superblock) {
            return Ok(());
        }
        let mut follower = Follower { volume: self, inode, seen, visit, pending: None };
        if inode.has(flag::EXTENTS) {
            follower.extents(&inode.block, None, 0..1 << 32, 0)?;
        } else {
            follower.block_map()?;
        }
        follower.flush()
    }
}

/// The header and the entries of an extent node.
struct ExtentNode<'a> {
    depth: u16,
    entries: &'a [[u8; ENTRY]],
}

impl<'a> ExtentNode<'a> {
    /// Parses a node in `bytes`, a whole block or the bytes of the inode.
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let half = |at| le16(bytes, at).unwrap_or(0);
        if half(0) != 0xf30a {
            return Err("a node of its extents has no magic number");
        }
        let (count, max, depth) = (usize::from(half(2)), usize::from(half(4)), half(6));
        let (entries, _) = bytes.get(ENTRY..).unwrap_or_default().as_chunks::<ENTRY>();
        if count > max || max > entries.len() || depth > MAX_DEPTH || (depth > 0 && count == 0) {
            return Err("the header of a node of its extents is out of range");
        }
        Ok(Self { depth, entries: entries.get(..count).unwrap_or_default() })
    }
}

/// Checks the checksum behind the entries of an extent node in a block.
pub(super) fn check_extent_block(bytes: &[u8], csum_seed: u32) -> bool {
    let max = usize::from(le16(bytes, 4).unwrap_or(0));
    let tail = max.saturating_add(1).saturating_mul(ENTRY);
    match (bytes.get(..tail), le32(bytes, tail)) {
        (Some(covered), Some(stored)) => crc32c::update(csum_seed, covered) == stored,
        _ => false,
    }
}

impl Follower<'_> {
    fn run(&mut self, run: Run) -> Result<()> {
        if !self.volume.superblock.holds(run.physical, run.len) {
            let offset = self.volume.offset_of(run.physical);
            return Err(self.inode.corrupt(offset, "it uses blocks outside of the filesystem"));
        }
        if let Some(pending) = &mut self.pending
            && pending.written == run.written
            && pending.logical.saturating_add(pending.len) == run.logical
            && pending.physical.saturating_add(pending.len) == run.physical
        {
            pending.len = pending.len.saturating_add(run.len);
            return Ok(());
        }
        self.flush()?;
        self.pending = Some(run);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(run) => (self.visit)(Piece::Run(run)),
            None => Ok(()),
        }
    }

    /// Reads a block of the map itself.
    fn node(&mut self, block: u64) -> Result<std::sync::Arc<[u8]>> {
        let offset = self.volume.offset_of(block);
        if !self.volume.superblock.holds(block, 1) {
            return Err(self.inode.corrupt(offset, "its map lies outside of the filesystem"));
        }
        if !self.seen.insert(block) {
            return Err(self.inode.corrupt(offset, "a block of its map is part of a map twice"));
        }
        (self.visit)(Piece::Node(block))?;
        self.volume.block(block)
    }

    /// Follows a node that may map the blocks `bounds` of the file. `depth` is what the node above demands.
    fn extents(&mut self, bytes: &[u8], depth: Option<u16>, bounds: Range<u64>, offset: u64) -> Result<()> {
        let node = ExtentNode::parse(bytes).map_err(|reason| self.inode.corrupt(offset, reason))?;
        if depth.is_some_and(|depth| depth != node.depth) {
            return Err(self.inode.corrupt(offset, "a node of its extents has the wrong depth"));
        }
        let first_block = |entry: &[u8; ENTRY]| u64::from(le32(entry, 0).unwrap_or(0));
        let mut next = bounds.start;
        for (index, entry) in node.entries.iter().enumerate() {
            let logical = first_block(entry);
            if logical < next || logical >= bounds.end {
                return Err(self.inode.corrupt(offset, "its extents are not in order"));
            }
            if node.depth == 0 {
                let (len, high) = (le16(entry, 4).unwrap_or(0), le16(entry, 6).unwrap_or(0));
                let written = len <= UNWRITTEN;
                let len = u64::from(if written { len } else { len.saturating_sub(UNWRITTEN) });
                let physical = u64::from(le32(entry, 8).unwrap_or(0)) | (u64::from(high) << 32);
                next = logical.saturating_add(len);
                if len == 0 || next > bounds.end {
                    return Err(self.inode.corrupt(offset, "the length of an extent is out of range"));
                }
                self.run(Run { logical, physical, len, written })?;
            } else {
                let high = u64::from(le16(entry, 8).unwrap_or(0));
                let child = u64::from(le32(entry, 4).unwrap_or(0)) | (high << 32);
                let end = node.entries.get(index.saturating_add(1)).map_or(bounds.end, first_block).min(bounds.end);
                let block = self.node(child)?;
                let child_offset = self.volume.offset_of(child);
                if self.volume.superblock.has_metadata_csum() && !check_extent_block(&block, self.inode.csum_seed) {
                    return Err(self.inode.corrupt(child_offset, "the checksum of a node of its extents is wrong"));
                }
                self.extents(&block, node.depth.checked_sub(1), logical..end, child_offset)?;
                next = end;
            }
        }
        Ok(())
    }

    fn block_map(&mut self) -> Result<()> {
        let inode = self.inode;
        let (pointers, _) = inode.block.as_chunks::<4>();
        let mut logical = 0;
        for (index, pointer) in pointers.iter().enumerate() {
            let pointer = u64::from(u32::from_le_bytes(*pointer));
            let level = u32::try_from(index.saturating_sub(DIRECT.saturating_sub(1))).unwrap_or(0);
            self.pointer(pointer, level, logical)?;
            logical = logical.saturating_add(self.span(level));
        }
        Ok(())
    }

    /// Blocks of the file below a pointer.
    fn span(&self, level: u32) -> u64 {
        (self.volume.superblock.block_size / 4).saturating_pow(level)
    }

    /// Follows a pointer to a block of the file (level 0) or to a block of pointers.
    fn pointer(&mut self, block: u64, level: u32, logical: u64) -> Result<()> {
        if block == 0 {
            return Ok(());
        }
        let Some(below) = level.checked_sub(1) else {
            return self.run(Run { logical, physical: block, len: 1, written: true });
        };
        let bytes = self.node(block)?;
        let (pointers, _) = bytes.as_chunks::<4>();
        for (index, pointer) in (0_u64..).zip(pointers) {
            let logical = logical.saturating_add(index.saturating_mul(self.span(below)));
            self.pointer(u64::from(u32::from_le_bytes(*pointer)), below, logical)?;
        }
        Ok(())
    }
}

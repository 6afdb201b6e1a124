//! From blocks of a file to blocks of the filesystem: trees of extents, and block maps.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

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
/// Blocks that a file with extents can have.
const MAX_BLOCKS: u64 = 1 << 32;
const WRONG_DEPTH: &str = "a node of its extents has the wrong depth";
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
            follower.extents(&inode.block, None, 0..MAX_BLOCKS, 0)?;
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

    /// The runs of a leaf that may map the blocks `bounds` of the file.
    fn runs(&self, bounds: &Range<u64>) -> Result<Vec<Run>, &'static str> {
        let mut next = bounds.start;
        let mut runs = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let logical = first_block(entry);
            let (len, high) = (le16(entry, 4).unwrap_or(0), le16(entry, 6).unwrap_or(0));
            let written = len <= UNWRITTEN;
            let len = u64::from(if written { len } else { len.saturating_sub(UNWRITTEN) });
            if logical < next || len == 0 || logical.saturating_add(len) > bounds.end {
                return Err("its extents are not in order");
            }
            next = logical.saturating_add(len);
            let physical = u64::from(le32(entry, 8).unwrap_or(0)) | (u64::from(high) << 32);
            runs.push(Run { logical, physical, len, written });
        }
        Ok(runs)
    }

    /// The blocks of the nodes below, each with the blocks of the file that it may map.
    fn children(&self, bounds: &Range<u64>) -> Result<Vec<(Range<u64>, u64)>, &'static str> {
        let mut next = bounds.start;
        let mut children = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let logical = first_block(entry);
            let end = self.entries.get(index.saturating_add(1)).map_or(bounds.end, first_block);
            if logical < next || end > bounds.end || logical >= end {
                return Err("the nodes of its extents are not in order");
            }
            next = end;
            let high = u64::from(le16(entry, 8).unwrap_or(0));
            children.push((logical..end, u64::from(le32(entry, 4).unwrap_or(0)) | (high << 32)));
        }
        Ok(children)
    }
}

/// First block of the file that an entry of an extent node maps.
fn first_block(entry: &[u8; ENTRY]) -> u64 {
    u64::from(le32(entry, 0).unwrap_or(0))
}

/// Checks the checksum behind the entries of an extent node in a block.
fn check_extent_block(bytes: &[u8], csum_seed: u32) -> bool {
    let max = usize::from(le16(bytes, 4).unwrap_or(0));
    let tail = max.saturating_add(1).saturating_mul(ENTRY);
    match (bytes.get(..tail), le32(bytes, tail)) {
        (Some(covered), Some(stored)) => crc32c::update(csum_seed, covered) == stored,
        _ => false,
    }
}

/// The pointers in a block of them, or in the inode.
fn pointers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<4>().0.iter().map(|pointer| u64::from(u32::from_le_bytes(*pointer)))
}

/// Adds a run to runs in ascending order, as part of the last one where it goes on there.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.is_continued_by(&run) => last.len = last.len.saturating_add(run.len),
        _ => runs.push(run),
    }
}

impl Run {
    fn is_continued_by(&self, next: &Self) -> bool {
        self.written == next.written
            && self.logical.saturating_add(self.len) == next.logical
            && self.physical.saturating_add(self.len) == next.physical
    }
}

impl Volume {
    /// Reads a node of the extents of an inode.
    fn extent_block(&self, inode: &Inode, block: u64) -> Result<Arc<[u8]>> {
        let bytes = self.map_block(inode, block)?;
        if self.superblock.has_metadata_csum() && !check_extent_block(&bytes, inode.csum_seed) {
            let offset = self.offset_of(block);
            return Err(inode.corrupt(offset, "the checksum of a node of its extents is wrong"));
        }
        Ok(bytes)
    }

    /// Reads a block of the map of an inode.
    fn map_block(&self, inode: &Inode, block: u64) -> Result<Arc<[u8]>> {
        if !self.superblock.holds(block, 1) {
            return Err(inode.corrupt(self.offset_of(block), "its map lies outside of the filesystem"));
        }
        self.block(block)
    }

    fn check_run(&self, inode: &Inode, run: Run) -> Result<Run> {
        if !self.superblock.holds(run.physical, run.len) {
            return Err(inode.corrupt(self.offset_of(run.physical), "it uses blocks outside of the filesystem"));
        }
        Ok(run)
    }

    /// Blocks of a file below a pointer of a block map: level 0 points at a block of the file.
    fn span(&self, level: u32) -> u64 {
        (self.superblock.block_size / 4).saturating_pow(level)
    }
}

impl Follower<'_> {
    fn run(&mut self, run: Run) -> Result<()> {
        let run = self.volume.check_run(self.inode, run)?;
        match &mut self.pending {
            Some(pending) if pending.is_continued_by(&run) => pending.len = pending.len.saturating_add(run.len),
            _ => {
                self.flush()?;
                self.pending = Some(run);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(run) => (self.visit)(Piece::Run(run)),
            None => Ok(()),
        }
    }

    /// Tells of a block of the map itself.
    fn node(&mut self, block: u64) -> Result<()> {
        if !self.seen.insert(block) {
            let offset = self.volume.offset_of(block);
            return Err(self.inode.corrupt(offset, "a block of its map is part of a map twice"));
        }
        if self.volume.superblock.holds(block, 1) { (self.visit)(Piece::Node(block)) } else { Ok(()) }
    }

    /// Follows a node that may map the blocks `bounds` of the file. `depth` is what the node above demands.
    fn extents(&mut self, bytes: &[u8], depth: Option<u16>, bounds: Range<u64>, offset: u64) -> Result<()> {
        let inode = self.inode;
        let corrupt = |reason| inode.corrupt(offset, reason);
        let node = ExtentNode::parse(bytes).map_err(corrupt)?;
        if depth.is_some_and(|depth| depth != node.depth) {
            return Err(corrupt(WRONG_DEPTH));
        }
        let Some(below) = node.depth.checked_sub(1) else {
            return node.runs(&bounds).map_err(corrupt)?.into_iter().try_for_each(|run| self.run(run));
        };
        for (bounds, child) in node.children(&bounds).map_err(corrupt)? {
            self.node(child)?;
            let block = self.volume.extent_block(inode, child)?;
            self.extents(&block, Some(below), bounds, self.volume.offset_of(child))?;
        }
        Ok(())
    }

    fn block_map(&mut self) -> Result<()> {
        let mut logical = 0;
        for (index, pointer) in pointers(&self.inode.block).enumerate() {
            let level = level_of(index);
            self.pointer(pointer, level, logical)?;
            logical = logical.saturating_add(self.volume.span(level));
        }
        Ok(())
    }

    /// Follows a pointer to a block of the file (level 0) or to a block of pointers.
    fn pointer(&mut self, block: u64, level: u32, logical: u64) -> Result<()> {
        if block == 0 {
            return Ok(());
        }
        let Some(below) = level.checked_sub(1) else {
            return self.run(Run { logical, physical: block, len: 1, written: true });
        };
        self.node(block)?;
        let bytes = self.volume.map_block(self.inode, block)?;
        for (index, pointer) in (0_u64..).zip(pointers(&bytes)) {
            let logical = logical.saturating_add(index.saturating_mul(self.volume.span(below)));
            self.pointer(pointer, below, logical)?;
        }
        Ok(())
    }
}

/// The level of a pointer in the inode.
fn level_of(index: usize) -> u32 {
    u32::try_from(index.saturating_sub(DIRECT.saturating_sub(1))).unwrap_or(0)
}

/// The part of a map that one block of it tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Blocks of the file.
    pub range: Range<u64>,
    /// The runs among them, in ascending order; the rest is holes.
    pub runs: Vec<Run>,
}

impl Leaf {
    fn hole(range: Range<u64>) -> Self {
        Self { range, runs: Vec::new() }
    }

    /// Where block `logical` of the file (inside of the leaf) lies: the block of the filesystem, or `None` where it reads as zero; and how many blocks from
    /// there on the same is true of.
    pub fn find(&self, logical: u64) -> (Option<u64>, u64) {
        let next = self.runs.partition_point(|run| run.logical.saturating_add(run.len) <= logical);
        let run = self.runs.get(next);
        let Some(run) = run.filter(|run| run.logical <= logical) else {
            let end = run.map_or(self.range.end, |run| run.logical);
            return (None, end.saturating_sub(logical));
        };
        let within = logical.saturating_sub(run.logical);
        (run.written.then(|| run.physical.saturating_add(within)), run.len.saturating_sub(within))
    }
}

impl Volume {
    /// The part of a map that tells where block `logical` of a file is. Reads as many blocks as the map has levels.
    pub fn leaf(&self, inode: &Inode, logical: u64) -> Result<Leaf> {
        if !inode.has_map(&self.superblock) {
            return Ok(Leaf::hole(0..u64::MAX));
        }
        if inode.has(flag::EXTENTS) { self.extent_leaf(inode, logical) } else { self.pointer_leaf(inode, logical) }
    }

    fn extent_leaf(&self, inode: &Inode, logical: u64) -> Result<Leaf> {
        let mut bounds = 0..MAX_BLOCKS;
        if logical >= bounds.end {
            return Ok(Leaf::hole(bounds.end..u64::MAX));
        }
        let mut block: Arc<[u8]> = inode.block.as_slice().into();
        let (mut offset, mut depth) = (0, None);
        loop {
            let corrupt = |reason| inode.corrupt(offset, reason);
            let node = ExtentNode::parse(&block).map_err(corrupt)?;
            if depth.is_some_and(|depth| depth != node.depth) {
                return Err(corrupt(WRONG_DEPTH));
            }
            let Some(below) = node.depth.checked_sub(1) else {
                let mut runs = Vec::with_capacity(node.entries.len());
                for run in node.runs(&bounds).map_err(corrupt)? {
                    push(&mut runs, self.check_run(inode, run)?);
                }
                return Ok(Leaf { range: bounds, runs });
            };
            let children = node.children(&bounds).map_err(corrupt)?;
            let next = children.partition_point(|(range, _)| range.start <= logical);
            let Some((range, child)) = next.checked_sub(1).and_then(|at| children.get(at)).cloned() else {
                let end = children.first().map_or(bounds.end, |(range, _)| range.start);
                return Ok(Leaf::hole(bounds.start..end));
            };
            block = self.extent_block(inode, child)?;
            (bounds, offset, depth) = (range, self.offset_of(child), Some(below));
        }
    }

    fn pointer_leaf(&self, inode: &Inode, logical: u64) -> Result<Leaf> {
        let direct: u64 = DIRECT.try_into().expect("a small number");
        if logical < direct {
            return self.leaf_of_pointers(inode, &inode.block[..DIRECT * 4], 0..direct);
        }
        let mut start = direct;
        for (index, pointer) in pointers(&inode.block).enumerate().skip(DIRECT) {
            let level = level_of(index);
            let end = start.saturating_add(self.span(level));
            if logical < end {
                return self.leaf_below(inode, pointer, level, start, logical);
            }
            start = end;
        }
        Ok(Leaf::hole(start..u64::MAX))
    }

    /// The leaf of `logical` below a pointer that maps blocks from `start` on.
    fn leaf_below(&self, inode: &Inode, pointer: u64, level: u32, start: u64, logical: u64) -> Result<Leaf> {
        let (mut pointer, mut level, mut start) = (pointer, level, start);
        loop {
            let range = start..start.saturating_add(self.span(level));
            if pointer == 0 {
                return Ok(Leaf::hole(range));
            }
            let block = self.map_block(inode, pointer)?;
            if level <= 1 {
                return self.leaf_of_pointers(inode, &block, range);
            }
            level = level.saturating_sub(1);
            let index = logical.saturating_sub(start).checked_div(self.span(level)).unwrap_or(0);
            pointer = usize::try_from(index).ok().and_then(|index| pointers(&block).nth(index)).unwrap_or(0);
            start = start.saturating_add(index.saturating_mul(self.span(level)));
        }
    }

    fn leaf_of_pointers(&self, inode: &Inode, bytes: &[u8], range: Range<u64>) -> Result<Leaf> {
        let mut runs = Vec::new();
        for (logical, pointer) in (range.start..range.end).zip(pointers(bytes)) {
            if pointer != 0 {
                let run = Run { logical, physical: pointer, len: 1, written: true };
                push(&mut runs, self.check_run(inode, run)?);
            }
        }
        Ok(Leaf { range, runs })
    }
}

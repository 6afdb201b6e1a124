//! Indexes: B-trees of entries in blocks, as folders, $Secure and $Extend\$ObjId have them.
//!
//! Source: the Linux-NTFS project's documentation of $INDEX_ROOT and $INDEX_ALLOCATION.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::bytes::{le16, le32, le64};
use crate::error::{Error, Result};
use crate::filesystem::ntfs::attribute::{File, Stream, Value, Want};
use crate::filesystem::ntfs::names::field;
use crate::filesystem::ntfs::record::{attribute_type, undo_fixup};
use crate::filesystem::ntfs::volume::Volume;

/// Bytes of blocks that are read at once.
const PIECE: usize = 1 << 20;
/// Levels of a tree. Windows has hardly more than five in a folder of a million files.
const MAX_DEPTH: usize = 32;
/// Blocks that a search may read: enough for thousands of equal keys, and an end for trees that bite their tail.
const MAX_SEARCHED: usize = 4096;
/// Longest bitmap of blocks.
const MAX_BITMAP: u64 = 16 << 20;

/// An index of a file.
#[derive(Clone, Debug)]
pub(super) struct Index {
    owner: u64,
    /// $INDEX_ROOT.
    root: Vec<u8>,
    /// $INDEX_ALLOCATION.
    blocks: Option<Stream>,
    /// Which blocks are in use, a bit each.
    bitmap: Vec<u8>,
    block_size: usize,
    /// Bytes that a block's number counts.
    vcn_size: u64,
}

/// An entry of an index node.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexEntry<'a> {
    /// In a folder, the file.
    pub(super) reference: u64,
    /// The key.
    pub(super) key: &'a [u8],
    /// All of the entry: other indexes than folders have data behind the key.
    pub(super) raw: &'a [u8],
    /// The block with the entries before this one.
    child: Option<u64>,
    /// Whether it ends its node and has no key.
    is_last: bool,
}

impl IndexEntry<'_> {
    /// What an entry of a view (an index that is no folder) holds for its key.
    pub(super) fn data(&self) -> Option<&[u8]> {
        let start = field(self.raw, 0)?;
        self.raw.get(start..start.checked_add(field(self.raw, 2)?)?)
    }
}

/// Iterates over the entries of a node; the last one, without a key, comes too.
struct Entries<'a> {
    /// From the node's header on.
    node: &'a [u8],
    at: Option<usize>,
    end: usize,
}

impl<'a> Entries<'a> {
    /// `node` starts with the node's header.
    fn open(node: &'a [u8]) -> Option<Self> {
        let first = usize::try_from(le32(node, 0)?).ok()?;
        let end = usize::try_from(le32(node, 4)?).ok()?;
        (first >= 16 && end <= node.len()).then_some(Self { node, at: Some(first), end })
    }

    fn parse(&mut self, at: usize) -> Option<IndexEntry<'a>> {
        let len = field(self.node, at.checked_add(8)?)?;
        let key_len = field(self.node, at.checked_add(10)?)?;
        let flags = le16(self.node, at.checked_add(12)?)?;
        let end = at.checked_add(len).filter(|end| *end <= self.end)?;
        let raw = self.node.get(at..end)?;
        let has_child = flags & 1 != 0;
        let is_last = flags & 2 != 0;
        let key_end = len.checked_sub(if has_child { 8 } else { 0 }).filter(|end| *end >= 16)?;
        let key =
            if is_last { &[] } else { raw.get(16..16_usize.checked_add(key_len)?).filter(|_| key_len <= key_end)? };
        let child = if has_child { Some(le64(raw, key_end)?) } else { None };
        if !is_last {
            self.at = Some(end);
        }
        Some(IndexEntry { reference: le64(raw, 0)?, key, raw, child, is_last })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<IndexEntry<'a>>;

    /// `None` inside where an entry is damaged; nothing follows it.
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        Some(self.parse(at))
    }
}

impl Index {
    /// What must be asked for of a file whose index is wanted.
    pub(super) fn want(type_code: u32) -> Want {
        match type_code {
            attribute_type::INDEX_ROOT | attribute_type::INDEX_ALLOCATION | attribute_type::BITMAP => Want::Whole,
            _ => Want::Nothing,
        }
    }

    /// Opens an index of a file by its name; `None` where it has none.
    pub(super) fn open(volume: &Volume, file: &File, name: &[u8]) -> Result<Option<Self>> {
        let corrupt = |reason| volume.corrupt_record(file.number, reason);
        let root = match file.attribute(attribute_type::INDEX_ROOT, name).map(|root| &root.value) {
            None => return Ok(None),
            Some(Value::Resident(root)) => root.clone(),
            Some(Value::NonResident(_)) => return Err(corrupt("the root of its index is not in the record")),
        };
        let block_size = le32(&root, 8).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
            return Err(corrupt("the block size of its index is out of range"));
        }
        let block_len = u64::try_from(block_size).expect("at most 64 KiB");
        let blocks = match file.attribute(attribute_type::INDEX_ALLOCATION, name).map(|blocks| &blocks.value) {
            Some(Value::NonResident(blocks)) => {
                volume.check_no_holes(blocks, file.number)?;
                Some(blocks.clone())
            }
            _ => None,
        };
        let bitmap = match file.attribute(attribute_type::BITMAP, name).map(|bitmap| &bitmap.value) {
            Some(Value::Resident(bitmap)) => bitmap.clone(),
            Some(Value::NonResident(bitmap)) => volume.whole_stream(bitmap, MAX_BITMAP)?,
            None if blocks.is_some() => return Err(corrupt("its index has blocks but no bitmap of them")),
            None => Vec::new(),
        };
        // A block that is smaller than a cluster is counted in sectors.
        let vcn_size = if block_len >= volume.boot.cluster_size { volume.boot.cluster_size } else { 512 };
        Ok(Some(Self { owner: file.number, root, blocks, bitmap, block_size, vcn_size }))
    }

    fn corrupt(&self, volume: &Volume, reason: &'static str) -> Error {
        volume.corrupt_record(self.owner, reason)
    }

    /// Undoes the fixup of a block and returns the node in it.
    fn node<'a>(&self, volume: &Volume, block: &'a mut [u8], vcn: u64) -> Result<&'a [u8]> {
        match undo_fixup(block, b"INDX") {
            Ok(Some(())) => {}
            Ok(None) => return Err(self.corrupt(volume, "a block of its index is none")),
            Err(Error::Corrupt { .. }) => {
                return Err(self.corrupt(volume, "a block of its index was only partly written"));
            }
            Err(other) => return Err(other),
        }
        if le64(block, 0x10) != Some(vcn) {
            return Err(self.corrupt(volume, "a block of its index is another one"));
        }
        Ok(block.get(0x18..).unwrap_or_default())
    }

    /// Calls `visit` for every entry: those of the root, then block by block as they lie. No tree is followed, so none can be endless.
    pub(super) fn for_each(
        &self,
        volume: &Volume,
        visit: &mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.visit_node(volume, self.root.get(16..).unwrap_or_default(), visit)?.is_break() {
            return Ok(());
        }
        let Some(blocks) = &self.blocks else { return Ok(()) };
        let block_len = u64::try_from(self.block_size).expect("at most 64 KiB");
        let count = blocks.data_size.checked_div(block_len).unwrap_or(0);
        let per_piece = u64::try_from(PIECE.checked_div(self.block_size).unwrap_or(1)).expect("at most 2048");
        let mut buf = Vec::new();
        let mut first = 0_u64;
        while first < count {
            let here = per_piece.min(count.saturating_sub(first));
            if (first..first.saturating_add(here)).any(|number| self.is_used(number)) {
                let len = usize::try_from(here).unwrap_or(1).saturating_mul(self.block_size);
                buf.resize(len, 0);
                volume.read_stream(blocks, &mut buf, first.saturating_mul(block_len))?;
                for (number, block) in (first..).zip(buf.chunks_exact_mut(self.block_size)) {
                    if !self.is_used(number) {
                        continue;
                    }
                    let vcn = number.saturating_mul(block_len).checked_div(self.vcn_size).unwrap_or(0);
                    let node = self.node(volume, block, vcn)?;
                    if self.visit_node(volume, node, visit)?.is_break() {
                        return Ok(());
                    }
                }
            }
            first = first.saturating_add(here);
        }
        Ok(())
    }

    fn is_used(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8).ok().and_then(|at| self.bitmap.get(at)).copied().unwrap_or(0);
        byte & (1 << (block % 8)) != 0
    }

    fn visit_node(
        &self,
        volume: &Volume,
        node: &[u8],
        visit: &mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        for entry in self.entries(volume, node)? {
            let entry = entry.ok_or_else(|| self.corrupt(volume, "an entry of its index is damaged"))?;
            if !entry.is_last && visit(&entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn entries<'a>(&self, volume: &Volume, node: &'a [u8]) -> Result<Entries<'a>> {
        Entries::open(node).ok_or_else(|| self.corrupt(volume, "the header of a node of its index is damaged"))
    }

    /// Goes down the tree and calls `found` for the entries with the wanted key, in order, until it breaks. `order` compares the wanted key
    /// with the one it is given.
    pub(super) fn search(
        &self,
        volume: &Volume,
        order: &dyn Fn(&[u8]) -> Ordering,
        found: &mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut search = Search { index: self, volume, order, found, left: MAX_SEARCHED };
        search.node(self.root.get(16..).unwrap_or_default(), 0).map(|_| ())
    }

    /// Finds an entry of a view by its key and returns the data for it.
    pub(super) fn find(&self, volume: &Volume, order: &dyn Fn(&[u8]) -> Ordering) -> Result<Option<Vec<u8>>> {
        let mut data = None;
        self.search(volume, order, &mut |entry| {
            data = entry.data().map(<[u8]>::to_vec);
            ControlFlow::Break(())
        })?;
        Ok(data)
    }
}

struct Search<'a> {
    index: &'a Index,
    volume: &'a Volume,
    order: &'a dyn Fn(&[u8]) -> Ordering,
    found: &'a mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    /// Blocks that may still be read.
    left: usize,
}

impl Search<'_> {
    fn node(&mut self, node: &[u8], depth: usize) -> Result<ControlFlow<()>> {
        for entry in self.index.entries(self.volume, node)? {
            let entry = entry.ok_or_else(|| self.index.corrupt(self.volume, "an entry of its index is damaged"))?;
            let order = if entry.is_last { Ordering::Less } else { (self.order)(entry.key) };
            if order == Ordering::Greater {
                continue;
            }
            // What equals the key can lie before an entry that does, too.
            if let Some(vcn) = entry.child
                && self.block(vcn, depth)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if order == Ordering::Less {
                break;
            }
            if (self.found)(&entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(&mut self, vcn: u64, depth: usize) -> Result<ControlFlow<()>> {
        let (index, volume) = (self.index, self.volume);
        if depth >= MAX_DEPTH || self.left == 0 {
            return Err(index.corrupt(volume, "its index is deeper than any tree of blocks"));
        }
        self.left = self.left.saturating_sub(1);
        let Some(blocks) = &index.blocks else { return Err(index.corrupt(volume, "its index has no blocks")) };
        let offset = vcn.checked_mul(index.vcn_size).filter(|offset| *offset < blocks.data_size);
        let offset = offset.ok_or_else(|| index.corrupt(volume, "its index points past its blocks"))?;
        let mut block = vec![0; index.block_size];
        volume.read_stream(blocks, &mut block, offset)?;
        let node = index.node(volume, &mut block, vcn)?;
        self.node(node, depth.saturating_add(1))
    }
}

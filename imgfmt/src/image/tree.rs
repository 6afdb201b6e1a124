//! The shape of a generation's tree, and building one from its slots in order.
//!
//! Source: docs/format.md section 6.1.

use crate::disk::ExtentKind;
use crate::error::{Error, Result};
use crate::image::id::Pointer;
use crate::image::layout::{MAX_LEVEL, NODE_SLOTS};
use crate::image::node::{Node, Shape, Slot};

/// The shape that follows from a disk's length and the chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeShape {
    len: u64,
    chunk_size: u64,
    chunks: u64,
    root_level: u8,
}

impl TreeShape {
    /// The shape for a disk of `len` bytes (at least 1) and a chunk size of our range.
    pub fn new(len: u64, chunk_size: u32) -> Result<Self> {
        let chunk_size = u64::from(chunk_size.max(1));
        let chunks = len.div_ceil(chunk_size);
        if chunks == 0 {
            return Err(Error::Refused("a disk of no bytes cannot be kept".into()));
        }
        let root_level = (0..=MAX_LEVEL).find(|level| span(level.saturating_add(1)).is_none_or(|span| span >= chunks));
        let root_level = root_level.ok_or_else(|| Error::corrupt("disk", 0, "it is longer than a tree can be"))?;
        Ok(Self { len, chunk_size, chunks, root_level })
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes in every chunk but the last.
    pub fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// Bytes of the disk.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Level of the root.
    pub fn root_level(&self) -> u8 {
        self.root_level
    }

    /// Bytes in chunk `index`, which is below the number of chunks.
    pub fn chunk_len(&self, index: u64) -> u64 {
        self.len.saturating_sub(index.saturating_mul(self.chunk_size)).min(self.chunk_size)
    }

    /// The shape of the node of `level` whose first chunk is `first_chunk`.
    pub fn node(&self, level: u8, first_chunk: u64) -> Shape {
        let slot_span = span(level).unwrap_or(u64::MAX);
        let slots = self.chunks.saturating_sub(first_chunk).div_ceil(slot_span).min(NODE_SLOTS);
        let last_chunk = first_chunk.saturating_add(slots).saturating_sub(1);
        Shape { level, slots, chunk_size: self.chunk_size, last_chunk_len: self.chunk_len(last_chunk) }
    }
}

/// Chunks that a slot of `level` covers: 256^level; `None` past 64 bits.
pub fn span(level: u8) -> Option<u64> {
    NODE_SLOTS.checked_pow(u32::from(level))
}

/// Builds a tree from slots that come in disk order; hands each full node to `store`.
#[derive(Debug)]
pub struct TreeBuilder {
    shape: TreeShape,
    /// Open node of each level.
    levels: Vec<Vec<Slot>>,
    /// Chunks described so far.
    position: u64,
}

/// Stores a node and says where it lies.
pub type StoreNode<'a> = &'a mut dyn FnMut(&Node) -> Result<Pointer>;

impl TreeBuilder {
    /// Starts a tree.
    pub fn new(shape: TreeShape) -> Self {
        let levels = (0..=shape.root_level).map(|_| Vec::new()).collect();
        Self { shape, levels, position: 0 }
    }

    /// Chunks described so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Describes the next chunk.
    pub fn push(&mut self, slot: Slot, store: StoreNode<'_>) -> Result<()> {
        self.position = self.position.saturating_add(1);
        self.push_at(0, slot, store)
    }

    /// Describes the next `count` chunks, all of one kind other than Data, a subtree at a time where possible.
    pub fn push_fill(&mut self, kind: ExtentKind, count: u64, store: StoreNode<'_>) -> Result<()> {
        let end = self.position.saturating_add(count).min(self.shape.chunks);
        while self.position < end {
            let fits = |level: u8| {
                let span = span(level)?;
                let last = self.position.checked_add(span)?.min(self.shape.chunks);
                (self.position.is_multiple_of(span) && last <= end).then_some((level, last))
            };
            let (level, last) = (0..=self.shape.root_level).rev().find_map(fits).expect("level 0 always fits");
            self.position = last;
            self.push_at(level, Slot::Fill(kind), store)?;
        }
        Ok(())
    }

    fn push_at(&mut self, level: u8, slot: Slot, store: StoreNode<'_>) -> Result<()> {
        let open = self.levels.get_mut(usize::from(level)).expect("levels reach to the root");
        open.push(slot);
        let covered = span(level.saturating_add(1));
        let full = self.position == self.shape.chunks || covered.is_some_and(|span| self.position.is_multiple_of(span));
        if !full || level == self.shape.root_level {
            return Ok(());
        }
        let node = Node { level, slots: std::mem::take(open) };
        let up = match uniform(&node) {
            Some(kind) => Slot::Fill(kind),
            None => Slot::Pointer(store(&node)?),
        };
        self.push_at(level.saturating_add(1), up, store)
    }

    /// Stores the root. Every chunk must have been described.
    pub fn finish(mut self, store: StoreNode<'_>) -> Result<Pointer> {
        assert_eq!(self.position, self.shape.chunks, "every chunk is described before the root is stored");
        let slots = self.levels.pop().expect("levels reach to the root");
        store(&Node { level: self.shape.root_level, slots })
    }
}

fn uniform(node: &Node) -> Option<ExtentKind> {
    match node.slots.first() {
        Some(Slot::Fill(kind)) if node.slots.iter().all(|slot| *slot == Slot::Fill(*kind)) => Some(*kind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::id::{Id, Place};
    use std::collections::HashMap;

    /// Builds from (kind or id, count) and lists what a walk over the stored nodes finds, chunk by chunk.
    fn round_trip(chunks: u64, parts: &[(Option<ExtentKind>, u64)]) -> (Vec<Slot>, usize) {
        let shape = TreeShape::new(chunks * 4096, 4096).unwrap();
        let mut builder = TreeBuilder::new(shape);
        let mut stored: HashMap<Id, Vec<u8>> = HashMap::new();
        let mut store = |node: &Node| {
            let id = node.id();
            stored.insert(id, node.encode());
            Ok(Pointer { id, place: Place { pack: 0, offset: 0, len: 0 } })
        };
        for (kind, count) in parts {
            match kind {
                Some(kind) => builder.push_fill(*kind, *count, &mut store).unwrap(),
                None => {
                    for n in 0..*count {
                        let id = Id::of_chunk(&n.to_le_bytes());
                        let slot = Slot::Pointer(Pointer { id, place: Place { pack: 0, offset: 1, len: 2 } });
                        builder.push(slot, &mut store).unwrap();
                    }
                }
            }
        }
        let root = builder.finish(&mut store).unwrap();
        let mut out = Vec::new();
        walk(&shape, &stored, shape.root_level(), 0, Slot::Pointer(root), &mut out);
        (out, stored.len())
    }

    fn walk(s: &TreeShape, stored: &HashMap<Id, Vec<u8>>, level: u8, first: u64, slot: Slot, out: &mut Vec<Slot>) {
        match slot {
            Slot::Pointer(pointer) => {
                let node = Node::decode(&stored[&pointer.id], &s.node(level, first)).unwrap();
                for (n, slot) in (0_u64..).zip(node.slots) {
                    if level == 0 {
                        out.push(slot);
                    } else {
                        walk(s, stored, level - 1, first + n * span(level).unwrap(), slot, out);
                    }
                }
            }
            fill => {
                let count = span(level + 1).unwrap().min(s.chunks() - first);
                out.extend((0..count).map(|_| fill.clone()));
            }
        }
    }

    #[test]
    fn a_tree_holds_what_was_pushed() {
        for parts in [
            vec![(None, 1)],
            vec![(Some(ExtentKind::Zero), 1)],
            vec![(None, 256)],
            vec![(None, 257)],
            vec![(Some(ExtentKind::Absent), 100), (None, 300), (Some(ExtentKind::Zero), 70_000), (None, 3)],
            vec![(Some(ExtentKind::Zero), 65_536), (Some(ExtentKind::Absent), 65_537)],
        ] {
            let chunks = parts.iter().map(|part| part.1).sum();
            let (slots, _) = round_trip(chunks, &parts);
            let mut at = 0;
            for (kind, count) in &parts {
                for slot in &slots[at..at + *count as usize] {
                    match kind {
                        Some(kind) => assert_eq!(*slot, Slot::Fill(*kind)),
                        None => assert!(matches!(slot, Slot::Pointer(_))),
                    }
                }
                at += *count as usize;
            }
            assert_eq!(slots.len() as u64, chunks);
        }
    }

    #[test]
    fn a_large_empty_disk_is_one_node() {
        let chunks = (10_u64 << 40) / 4096;
        let shape = TreeShape::new(10 << 40, 4096).unwrap();
        let mut builder = TreeBuilder::new(shape);
        let mut count = 0;
        let mut store = |node: &Node| {
            count += 1;
            Ok(Pointer { id: node.id(), place: Place { pack: 0, offset: 0, len: 0 } })
        };
        builder.push_fill(ExtentKind::Zero, chunks, &mut store).unwrap();
        builder.finish(&mut store).unwrap();
        assert_eq!(count, 1);
    }
}

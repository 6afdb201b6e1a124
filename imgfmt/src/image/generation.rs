//! A generation as a disk.

use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::image::id::Pointer;
use crate::image::node::{Node, RUN_UNIT, Run, Slot};
use crate::image::reader::Image;
use crate::image::record::Record;
use crate::image::tree::{TreeShape, span};

/// A generation of a hikae image: complete by itself, and never changing.
#[derive(Clone, Debug)]
pub struct Generation {
    image: Arc<Image>,
    record: Arc<Record>,
    tree: Tree,
}

/// A tree of chunks whose root is known: a generation, or one that is still being written.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Pointer,
    shape: TreeShape,
    sector_size: u32,
}

/// What the tree says of one chunk.
#[derive(Clone, Debug)]
pub enum Found {
    /// The leaf node that holds the chunk's slot, and the slot's index.
    Leaf(Arc<Node>, usize),
    /// The chunk lies in a run of chunks of this kind; the run ends before chunk `end`.
    Fill {
        /// The kind; never Data.
        kind: ExtentKind,
        /// First chunk after the run, as far as one node tells.
        end: u64,
    },
}

impl Tree {
    /// A tree over `image`. Nothing is read yet.
    pub fn new(root: Pointer, shape: TreeShape, sector_size: u32) -> Self {
        Self { root, shape, sector_size }
    }

    /// Its root.
    pub fn root(&self) -> Pointer {
        self.root
    }

    /// Its shape.
    pub fn shape(&self) -> &TreeShape {
        &self.shape
    }

    /// Finds chunk `index`, which must be below the number of chunks.
    pub fn find(&self, image: &Image, index: u64) -> Result<Found> {
        let mut pointer = self.root;
        let mut level = self.shape.root_level();
        let mut first = 0_u64;
        loop {
            let node = image.node(pointer, &self.shape.node(level, first))?;
            let slot_span = span(level).unwrap_or(u64::MAX);
            let slot = index.saturating_sub(first).checked_div(slot_span).unwrap_or(0);
            let at = usize::try_from(slot).unwrap_or(usize::MAX);
            if level == 0 {
                return Ok(Found::Leaf(node, at));
            }
            first = first.saturating_add(slot.saturating_mul(slot_span));
            match node.slots.get(at) {
                Some(Slot::Pointer(child)) => {
                    pointer = *child;
                    level = level.saturating_sub(1);
                }
                Some(Slot::Fill(kind)) => {
                    let same = node.slots.iter().skip(at).take_while(|slot| **slot == Slot::Fill(*kind)).count();
                    let same = u64::try_from(same).unwrap_or(1);
                    let end = first.saturating_add(same.saturating_mul(slot_span)).min(self.shape.chunks());
                    return Ok(Found::Fill { kind: *kind, end });
                }
                _ => return Err(Error::corrupt("node", first, "a slot above level 0 is a chunk")),
            }
        }
    }

    fn byte_of(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.shape.chunk_size()).min(self.shape.len())
    }

    /// The extent that starts at `offset`, which must be inside the disk.
    fn extent_at(&self, image: &Image, offset: u64) -> Result<Extent> {
        let chunk_size = self.shape.chunk_size();
        let chunk = offset.checked_div(chunk_size).unwrap_or(0);
        let extent = |end: u64, kind| Extent { offset, len: end.saturating_sub(offset), kind };
        let (node, at) = match self.find(image, chunk)? {
            Found::Fill { kind, end } => return Ok(extent(self.byte_of(end), kind)),
            Found::Leaf(node, at) => (node, at),
        };
        match node.slots.get(at) {
            Some(Slot::Mixed { runs, .. }) => {
                let start = self.byte_of(chunk);
                let (end, kind) = run_at(runs, start, offset);
                Ok(extent(end.min(self.byte_of(chunk.saturating_add(1))), kind))
            }
            Some(slot) => {
                let kind_of = |slot: &Slot| match slot {
                    Slot::Fill(kind) => Some(*kind),
                    Slot::Pointer(_) => Some(ExtentKind::Data),
                    Slot::Mixed { .. } => None,
                };
                let kind = kind_of(slot).expect("a mixed slot was handled above");
                let same = node.slots.iter().skip(at).take_while(|slot| kind_of(slot) == Some(kind)).count();
                Ok(extent(self.byte_of(chunk.saturating_add(u64::try_from(same).unwrap_or(1))), kind))
            }
            None => Err(Error::corrupt("node", offset, "it has fewer slots than its position")),
        }
    }

    /// Fills `buf` from `offset`; the range was checked.
    fn read_at(&self, image: &Image, buf: &mut [u8], offset: u64) -> Result<()> {
        let chunk_size = self.shape.chunk_size();
        let mut done = 0_usize;
        let mut leaf: Option<(u64, Arc<Node>)> = None;
        while done < buf.len() {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let rest = buf.get_mut(done..).expect("done is below the length");
            let chunk = at.checked_div(chunk_size).unwrap_or(0);
            let leaf_first = chunk & !0xff;
            let node = match &leaf {
                Some((first, node)) if *first == leaf_first => Arc::clone(node),
                _ => match self.find(image, chunk)? {
                    Found::Leaf(node, _) => {
                        leaf = Some((leaf_first, Arc::clone(&node)));
                        node
                    }
                    Found::Fill { kind, end } => {
                        let part = clamp(self.byte_of(end).saturating_sub(at), rest.len());
                        fill(rest.get_mut(..part).expect("clamped"), kind, at)?;
                        done = done.saturating_add(part);
                        continue;
                    }
                },
            };
            let slot = usize::try_from(chunk.saturating_sub(leaf_first)).unwrap_or(usize::MAX);
            let slot = node.slots.get(slot).ok_or_else(|| Error::corrupt("node", at, "it has too few slots"))?;
            let start = self.byte_of(chunk);
            let chunk_len = usize::try_from(self.shape.chunk_len(chunk)).unwrap_or(usize::MAX);
            let within = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let part = chunk_len.saturating_sub(within).min(rest.len());
            let out = rest.get_mut(..part).expect("at most its length");
            match slot {
                Slot::Fill(kind) => fill(out, *kind, at)?,
                Slot::Pointer(pointer) => read_chunk(image, *pointer, out, within, chunk_len)?,
                Slot::Mixed { runs, chunk } => {
                    read_mixed(image, runs, *chunk, out, start, within, chunk_len)?;
                }
            }
            done = done.saturating_add(part);
        }
        Ok(())
    }
}

/// `len` as a length of at most `most`.
fn clamp(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

/// End (in bytes of the disk) and kind of the run that holds `offset`, in a chunk that starts at `start`.
fn run_at(runs: &[Run], start: u64, offset: u64) -> (u64, ExtentKind) {
    let mut end = start;
    let mut kind = ExtentKind::Absent;
    for run in runs {
        end = end.saturating_add(u64::from(run.units).saturating_mul(RUN_UNIT));
        kind = run.kind;
        if offset < end {
            break;
        }
    }
    (end, kind)
}

/// Zeros for what reads as zero, an error for what was unreadable.
fn fill(out: &mut [u8], kind: ExtentKind, offset: u64) -> Result<()> {
    if kind == ExtentKind::Bad {
        return Err(Error::Bad { offset, end: offset.saturating_add(buf_len(out)) });
    }
    out.fill(0);
    Ok(())
}

/// Reads part of a chunk: whole chunks go straight into the caller's buffer, parts through the cache.
fn read_chunk(image: &Image, pointer: Pointer, out: &mut [u8], within: usize, chunk_len: usize) -> Result<()> {
    if out.len() == chunk_len && image.chunk_if_cached(pointer).is_none() {
        return image.with_decoder(|decoder| image.read_chunk(decoder, pointer, out));
    }
    let chunk = image.cached_chunk(pointer, chunk_len)?;
    let part = chunk.get(within..within.saturating_add(out.len())).expect("the part lies in the chunk");
    out.copy_from_slice(part);
    Ok(())
}

fn read_mixed(
    image: &Image,
    runs: &[Run],
    chunk: Option<Pointer>,
    out: &mut [u8],
    start: u64,
    within: usize,
    chunk_len: usize,
) -> Result<()> {
    let first = start.saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
    let end = first.saturating_add(buf_len(out));
    let mut at = first;
    let mut wants_data = false;
    while at < end {
        let (run_end, kind) = run_at(runs, start, at);
        let run_end = run_end.min(end).max(at.saturating_add(1));
        if kind == ExtentKind::Bad {
            return Err(Error::Bad { offset: at, end: run_end });
        }
        wants_data |= kind == ExtentKind::Data;
        at = run_end;
    }
    match chunk {
        // What is not Data is stored as zeros, so one copy serves for all kinds.
        Some(pointer) if wants_data => read_chunk(image, pointer, out, within, chunk_len)?,
        _ => out.fill(0),
    }
    let mut at = first;
    while at < end {
        let (run_end, kind) = run_at(runs, start, at);
        let run_end = run_end.min(end).max(at.saturating_add(1));
        if kind != ExtentKind::Data {
            let from = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
            let to = usize::try_from(run_end.saturating_sub(first)).unwrap_or(usize::MAX);
            out.get_mut(from..to).expect("the run lies in the buffer").fill(0);
        }
        at = run_end;
    }
    Ok(())
}

impl Generation {
    pub(crate) fn open(image: Arc<Image>, record: Record) -> Result<Self> {
        let shape = TreeShape::new(record.disk.len, record.chunk_size)?;
        if shape.root_level() != record.root.level {
            return Err(Error::corrupt("generation record", 0, "its root is not of the level that the disk needs"));
        }
        let tree = Tree::new(record.root_pointer()?, shape, record.disk.logical_sector_size);
        Ok(Self { image, record: Arc::new(record), tree })
    }

    /// Its record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The image that holds it.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }
}

impl Disk for Generation {
    fn len(&self) -> u64 {
        self.tree.shape.len()
    }
    fn sector_size(&self) -> u32 {
        self.tree.sector_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        self.tree.read_at(&self.image, buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        self.tree.extent_at(&self.image, offset)
    }
}

/// A tree that no record names yet, as a disk: what the closure check reads.
#[derive(Debug)]
pub struct UnfinishedGeneration {
    image: Arc<Image>,
    tree: Tree,
}

impl UnfinishedGeneration {
    /// Shows `tree`, whose packs `image` can all read, as a disk.
    pub fn new(image: Arc<Image>, tree: Tree) -> Self {
        Self { image, tree }
    }
}

impl Disk for UnfinishedGeneration {
    fn len(&self) -> u64 {
        self.tree.shape.len()
    }
    fn sector_size(&self) -> u32 {
        self.tree.sector_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        self.tree.read_at(&self.image, buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        self.tree.extent_at(&self.image, offset)
    }
}

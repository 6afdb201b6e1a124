//! Which chunks and nodes an image has already: the lookup behind deduplication, with bounded memory.
//!
//! Asked in this order: the pack being written (in memory), the tables of packs finished since the last merge, the merged
//! index in `NAME.hik.index`. The last two are searched where they lie. Everything here is derived: what is missing or damaged costs
//! time or space, never data.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::bytes::{array, le32, le64};
use crate::error::{Error, Result};
use crate::image::id::{Id, Place, Pointer};
use crate::image::pack::OpenTable;
use crate::image::reader::Image;
use crate::image::table::{BLOCK_LEN, Block, BlockBuilder, Blocks, lookup};
use crate::platform;

const MAGIC: [u8; 8] = *b"hikaeIX\n";
const TAIL_LEN: usize = 40;
const COVERED_LEN: usize = 36;
/// Unmerged tables before a merge is thought of, and before it is made whatever it costs.
const MERGE_FROM: usize = 16;
const MERGE_AT: usize = 64;
/// Packs that an index may cover, so that a damaged tail asks for no memory.
const MAX_COVERED: u32 = 1 << 22;

/// A pack by number and footer hash.
type Covered = BTreeMap<u32, [u8; 32]>;

/// Finds stored objects by id.
pub struct DedupIndex {
    open: RwLock<OpenTable>,
    runs: RwLock<Vec<Arc<dyn Blocks>>>,
    /// Packs that are not there and places that are known to be damaged: what lies there is stored anew.
    unavailable: HashSet<u32>,
    damaged: HashSet<Place>,
}

impl fmt::Debug for DedupIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupIndex").field("unavailable", &self.unavailable).finish_non_exhaustive()
    }
}

impl DedupIndex {
    /// Gathers the tables of an image; merges them where that has become due. `damaged` are places not to be reused.
    pub fn open(image: &Image, damaged: HashSet<Place>) -> Self {
        let unavailable: HashSet<u32> = image.missing_packs();
        let catalogue = image.catalogue();
        let wanted = |pack: &&crate::image::catalogue::PackEntry| {
            pack.replaced_by.is_none() && !unavailable.contains(&pack.number)
        };
        let packs: Covered =
            catalogue.packs.iter().filter(wanted).map(|pack| (pack.number, pack.footer_hash)).collect();
        let path = image.store().side_file("index");
        let merged = MergedIndex::open(&path, image.id())
            .filter(|index| index.covered.iter().all(|(number, hash)| packs.get(number) == Some(hash)));
        let mut runs: Vec<Arc<dyn Blocks>> = Vec::new();
        let mut covered = Covered::new();
        if let Some(index) = &merged {
            covered.clone_from(&index.covered);
        }
        let merged_blocks = merged.as_ref().map_or(0, Blocks::count);
        if let Some(index) = merged {
            runs.push(Arc::new(index));
        }
        let mut new_blocks = 0_u64;
        let fresh: Vec<u32> = packs.keys().copied().filter(|number| !covered.contains_key(number)).collect();
        for number in &fresh {
            let table = image.pack(*number).and_then(|pack| pack.table_blocks(&pack.footer()?));
            // A pack whose table cannot be read is not reused; verify tells of it.
            if let Ok(table) = table {
                new_blocks = new_blocks.saturating_add(table.count());
                runs.push(Arc::new(table));
            }
        }
        let due =
            fresh.len() >= MERGE_AT || (fresh.len() >= MERGE_FROM && new_blocks.saturating_mul(4) >= merged_blocks);
        if due
            && merge(&path, image.id(), &runs, &packs).is_ok()
            && let Some(index) = MergedIndex::open(&path, image.id())
        {
            runs = vec![Arc::new(index)];
        }
        Self { open: RwLock::default(), runs: RwLock::new(runs), unavailable, damaged }
    }

    /// Looks into the pack that is being written from now on.
    pub fn set_open_pack(&self, table: OpenTable) {
        *self.open.write().expect("no holder of the lock panics") = table;
    }

    /// Adds the table of a pack that was finished.
    pub fn add_finished(&self, table: Arc<dyn Blocks>) {
        self.runs.write().expect("no holder of the lock panics").push(table);
    }

    /// Says whether what lies at a place can be relied on, as far as is known.
    pub fn is_usable(&self, place: Place) -> bool {
        !self.unavailable.contains(&place.pack) && !self.damaged.contains(&place)
    }

    /// Says whether anything is known that cannot be relied on.
    pub fn knows_of_damage(&self) -> bool {
        !self.unavailable.is_empty() || !self.damaged.is_empty()
    }

    /// The place of an object in the pack that is being written.
    pub fn find_open(&self, id: &Id) -> Option<Place> {
        let open = self.open.read().expect("no holder of the lock panics");
        open.read().expect("no holder of the lock panics").get(id).copied()
    }

    /// Where an object lies, if the image has it.
    pub fn find(&self, id: &Id) -> Option<Place> {
        if let Some(place) = self.find_open(id) {
            return Some(place);
        }
        let runs = self.runs.read().expect("no holder of the lock panics");
        let found = runs.iter().rev().find_map(|run| lookup(&**run, id).ok().flatten());
        found.map(|pointer| pointer.place).filter(|place| self.is_usable(*place))
    }
}

/// The merged index in its file.
#[derive(Debug)]
struct MergedIndex {
    file: File,
    blocks: u64,
    covered: Covered,
}

impl MergedIndex {
    /// Opens the index; `None` where it is missing, damaged, or of another image.
    fn open(path: &Path, image_id: [u8; 16]) -> Option<Self> {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let tail_at = len.checked_sub(u64::try_from(TAIL_LEN).ok()?)?;
        let mut tail = [0; TAIL_LEN];
        platform::read_exact_at(&file, &mut tail, tail_at).ok()?;
        let (blocks, count) = (le64(&tail, 8)?, le32(&tail, 16)?);
        if array(&tail, 0)? != MAGIC || array(&tail, 24)? != image_id || count > MAX_COVERED {
            return None;
        }
        let blocks_len = blocks.checked_mul(u64::try_from(BLOCK_LEN).ok()?)?;
        let list_len = usize::try_from(count).ok()?.checked_mul(COVERED_LEN)?;
        if blocks_len.checked_add(u64::try_from(list_len).ok()?)? != tail_at {
            return None;
        }
        let mut list = vec![0; list_len];
        platform::read_exact_at(&file, &mut list, blocks_len).ok()?;
        if le32(&tail, 20)? != crc32fast::hash(&list) {
            return None;
        }
        let covered = list.chunks_exact(COVERED_LEN).map(|raw| Some((le32(raw, 0)?, array(raw, 4)?)));
        Some(Self { file, blocks, covered: covered.collect::<Option<_>>()? })
    }
}

impl Blocks for MergedIndex {
    fn count(&self) -> u64 {
        self.blocks
    }
    fn read(&self, index: u64, buf: &mut [u8]) -> Result<()> {
        let block = u64::try_from(BLOCK_LEN).expect("a small constant");
        platform::read_exact_at(&self.file, buf, index.saturating_mul(block))
            .map_err(|error| Error::io("read", "the index of the image", error))
    }
}

/// Entries of a run in order.
struct Cursor<'a> {
    run: &'a dyn Blocks,
    next_block: u64,
    buf: Vec<u8>,
    entry: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<Option<Pointer>> {
        loop {
            if !self.buf.is_empty()
                && let Some(pointer) = Block::parse(&self.buf, self.next_block)?.get(self.entry)
            {
                self.entry = self.entry.saturating_add(1);
                return Ok(Some(pointer));
            }
            if self.next_block >= self.run.count() {
                return Ok(None);
            }
            self.buf.resize(BLOCK_LEN, 0);
            self.run.read(self.next_block, &mut self.buf)?;
            self.next_block = self.next_block.saturating_add(1);
            self.entry = 0;
        }
    }
}

/// Writes the merged index of all runs beside the old one, then puts it in its place.
fn merge(path: &Path, image_id: [u8; 16], runs: &[Arc<dyn Blocks>], packs: &Covered) -> Result<()> {
    let temporary = path.with_extension("index.new");
    let failed = |error| Error::io("write", &temporary, error);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(failed)?);
    let mut cursors: Vec<_> =
        runs.iter().map(|run| Cursor { run: &**run, next_block: 0, buf: Vec::new(), entry: 0 }).collect();
    let mut heap = BinaryHeap::new();
    for (index, cursor) in cursors.iter_mut().enumerate() {
        heap.extend(cursor.next()?.map(|pointer| Reverse((pointer, index))));
    }
    let mut builder = BlockBuilder::default();
    let mut blocks = 0_u64;
    let mut last = None;
    while let Some(Reverse((pointer, index))) = heap.pop() {
        if let Some(cursor) = cursors.get_mut(index) {
            heap.extend(cursor.next()?.map(|pointer| Reverse((pointer, index))));
        }
        // One place per id is enough to find it.
        if last != Some(pointer.id) {
            last = Some(pointer.id);
            if let Some(block) = builder.push(&pointer) {
                out.write_all(&block).map_err(failed)?;
                blocks = blocks.saturating_add(1);
            }
        }
    }
    if let Some(block) = builder.finish() {
        out.write_all(&block).map_err(failed)?;
        blocks = blocks.saturating_add(1);
    }
    let mut list = Vec::new();
    for (number, hash) in packs {
        list.extend_from_slice(&number.to_le_bytes());
        list.extend_from_slice(hash);
    }
    let count = u32::try_from(packs.len()).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(&list);
    list.extend_from_slice(&MAGIC);
    list.extend_from_slice(&blocks.to_le_bytes());
    list.extend_from_slice(&count.to_le_bytes());
    list.extend_from_slice(&checksum.to_le_bytes());
    list.extend_from_slice(&image_id);
    out.write_all(&list).map_err(failed)?;
    out.into_inner().map_err(|error| failed(error.into_error()))?;
    std::fs::rename(&temporary, path).map_err(|error| Error::io("rename", &temporary, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::table;

    fn run(range: std::ops::Range<u32>, pack: u32) -> (Vec<Pointer>, Arc<dyn Blocks>) {
        let mut all: Vec<_> = range
            .map(|n| Pointer { id: Id::of_chunk(&n.to_le_bytes()), place: Place { pack, offset: n.into(), len: 9 } })
            .collect();
        all.sort_unstable();
        let blocks = table::build(&all);
        (all, Arc::new(blocks))
    }

    #[test]
    fn a_merged_index_finds_what_its_tables_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hik.index");
        let (a, run_a) = run(0..1000, 0);
        let (b, run_b) = run(500..3000, 1);
        let packs = Covered::from([(0, [1; 32]), (1, [2; 32])]);
        merge(&path, [7; 16], &[run_a, run_b], &packs).unwrap();
        let index = MergedIndex::open(&path, [7; 16]).unwrap();
        assert_eq!(index.covered, packs);
        for pointer in a.iter().chain(&b) {
            assert_eq!(lookup(&index, &pointer.id).unwrap().unwrap().id, pointer.id);
        }
        assert_eq!(index.count(), 3000_u64.div_ceil(85));
        assert!(MergedIndex::open(&path, [8; 16]).is_none());
        let len = std::fs::metadata(&path).unwrap().len();
        for cut in [1, 40, 41, 4096] {
            File::options().write(true).open(&path).unwrap().set_len(len - cut).unwrap();
            assert!(MergedIndex::open(&path, [7; 16]).is_none(), "cut by {cut}");
        }
    }
}

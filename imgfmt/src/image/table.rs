//! Sorted lists of ids and places, in blocks that can be searched without being loaded.
//!
//! A pack's table and the merged index of an image have the same blocks.
//!
//! Source: docs/format.md section 4.

use crate::bytes::{array, le16, le32};
use crate::error::{Error, Result};
use crate::image::id::{Id, Place, Pointer};

/// Length of a block in bytes.
pub const BLOCK_LEN: usize = 4096;
/// Entries of a full block.
pub const BLOCK_ENTRIES: usize = 85;
const ENTRY_LEN: usize = 48;
const BLOCK_HEADER_LEN: usize = 8;

/// Builds blocks from pointers that come in ascending order.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    block: Vec<u8>,
    count: u16,
}

impl BlockBuilder {
    /// Adds an entry; returns a finished block where the one before was full.
    pub fn push(&mut self, pointer: &Pointer) -> Option<Vec<u8>> {
        let full = if usize::from(self.count) == BLOCK_ENTRIES { self.finish() } else { None };
        if self.block.is_empty() {
            self.block.reserve_exact(BLOCK_LEN);
            self.block.resize(BLOCK_HEADER_LEN, 0);
        }
        self.block.extend_from_slice(&pointer.id.0);
        pointer.place.encode(&mut self.block);
        self.count = self.count.saturating_add(1);
        full
    }

    /// Ends the last block; `None` where there is nothing in it.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(BLOCK_LEN, 0);
        block.get_mut(4..6).expect("a block has 4096 bytes").copy_from_slice(&self.count.to_le_bytes());
        let checksum = crc32fast::hash(block.get(4..).expect("a block has 4096 bytes"));
        block.get_mut(..4).expect("a block has 4096 bytes").copy_from_slice(&checksum.to_le_bytes());
        self.count = 0;
        Some(block)
    }
}

/// Builds the blocks of a whole list, which must be sorted.
pub fn build(pointers: &[Pointer]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    let mut out = Vec::with_capacity(pointers.len().div_ceil(BLOCK_ENTRIES).saturating_mul(BLOCK_LEN));
    for pointer in pointers {
        out.extend(builder.push(pointer).into_iter().flatten());
    }
    out.extend(builder.finish().into_iter().flatten());
    out
}

/// A block, checked.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Block<'a> {
    /// Checks length, checksum and count. `offset` is for the message.
    pub fn parse(bytes: &'a [u8], offset: u64) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("table block", offset, reason);
        if bytes.len() != BLOCK_LEN {
            return Err(corrupt("it is cut short"));
        }
        if le32(bytes, 0) != Some(crc32fast::hash(bytes.get(4..).unwrap_or_default())) {
            return Err(corrupt("its checksum does not match"));
        }
        let count = usize::from(le16(bytes, 4).unwrap_or(0));
        if count == 0 || count > BLOCK_ENTRIES {
            return Err(corrupt("its number of entries is out of range"));
        }
        Ok(Self { bytes, count })
    }

    /// The id of entry `index`, which is below the count.
    fn id(&self, index: usize) -> Id {
        let at = index.saturating_mul(ENTRY_LEN).saturating_add(BLOCK_HEADER_LEN);
        Id(array(self.bytes, at).unwrap_or([0; 32]))
    }

    /// Entry `index`.
    pub fn get(&self, index: usize) -> Option<Pointer> {
        if index >= self.count {
            return None;
        }
        let at = index.checked_mul(ENTRY_LEN)?.checked_add(BLOCK_HEADER_LEN)?;
        Some(Pointer { id: self.id(index), place: Place::decode(self.bytes, at.checked_add(32)?)? })
    }

    /// The entries, ascending.
    pub fn iter(self) -> impl Iterator<Item = Pointer> + 'a {
        (0..self.count).filter_map(move |index| self.get(index))
    }

    /// Where `id` is, or would be, inside this block.
    fn search(&self, id: &Id) -> Search {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.id(middle) < *id { low = middle.saturating_add(1) } else { high = middle }
        }
        match self.get(low) {
            None => Search::After,
            Some(pointer) if pointer.id == *id => Search::Found(pointer),
            Some(_) if low == 0 => Search::Before,
            Some(_) => Search::Nowhere,
        }
    }
}

enum Search {
    Before,
    Found(Pointer),
    Nowhere,
    After,
}

/// Where blocks are read from.
pub trait Blocks: Send + Sync {
    /// Number of blocks.
    fn count(&self) -> u64;
    /// Reads block `index` into `buf` ([`BLOCK_LEN`] bytes).
    fn read(&self, index: u64, buf: &mut [u8]) -> Result<()>;
}

/// Finds one entry with this id, with one or two block reads: ids are uniform, so the first guess is nearly right.
pub fn lookup(blocks: &dyn Blocks, id: &Id) -> Result<Option<Pointer>> {
    let (mut low, mut high) = (0, blocks.count());
    let key = u64::from_be_bytes(array(&id.0, 0).expect("an id has 32 bytes"));
    let scaled = u128::from(key).saturating_mul(u128::from(high)) >> 64;
    let mut guess = u64::try_from(scaled).unwrap_or(u64::MAX);
    let mut buf = [0; BLOCK_LEN];
    // Gallop from the guess, then halve: never more than a binary search twice over.
    let mut step = 1_u64;
    while low < high {
        let index = guess.clamp(low, high.saturating_sub(1));
        blocks.read(index, &mut buf)?;
        let forward = match Block::parse(&buf, index)?.search(id) {
            Search::Found(pointer) => return Ok(Some(pointer)),
            Search::Nowhere => return Ok(None),
            Search::Before => false,
            Search::After => true,
        };
        if forward {
            low = index.saturating_add(1);
            guess = index.saturating_add(step);
        } else {
            high = index;
            guess = index.saturating_sub(step);
        }
        step = step.saturating_mul(2);
        if step > 16 {
            guess = low.midpoint(high);
        }
    }
    Ok(None)
}

/// Blocks in memory.
impl Blocks for Vec<u8> {
    fn count(&self) -> u64 {
        u64::try_from(self.len() / BLOCK_LEN).unwrap_or(0)
    }
    fn read(&self, index: u64, buf: &mut [u8]) -> Result<()> {
        let start = usize::try_from(index).ok().and_then(|index| index.checked_mul(BLOCK_LEN));
        let block = start.and_then(|start| self.get(start..start.checked_add(BLOCK_LEN)?));
        let block = block.ok_or_else(|| Error::corrupt("table", index, "it is shorter than it says"))?;
        buf.copy_from_slice(block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(count: u32, seed: &[u8]) -> Vec<Pointer> {
        let mut all: Vec<_> = (0..count)
            .map(|n| Pointer {
                id: Id::of_chunk(&[seed, &n.to_le_bytes()].concat()),
                place: Place { pack: 2, offset: u64::from(n) * 77, len: n + 1 },
            })
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for count in [0, 1, 84, 85, 86, 170, 5000] {
            let all = pointers(count, b"in");
            let blocks = build(&all);
            assert_eq!(blocks.len(), all.len().div_ceil(85) * 4096);
            for pointer in &all {
                assert_eq!(lookup(&blocks, &pointer.id).unwrap(), Some(*pointer));
            }
            for pointer in pointers(500, b"out") {
                assert_eq!(lookup(&blocks, &pointer.id).unwrap(), None);
            }
            assert_eq!(lookup(&blocks, &Id([0; 32])).unwrap(), None);
            assert_eq!(lookup(&blocks, &Id([255; 32])).unwrap(), None);
        }
    }

    #[test]
    fn skewed_ids_are_found_too() {
        let all: Vec<_> = (0..=255)
            .flat_map(|a| (0..=40).map(move |b| (a, b)))
            .map(|(a, b)| {
                let mut id = [0; 32];
                (id[0], id[1]) = (200 + a / 100, a);
                id[2] = b;
                Pointer { id: Id(id), place: Place { pack: 0, offset: 0, len: 1 } }
            })
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let blocks = build(&all);
        for pointer in &all {
            assert_eq!(lookup(&blocks, &pointer.id).unwrap(), Some(*pointer));
        }
    }

    #[test]
    fn a_flipped_byte_of_a_block_is_noticed() {
        let blocks = build(&pointers(90, b"in"));
        for at in 0..BLOCK_LEN {
            let mut block = blocks[4096..].to_vec();
            block[at] ^= 0x10;
            assert!(Block::parse(&block, 0).is_err(), "byte {at}");
        }
    }
}

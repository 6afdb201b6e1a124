//! Nodes: tables of up to 256 slots, each a kind of nothing, a pointer, or a chunk of several kinds.
//!
//! Source: docs/format.md section 6.1.

use crate::bytes::{array, le16, le32, u8_at};
use crate::disk::ExtentKind;
use crate::error::{Error, Result};
use crate::image::id::{Id, Place, Pointer};
use crate::image::layout::{CHUNK_LOG2_RANGE, MAX_LEVEL, NODE_SLOTS, context};

/// Bytes in the unit of a run's length.
pub const RUN_UNIT: u64 = 512;
/// Units in the largest chunk.
const MAX_CHUNK_UNITS: u64 = (1 << *CHUNK_LOG2_RANGE.end()) / RUN_UNIT;
/// Longest run in units: 30 bits.
const MAX_RUN: u32 = (1 << 30) - 1;

const TAG_POINTER: u8 = 3;
const TAG_MIXED: u8 = 4;
const TAG_MIXED_EMPTY: u8 = 5;

/// A run of one kind inside a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is.
    pub kind: ExtentKind,
    /// Its length in units of 512 bytes, at least 1.
    pub units: u32,
}

/// One slot of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The whole chunk or subtree is of this kind, which is not Data.
    Fill(ExtentKind),
    /// Level 0: a chunk, all Data. Above: a node.
    Pointer(Pointer),
    /// Level 0: a chunk of several kinds, with its bytes where any of them is Data.
    Mixed {
        /// At least two; neighbours differ.
        runs: Box<[Run]>,
        /// The stored bytes: present exactly where a run is Data.
        chunk: Option<Pointer>,
    },
}

/// A node as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 where the slots are chunks.
    pub level: u8,
    /// 1 to 256.
    pub slots: Vec<Slot>,
}

fn kind_number(kind: ExtentKind) -> u8 {
    match kind {
        ExtentKind::Absent => 0,
        ExtentKind::Zero => 1,
        ExtentKind::Bad => 2,
        ExtentKind::Data => 3,
    }
}

fn kind_from_number(number: u8) -> Option<ExtentKind> {
    [ExtentKind::Absent, ExtentKind::Zero, ExtentKind::Bad, ExtentKind::Data]
        .into_iter()
        .find(|kind| kind_number(*kind) == number)
}

impl Node {
    /// The stored form, with places.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(true)
    }

    /// The id: over the stored form without places, so that it proves content wherever that lies.
    pub fn id(&self) -> Id {
        Id::derived(context::NODE, &self.encode_with(false))
    }

    fn encode_with(&self, places: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.slots.len().saturating_mul(52).saturating_add(4));
        let slots = u16::try_from(self.slots.len()).expect("a node has at most 256 slots");
        out.extend_from_slice(&[self.level, 0]);
        out.extend_from_slice(&slots.to_le_bytes());
        let mut slots = self.slots.iter().peekable();
        while let Some(slot) = slots.next() {
            match slot {
                Slot::Fill(kind) => {
                    let mut count = 1_u16;
                    while slots.next_if(|next| *next == slot).is_some() {
                        count = count.saturating_add(1);
                    }
                    out.push(kind_number(*kind));
                    out.extend_from_slice(&count.to_le_bytes());
                }
                Slot::Pointer(pointer) => {
                    out.push(TAG_POINTER);
                    encode_pointer(pointer, places, &mut out);
                }
                Slot::Mixed { runs, chunk } => {
                    out.push(if chunk.is_some() { TAG_MIXED } else { TAG_MIXED_EMPTY });
                    let count = u16::try_from(runs.len()).expect("a chunk has at most 8192 sectors");
                    out.extend_from_slice(&count.to_le_bytes());
                    for run in runs {
                        let kind = u32::from(kind_number(run.kind)) << 30;
                        out.extend_from_slice(&(kind | run.units.min(MAX_RUN)).to_le_bytes());
                    }
                    if let Some(pointer) = chunk {
                        encode_pointer(pointer, places, &mut out);
                    }
                }
            }
        }
        out
    }

    /// The id of a stored node whose position in a tree is not known: it is parsed by its own header, without the checks
    /// that need the position.
    pub fn id_of_stored(bytes: &[u8]) -> Result<Id> {
        let corrupt = || Error::corrupt("node", 0, "it is cut short");
        let level = u8_at(bytes, 0).ok_or_else(corrupt)?;
        let slots = le16(bytes, 2).ok_or_else(corrupt)?;
        let shape = Shape { level, slots: slots.into(), chunk_size: 0, last_chunk_len: 0 };
        Ok(Parser { bytes, at: 0 }.node(&shape)?.id())
    }

    /// Parses the stored form and checks that it is canonical and of the given shape: `level`, and `slots` slots.
    /// `chunk_size` bounds the runs; `last_chunk_len` is the length of the disk's last chunk where the last slot is that.
    pub fn decode(bytes: &[u8], shape: &Shape) -> Result<Self> {
        Parser { bytes, at: 0 }.node(shape)
    }
}

/// What a node must look like at its position in the tree.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its level.
    pub level: u8,
    /// Number of its slots.
    pub slots: u64,
    /// Bytes of every chunk but the disk's last one.
    pub chunk_size: u64,
    /// Bytes of the chunk of the last slot; only of meaning at level 0.
    pub last_chunk_len: u64,
}

fn encode_pointer(pointer: &Pointer, places: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&pointer.id.0);
    if places {
        pointer.place.encode(out);
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn corrupt(&self, reason: &'static str) -> Error {
        Error::corrupt("node", u64::try_from(self.at).unwrap_or(u64::MAX), reason)
    }

    fn take<T>(&mut self, read: fn(&[u8], usize) -> Option<T>, len: usize) -> Result<T> {
        let value = read(self.bytes, self.at).ok_or_else(|| self.corrupt("it is cut short"))?;
        self.at = self.at.saturating_add(len);
        Ok(value)
    }

    fn node(&mut self, shape: &Shape) -> Result<Node> {
        let level = self.take(u8_at, 1)?;
        if level != shape.level || level > MAX_LEVEL {
            return Err(self.corrupt("its level is not that of its position"));
        }
        if self.take(u8_at, 1)? != 0 {
            return Err(self.corrupt("a reserved byte is not 0"));
        }
        if u64::from(self.take(le16, 2)?) != shape.slots || shape.slots > NODE_SLOTS {
            return Err(self.corrupt("its number of slots is not that of its position"));
        }
        let want = usize::try_from(shape.slots).unwrap_or(usize::MAX);
        let mut slots = Vec::with_capacity(want.min(256));
        let mut last_fill = None;
        while slots.len() < want {
            let tag = self.take(u8_at, 1)?;
            match tag {
                TAG_POINTER => slots.push(Slot::Pointer(self.pointer()?)),
                TAG_MIXED | TAG_MIXED_EMPTY if level == 0 => {
                    let last = slots.len().saturating_add(1) == want;
                    let chunk_len = if last { shape.last_chunk_len } else { shape.chunk_size };
                    slots.push(self.mixed(tag == TAG_MIXED, chunk_len)?);
                }
                _ => {
                    let kind = kind_from_number(tag).filter(|_| tag < TAG_POINTER);
                    let kind = kind.ok_or_else(|| self.corrupt("a tag is unknown"))?;
                    let count = usize::from(self.take(le16, 2)?);
                    if count == 0 || count > want.saturating_sub(slots.len()) {
                        return Err(self.corrupt("a fill covers no slot, or more than there are"));
                    }
                    if last_fill == Some((kind, slots.len())) {
                        return Err(self.corrupt("two fills of one kind follow each other"));
                    }
                    slots.resize(slots.len().saturating_add(count), Slot::Fill(kind));
                    last_fill = Some((kind, slots.len()));
                }
            }
        }
        if self.at != self.bytes.len() {
            return Err(self.corrupt("bytes follow its last slot"));
        }
        Ok(Node { level, slots })
    }

    fn pointer(&mut self) -> Result<Pointer> {
        let id = Id(self.take(array, 32)?);
        let place = self.take(Place::decode, Place::ENCODED_LEN)?;
        Ok(Pointer { id, place })
    }

    fn mixed(&mut self, stored: bool, chunk_len: u64) -> Result<Slot> {
        let count = usize::from(self.take(le16, 2)?);
        // 0: the position is not known, and the largest chunk is the bound.
        let most = if chunk_len == 0 { MAX_CHUNK_UNITS } else { chunk_len.div_ceil(RUN_UNIT) };
        if count < 2 || u64::try_from(count).unwrap_or(u64::MAX) > most {
            return Err(self.corrupt("a chunk's number of runs is out of range"));
        }
        let mut runs: Vec<Run> = Vec::with_capacity(count);
        let mut total = 0_u64;
        for _ in 0..count {
            let word = self.take(le32, 4)?;
            let kind = kind_from_number(u8::try_from(word >> 30).unwrap_or(0)).expect("two bits are one of four kinds");
            let units = word & MAX_RUN;
            if units == 0 || runs.last().is_some_and(|last| last.kind == kind) {
                return Err(self.corrupt("a run is empty or of the kind of the one before"));
            }
            total = total.saturating_add(u64::from(units));
            runs.push(Run { kind, units });
        }
        if total != most && chunk_len != 0 {
            return Err(self.corrupt("the runs do not add up to the chunk"));
        }
        if runs.iter().any(|run| run.kind == ExtentKind::Data) != stored {
            return Err(self.corrupt("bytes are stored for a chunk without data, or none for one with data"));
        }
        let chunk = if stored { Some(self.pointer()?) } else { None };
        Ok(Slot::Mixed { runs: runs.into_boxed_slice(), chunk })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(n: u8) -> Pointer {
        Pointer { id: Id([n; 32]), place: Place { pack: 1, offset: u64::from(n) * 1000, len: 500 } }
    }

    fn sample() -> (Node, Shape) {
        let runs = |kinds: &[(ExtentKind, u32)]| kinds.iter().map(|&(kind, units)| Run { kind, units }).collect();
        let slots = vec![
            Slot::Fill(ExtentKind::Absent),
            Slot::Fill(ExtentKind::Absent),
            Slot::Fill(ExtentKind::Zero),
            Slot::Pointer(pointer(7)),
            Slot::Mixed { runs: runs(&[(ExtentKind::Data, 5), (ExtentKind::Absent, 3)]), chunk: Some(pointer(8)) },
            Slot::Mixed { runs: runs(&[(ExtentKind::Bad, 1), (ExtentKind::Zero, 2)]), chunk: None },
        ];
        (Node { level: 0, slots }, Shape { level: 0, slots: 6, chunk_size: 4096, last_chunk_len: 1100 })
    }

    #[test]
    fn a_node_comes_back_as_it_was() {
        let (node, shape) = sample();
        assert_eq!(Node::decode(&node.encode(), &shape).unwrap(), node);
    }

    #[test]
    fn the_id_does_not_depend_on_places() {
        let (node, _) = sample();
        let mut moved = node.clone();
        moved.slots[3] = Slot::Pointer(Pointer { place: Place { pack: 9, offset: 1, len: 1 }, ..pointer(7) });
        assert_eq!(node.id(), moved.id());
        moved.slots[3] = Slot::Pointer(pointer(6));
        assert_ne!(node.id(), moved.id());
    }

    #[test]
    fn a_node_cut_anywhere_or_of_another_shape_is_refused() {
        let (node, shape) = sample();
        let bytes = node.encode();
        for len in 0..bytes.len() {
            assert!(Node::decode(&bytes[..len], &shape).is_err(), "cut at {len}");
        }
        assert!(Node::decode(&bytes, &Shape { slots: 7, ..shape }).is_err());
        assert!(Node::decode(&bytes, &Shape { last_chunk_len: 4096, ..shape }).is_err());
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Node::decode(&longer, &shape).is_err());
    }

    #[test]
    fn two_fills_of_one_kind_in_a_row_are_refused() {
        let bytes = [0, 0, 2, 0, 1, 1, 0, 1, 1, 0];
        let shape = Shape { level: 0, slots: 2, chunk_size: 4096, last_chunk_len: 4096 };
        assert!(Node::decode(&bytes, &shape).is_err());
        assert!(Node::decode(&[0, 0, 2, 0, 1, 2, 0], &shape).is_ok());
    }
}

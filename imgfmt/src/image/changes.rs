//! Where two generations differ: their trees are compared from the roots down, and what has one id is not looked into.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::image::generation::Generation;
use crate::image::id::Pointer;
use crate::image::node::Slot;
use crate::image::tree::span;
use crate::ranges::RangeSet;

/// Bytes of the disk in which two generations of one image may differ, in whole chunks and never less than the truth. The cost follows the
/// difference. Generations of different lengths differ everywhere.
pub fn changed_ranges(a: &Generation, b: &Generation) -> Result<RangeSet> {
    let shape = a.tree().shape();
    if shape.len() != b.tree().shape().len() || a.image().id() != b.image().id() {
        return Ok(RangeSet::from_range(0..shape.len().max(b.tree().shape().len())));
    }
    let mut changed = RangeSet::empty();
    compare(a, b, a.tree().root(), b.tree().root(), shape.root_level(), 0, &mut changed)?;
    Ok(changed)
}

/// Compares two nodes of one position. The depth is the level of the root, at most 7.
fn compare(
    a: &Generation,
    b: &Generation,
    in_a: Pointer,
    in_b: Pointer,
    level: u8,
    first: u64,
    changed: &mut RangeSet,
) -> Result<()> {
    if in_a.id == in_b.id {
        return Ok(());
    }
    let shape = a.tree().shape();
    let node_shape = shape.node(level, first);
    let (node_a, node_b) = (a.image().node(in_a, &node_shape)?, b.image().node(in_b, &node_shape)?);
    let slot_span = span(level).ok_or_else(|| Error::corrupt("node", first, "its level is out of range"))?;
    let mut at = first;
    for (slot_a, slot_b) in node_a.slots.iter().zip(&node_b.slots) {
        let next = at.saturating_add(slot_span);
        match (slot_a, slot_b) {
            (Slot::Pointer(in_a), Slot::Pointer(in_b)) if level > 0 => {
                compare(a, b, *in_a, *in_b, level.saturating_sub(1), at, changed)?;
            }
            _ if same(slot_a, slot_b) => {}
            _ => changed.push(bytes(shape.chunk_size(), at, next, shape.len())),
        }
        at = next;
    }
    Ok(())
}

/// Says whether two slots say the same of their chunk, wherever it is stored.
fn same(a: &Slot, b: &Slot) -> bool {
    let id = |chunk: &Option<Pointer>| chunk.map(|pointer| pointer.id);
    match (a, b) {
        (Slot::Fill(a), Slot::Fill(b)) => a == b,
        (Slot::Pointer(a), Slot::Pointer(b)) => a.id == b.id,
        (Slot::Mixed { runs: runs_a, chunk: a }, Slot::Mixed { runs: runs_b, chunk: b }) => {
            runs_a == runs_b && id(a) == id(b)
        }
        _ => false,
    }
}

fn bytes(chunk_size: u64, first: u64, end: u64, len: u64) -> Range<u64> {
    first.saturating_mul(chunk_size).min(len)..end.saturating_mul(chunk_size).min(len)
}

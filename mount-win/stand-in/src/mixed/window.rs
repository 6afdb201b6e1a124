//! What one thread knows of the disk: its own parts as it wrote them, and what nobody writes to.

use std::ops::Range;

use crate::random::Random;

/// A part of the disk that one thread alone writes to, as it is now.
#[derive(Debug)]
struct Window {
    start: usize,
    bytes: Vec<u8>,
}

impl Window {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes.len()
    }
}

/// The disk, as far as a thread knows it.
#[derive(Debug)]
pub(super) struct Windows<'a> {
    before: &'a [u8],
    own: Vec<Window>,
    foreign: Vec<Range<usize>>,
}

fn common(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

impl<'a> Windows<'a> {
    /// What the thread with this number knows; `shares` has the parts of all.
    pub(super) fn new(before: &'a [u8], shares: &[Vec<Range<usize>>], thread: usize) -> Self {
        let own = shares[thread].iter().map(|part| Window { start: part.start, bytes: before[part.clone()].to_vec() });
        let foreign = shares.iter().enumerate().filter(|(number, _)| *number != thread);
        Self { before, own: own.collect(), foreign: foreign.flat_map(|(_, parts)| parts.clone()).collect() }
    }

    /// A part of a window that lies in `within`.
    pub(super) fn some(&self, random: &mut Random, within: &Range<usize>) -> Option<Range<usize>> {
        let parts: Vec<_> = self.own.iter().filter_map(|window| common(&window.range(), within)).collect();
        let part = parts.get(random.below(parts.len() as u64) as usize)?;
        let start = part.start + random.below(part.len() as u64) as usize;
        let most = [64, 5_000, 150_000][random.below(3) as usize];
        Some(start..part.end.min(start + 1 + random.below(most) as usize))
    }

    /// The bytes of a range; `None` where others write to it.
    pub(super) fn read(&self, range: Range<usize>) -> Option<Vec<u8>> {
        if self.foreign.iter().any(|foreign| common(foreign, &range).is_some()) {
            return None;
        }
        let mut bytes = self.before[range.clone()].to_vec();
        for window in &self.own {
            if let Some(both) = common(&window.range(), &range) {
                let from = &window.bytes[both.start - window.start..both.end - window.start];
                bytes[both.start - range.start..both.end - range.start].copy_from_slice(from);
            }
        }
        Some(bytes)
    }

    /// Whether a range may be written to.
    pub(super) fn owns(&self, range: &Range<usize>) -> bool {
        range.is_empty() || self.own.iter().any(|window| common(&window.range(), range).as_ref() == Some(range))
    }

    /// Writes to a range that is owned.
    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        let window = self.own.iter_mut().find(|window| window.start <= start && end <= window.range().end);
        let window = window.unwrap();
        window.bytes[start - window.start..end - window.start].copy_from_slice(bytes);
    }

    /// What is in the windows now, and where they begin.
    pub(super) fn changes(&self) -> Vec<(usize, Vec<u8>)> {
        self.own.iter().map(|window| (window.start, window.bytes.clone())).collect()
    }
}

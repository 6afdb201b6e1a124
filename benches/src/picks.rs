//! Where random reads go: chunks that must be decoded, each of them once, in an order of no pattern.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use imgfmt::image::generation::Found;
use imgfmt::image::node::Slot;
use imgfmt::image::{FolderStore, Image, OpenOptions};

use crate::chunks::{CHUNK, read_index};

/// Bytes of a random read.
pub const READ: u32 = 4 << 10;

/// Reads of [`READ`] bytes, one in each of at most `most` chunks that the limit's `stored` file has compressed. No two chunks have the same content, so none
/// is answered from what was decoded for another.
pub fn whole_chunks(stored: &Path, most: usize) -> Vec<(u64, u32)> {
    let mut seen = HashSet::new();
    let entries = read_index(stored).into_iter().filter(|entry| entry.len < CHUNK && seen.insert(entry.hash));
    shuffled(entries.map(|entry| entry.chunk).collect(), most)
}

/// The same in chunks that are differences in both: in generation `number` of the hikae image, and in the limit's `later` file, which was stored with `first`
/// known.
pub fn differences(image: &Path, number: u32, first: &Path, later: &Path, most: usize) -> Vec<(u64, u32)> {
    let before: HashSet<u64> = read_index(first).into_iter().map(|entry| entry.chunk).collect();
    let store = FolderStore::new(image, &[]).unwrap();
    let image = Arc::new(Image::open(Arc::new(store), &OpenOptions::default()).unwrap());
    let generation = image.generation(number).unwrap();
    let mut buf = Vec::new();
    let mut is_difference = |chunk: u64| {
        let Found::Leaf(node, at) = generation.tree().find(&image, chunk).unwrap() else { return false };
        let pointer = match &node.slots[at] {
            Slot::Pointer(pointer) | Slot::Mixed { chunk: Some(pointer), .. } => *pointer,
            _ => return false,
        };
        let place = image.resolve(pointer.place).unwrap();
        image.pack(place.pack).unwrap().read_frame(place, &mut buf).unwrap().0.base.is_some()
    };
    let mut seen = HashSet::new();
    let entries =
        read_index(later).into_iter().filter(|entry| before.contains(&entry.chunk) && seen.insert(entry.hash));
    shuffled(entries.map(|entry| entry.chunk).filter(|chunk| is_difference(*chunk)).collect(), most)
}

/// The same order in each run, without a pattern that a server could guess.
fn shuffled(mut chunks: Vec<u64>, most: usize) -> Vec<(u64, u32)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for at in (1..chunks.len()).rev() {
        let other = random() % u64::try_from(at + 1).unwrap();
        chunks.swap(at, usize::try_from(other).unwrap());
    }
    chunks.truncate(most);
    let size = u64::try_from(CHUNK).unwrap();
    let pages = size / u64::from(READ);
    chunks.into_iter().map(|chunk| (chunk * size + (random() % pages) * u64::from(READ), READ)).collect()
}

//! Decoded chunks that are kept.
//!
//! Memory that the kernel has to provide costs a quarter of what is decoded into it, and most chunks of which a part is read are never read again.
//! So what is decoded for the first time lies in one of a few buffers that are used in turn; what is decoded for the second time, because it was read again
//! after it had lost its buffer, is kept for as long as there is room. A long sequence of small reads thereby throws out nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::Result;
use crate::image::id::Id;

/// Most bytes of the buffers for what is decoded for the first time: they should stay in the processor's own cache.
const RECENT_BYTES: u64 = 2 << 20;

#[derive(Clone)]
struct ByLen;

impl Weighter<Id, Arc<Vec<u8>>> for ByLen {
    fn weight(&self, _: &Id, chunk: &Arc<Vec<u8>>) -> u64 {
        u64::try_from(chunk.len()).unwrap_or(u64::MAX).saturating_add(128)
    }
}

/// A chunk: one thread decodes it, and others wait for it. `None` where that failed.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// Decoded chunks by id, asked by many threads at once.
pub(super) struct ChunkCache {
    /// What was decoded twice. As vectors, since a chunk is decoded into the place where it stays.
    kept: Cache<Id, Arc<Vec<u8>>, ByLen>,
    recent: Mutex<Recent>,
}

struct Recent {
    /// What was decoded for the first time, the latest at the end.
    slots: VecDeque<(Id, Slot)>,
    /// Most slots.
    most: usize,
    /// The beginnings of ids of chunks that were decoded once, the latest of each row first: an id has one row, and leaves it when four others came.
    seen: Vec<[u64; 4]>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panics")
}

fn beginning(id: &Id) -> u64 {
    let (first, _) = id.0.split_first_chunk().expect("an id has 32 bytes");
    u64::from_le_bytes(*first)
}

impl Recent {
    fn find(&self, id: &Id) -> Option<Slot> {
        self.slots.iter().rev().find(|(found, _)| found == id).map(|(_, slot)| Arc::clone(slot))
    }

    /// Says whether the chunk was decoded before, as far as that is remembered, and remembers it.
    fn was_seen(&mut self, id: &Id) -> bool {
        let id = beginning(id);
        let rows = u64::try_from(self.seen.len()).unwrap_or(1);
        let row = usize::try_from(id.checked_rem(rows).unwrap_or(0)).unwrap_or(0);
        let Some(row) = self.seen.get_mut(row) else { return false };
        let was_seen = row.contains(&id);
        if !was_seen {
            row.rotate_right(1);
            row[0] = id;
        }
        was_seen
    }

    /// A buffer for one more chunk: that of the oldest one, where nobody reads it.
    fn buffer(&mut self) -> Vec<u8> {
        if self.slots.len() < self.most {
            return Vec::new();
        }
        let oldest = self.slots.pop_front().and_then(|(_, slot)| Arc::into_inner(slot));
        let chunk = oldest.and_then(|slot| slot.into_inner().ok().flatten());
        chunk.and_then(Arc::into_inner).unwrap_or_default()
    }
}

impl ChunkCache {
    /// Keeps at most `bytes` (and a little for small caches to work at all) of chunks that are about `chunk_size` bytes long.
    pub(super) fn new(bytes: u64, chunk_size: u64) -> Self {
        let recent = RECENT_BYTES.min(bytes / 4);
        let bytes = bytes.saturating_sub(recent);
        let chunks = |bytes: u64| usize::try_from(bytes.checked_div(chunk_size).unwrap_or(0)).unwrap_or(usize::MAX);
        let capacity = chunks(bytes).clamp(64, 1 << 20);
        let recent = Recent { slots: VecDeque::new(), most: chunks(recent).max(1), seen: vec![[0; 4]; capacity] };
        Self { kept: Cache::with_weighter(capacity, bytes, ByLen), recent: Mutex::new(recent) }
    }

    /// The chunk where it is there and whole.
    pub(super) fn get(&self, id: &Id) -> Option<Arc<Vec<u8>>> {
        self.kept.get(id).or_else(|| {
            let slot = lock(&self.recent).find(id)?;
            slot.try_lock().ok()?.clone()
        })
    }

    /// The chunk, which `decode` makes (`len` bytes) where it is not there: once, however many threads ask.
    pub(super) fn get_or_decode(
        &self,
        id: &Id,
        len: usize,
        decode: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<Arc<Vec<u8>>> {
        if let Some(chunk) = self.kept.get(id) {
            return Ok(chunk);
        }
        let mut recent = lock(&self.recent);
        if let Some(slot) = recent.find(id) {
            drop(recent);
            // Poisoned by a bug in what decodes it: whoever asks meets that bug below.
            if let Some(chunk) = slot.lock().ok().and_then(|chunk| chunk.clone()) {
                return Ok(chunk);
            }
        } else if !recent.was_seen(id) {
            let mut bytes = recent.buffer();
            let slot = Slot::default();
            let mut place = lock(&slot);
            recent.slots.push_back((*id, Arc::clone(&slot)));
            drop(recent);
            bytes.resize(len, 0);
            decode(&mut bytes)?;
            let chunk = Arc::new(bytes);
            *place = Some(Arc::clone(&chunk));
            return Ok(chunk);
        }
        self.kept.get_or_insert_with(id, || {
            let mut bytes = vec![0; len];
            decode(&mut bytes)?;
            Ok(Arc::new(bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    const LEN: usize = 64 << 10;

    fn id(number: usize) -> Id {
        Id::of_chunk(&number.to_le_bytes())
    }

    /// Asks for chunk `number`, whose bytes are all the same, and counts whether it had to be decoded.
    fn ask(cache: &ChunkCache, number: usize, decoded: &AtomicUsize) {
        let value = u8::try_from(number % 251).unwrap();
        let chunk = cache
            .get_or_decode(&id(number), LEN, |bytes| {
                decoded.fetch_add(1, Ordering::Relaxed);
                bytes.fill(value);
                Ok(())
            })
            .unwrap();
        assert!(chunk.len() == LEN && chunk.iter().all(|byte| *byte == value), "chunk {number}");
    }

    #[test]
    fn what_comes_back_after_it_was_gone_is_kept_and_a_long_scan_does_not_throw_it_out() {
        let (cache, decoded) = (ChunkCache::new(16 << 20, 64 << 10), AtomicUsize::new(0));
        let count = |numbers: std::ops::Range<usize>| {
            numbers.for_each(|number| ask(&cache, number, &decoded));
            decoded.swap(0, Ordering::Relaxed)
        };
        assert_eq!(count(0..100), 100);
        assert_eq!(count(99..100), 0, "the latest are there");
        assert_eq!(count(0..50), 50, "these had lost their buffers");
        assert_eq!(count(0..50), 0);
        assert_eq!(count(1000..3000), 2000);
        assert_eq!(count(0..50), 0, "each of those chunks was read only once");
    }

    #[test]
    fn many_threads_have_each_chunk_decoded_once() {
        let (cache, decoded) = (ChunkCache::new(16 << 20, 64 << 10), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|number| ask(&cache, number, &decoded)));
            }
        });
        assert_eq!(decoded.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn a_failure_is_not_kept() {
        let (cache, decoded) = (ChunkCache::new(1 << 20, 64 << 10), AtomicUsize::new(0));
        for _ in 0..3 {
            assert!(cache.get_or_decode(&id(1), LEN, |_| Err(Error::corrupt("model", 0, "asked to"))).is_err());
            assert!(cache.get(&id(1)).is_none());
        }
        ask(&cache, 1, &decoded);
        assert_eq!(cache.get(&id(1)).unwrap().len(), LEN);
    }

    #[test]
    fn buffers_are_used_again_unless_somebody_reads_them() {
        let cache = ChunkCache::new(8 << 20, 64 << 10);
        let fill = |number: usize| {
            let value = u8::try_from(number % 251).unwrap();
            cache.get_or_decode(&id(number), LEN, |bytes| {
                bytes.fill(value);
                Ok(())
            })
        };
        let held = fill(0).unwrap();
        for number in 1..100 {
            fill(number).unwrap();
        }
        assert!(held.iter().all(|byte| *byte == 0));
        assert_eq!(lock(&cache.recent).slots.len(), 32);
    }
}

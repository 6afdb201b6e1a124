//! Reads ahead: what a program reads in sequence is decoded before it asks, on cores that are idle.
//!
//! The kernel asks for a sequence in small pieces (128 KiB, unless the administrator allows more), one or two at a time, which would leave all
//! but one core idle and the reader waiting for each. So a file that is read in sequence is cut into blocks; the blocks in front of the
//! reader are read by workers and kept, within a limit of bytes that all files share, until the reader has passed them. A read that
//! lies in a block is answered from it; every other read goes straight to the file. No lock is held while anything is read or decoded.
//!
//! A block that fails says nothing about its bytes: the reads in it then go straight to the file, so that only the damaged ones fail.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use imgfmt::Result;
use imgfmt::filesystem::files::{Content, NodeId};

/// Bytes of a block.
const BLOCK: u64 = 1 << 20;
/// Blocks that are read ahead for one reader, where there are few.
const MAX_WINDOW: u64 = 8;
/// Bytes by which reads of one sequence can overtake each other: the kernel sends several at once.
const SLACK: u64 = 1 << 20;
/// Reads that make a sequence.
const READS_OF_SEQUENCE: u32 = 3;

/// An open file, read by any number of threads.
pub(crate) struct OpenFile {
    node: NodeId,
    content: Box<dyn Content>,
    position: Mutex<Position>,
    /// Files that are read in sequence now; this one counts while its position says so.
    active: Arc<AtomicUsize>,
}

/// Where a reader is.
#[derive(Debug, Default)]
struct Position {
    /// Byte behind the furthest read of the sequence.
    next: u64,
    /// Reads that the sequence has had so far.
    reads: u32,
    /// Blocks below this one were asked for already.
    asked: u64,
    /// The sequence is long enough to be counted as one.
    is_sequence: bool,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("node", &self.node).finish_non_exhaustive()
    }
}

impl OpenFile {
    pub(crate) fn content(&self) -> &dyn Content {
        &*self.content
    }

    fn block_range(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(BLOCK);
        start.min(self.content.len())..start.saturating_add(BLOCK).min(self.content.len())
    }

    /// Takes note of a read. Returns the blocks that should be read ahead now.
    fn note(&self, range: &Range<u64>, most: u64) -> Range<u64> {
        let mut position = self.position.lock().expect("no holder of the lock panics");
        let near = position.next.saturating_sub(SLACK)..=position.next.saturating_add(SLACK);
        if !near.contains(&range.start) {
            if position.is_sequence {
                self.active.fetch_sub(1, Ordering::Relaxed);
            }
            *position = Position { next: range.end, reads: 1, ..Position::default() };
            return 0..0;
        }
        position.next = position.next.max(range.end);
        position.reads = position.reads.saturating_add(1);
        if position.reads < READS_OF_SEQUENCE {
            return 0..0;
        }
        if !position.is_sequence {
            position.is_sequence = true;
            self.active.fetch_add(1, Ordering::Relaxed);
        }
        // The limit is shared by all that read in sequence; half of it is for what was read and not yet taken.
        let readers = u64::try_from(self.active.load(Ordering::Relaxed)).unwrap_or(u64::MAX).max(1);
        let share = most.checked_div(readers.saturating_mul(2)).unwrap_or(0);
        let window = MAX_WINDOW.min(share).min(u64::from(position.reads));
        let blocks = self.content.len().div_ceil(BLOCK);
        let start = position.asked.max(position.next.div_ceil(BLOCK));
        let end = (position.next / BLOCK).saturating_add(window).saturating_add(1).min(blocks);
        if window == 0 || start >= end {
            return 0..0;
        }
        position.asked = end;
        start..end
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.position.get_mut().is_ok_and(|position| position.is_sequence) {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Bytes for an answer.
pub(crate) enum Bytes {
    /// A part of a block.
    Block(Arc<Buffer>, Range<usize>),
    /// Read for this answer.
    Own(Buffer),
}

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Block(block, range) => block.bytes.get(range.clone()).unwrap_or_default(),
            Self::Own(buffer) => &buffer.bytes,
        }
    }
}

/// A buffer that goes back to the pool it came from: fresh memory costs more than what is read into it.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().expect("no holder of the lock panics");
        if free.len() < self.pool.most {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

fn buffer(pool: &Arc<Pool>, len: usize) -> Buffer {
    let pooled = pool.free.lock().expect("no holder of the lock panics").pop();
    let mut bytes = pooled.unwrap_or_default();
    // What it held is overwritten or dropped with the error, so only what it lacks is filled.
    bytes.resize(len, 0);
    Buffer { bytes, pool: Arc::clone(pool) }
}

/// A block of a file.
type Key = (NodeId, u64);

enum Block {
    Queued,
    Running,
    Ready(Arc<Buffer>),
    Failed,
}

#[derive(Default)]
struct State {
    blocks: HashMap<Key, Block>,
    /// In the order in which blocks were asked for; may name blocks that are gone.
    order: VecDeque<Key>,
    queue: VecDeque<(Key, Arc<OpenFile>)>,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something was queued.
    work: Condvar,
    /// A block was finished.
    done: Condvar,
    most: usize,
    pool: Arc<Pool>,
}

/// Reads ahead for all open files of a mount.
pub(crate) struct Readahead {
    shared: Arc<Shared>,
    active: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Readahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readahead").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Readahead {
    /// Starts `workers` threads that keep at most `limit` bytes of blocks (at least two blocks).
    pub(crate) fn start(workers: usize, limit: u64) -> std::io::Result<Self> {
        let most = usize::try_from(limit / BLOCK).unwrap_or(usize::MAX).max(2);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            most,
            pool: Arc::new(Pool { free: Mutex::default(), most: workers.saturating_add(4) }),
        });
        let mut readahead = Self { shared, active: Arc::default(), workers: Vec::new() };
        for number in 0..workers {
            let shared = Arc::clone(&readahead.shared);
            let thread = std::thread::Builder::new().name(format!("readahead-{number}"));
            readahead.workers.push(thread.spawn(move || shared.work())?);
        }
        Ok(readahead)
    }

    /// An open file that is read through this.
    pub(crate) fn file(&self, node: NodeId, content: Box<dyn Content>) -> Arc<OpenFile> {
        Arc::new(OpenFile { node, content, position: Mutex::default(), active: Arc::clone(&self.active) })
    }

    /// Reads `range`, which must lie inside the file.
    pub(crate) fn read(&self, file: &Arc<OpenFile>, range: Range<u64>) -> Result<Bytes> {
        let ahead = file.note(&range, u64::try_from(self.shared.most).unwrap_or(u64::MAX));
        if !ahead.is_empty() {
            self.shared.queue(file, ahead);
        }
        let block = range.start / BLOCK;
        let in_block = file.block_range(block);
        if range.end <= in_block.end {
            let within = |at: u64| usize::try_from(at.saturating_sub(in_block.start)).unwrap_or(usize::MAX);
            if let Some(buffer) = self.shared.take(file, block) {
                if range.end == in_block.end {
                    self.shared.passed(file, block);
                }
                return Ok(Bytes::Block(buffer, within(range.start)..within(range.end)));
            }
        }
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut own = buffer(&self.shared.pool, len);
        let mut at = range.start;
        let mut rest = own.bytes.as_mut_slice();
        while !rest.is_empty() {
            let block = at / BLOCK;
            let in_block = file.block_range(block);
            let part = usize::try_from(in_block.end.saturating_sub(at)).unwrap_or(usize::MAX).clamp(1, rest.len());
            let (now, later) = rest.split_at_mut(part);
            match self.shared.take(file, block) {
                Some(buffer) => {
                    let from = usize::try_from(at.saturating_sub(in_block.start)).unwrap_or(usize::MAX);
                    let kept = buffer.bytes.get(from..from.saturating_add(part)).unwrap_or_default();
                    now.copy_from_slice(kept);
                }
                None => file.content.read_at(now, at)?,
            }
            at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
            rest = later;
        }
        Ok(Bytes::Own(own))
    }
}

impl Drop for Readahead {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so itself.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Asks for blocks to be read. What finds no room is not asked for.
    fn queue(&self, file: &Arc<OpenFile>, blocks: Range<u64>) {
        let mut state = self.lock();
        for block in blocks {
            let key = (file.node, block);
            if state.blocks.contains_key(&key) {
                continue;
            }
            if state.blocks.len() >= self.most && !state.evict() {
                break;
            }
            state.blocks.insert(key, Block::Queued);
            state.order.push_back(key);
            if state.order.len() > self.most.saturating_mul(4) {
                state.tidy();
            }
            state.queue.push_back((key, Arc::clone(file)));
        }
        drop(state);
        self.work.notify_all();
    }

    /// The block where it was asked for: waits for one that is being read, and reads one that no worker has come to yet.
    fn take(&self, file: &Arc<OpenFile>, block: u64) -> Option<Arc<Buffer>> {
        let key = (file.node, block);
        let mut state = self.lock();
        loop {
            match state.blocks.get_mut(&key)? {
                Block::Ready(buffer) => return Some(Arc::clone(buffer)),
                Block::Failed => return None,
                Block::Running => state = self.done.wait(state).expect("no holder of the lock panics"),
                found @ Block::Queued => {
                    *found = Block::Running;
                    drop(state);
                    self.run(file, block);
                    state = self.lock();
                }
            }
        }
    }

    /// Reads a block that was marked as running.
    fn run(&self, file: &Arc<OpenFile>, block: u64) {
        // A reader that panics must not leave others waiting for the block.
        let mut finish = Finish { shared: self, key: (file.node, block), block: Block::Failed };
        let range = file.block_range(block);
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut buffer = buffer(&self.pool, len);
        if file.content.read_at(&mut buffer.bytes, range.start).is_ok() {
            finish.block = Block::Ready(Arc::new(buffer));
        }
    }

    /// The reader is behind the block: the kernel has it, and those before it.
    fn passed(&self, file: &Arc<OpenFile>, block: u64) {
        let mut state = self.lock();
        // Not this one yet: an earlier part of it can still be on its way.
        for old in block.saturating_sub(2)..block {
            if let Some(Block::Ready(_) | Block::Failed) = state.blocks.get(&(file.node, old)) {
                state.blocks.remove(&(file.node, old));
            }
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            match state.queue.pop_front() {
                None => state = self.work.wait(state).expect("no holder of the lock panics"),
                Some((key, file)) => {
                    // The reader may have come first.
                    if let Some(found @ Block::Queued) = state.blocks.get_mut(&key) {
                        *found = Block::Running;
                        drop(state);
                        // A bug in a parser costs the block; whoever reads there meets it and reports it.
                        let _ = catch_unwind(AssertUnwindSafe(|| self.run(&file, key.1)));
                        drop(file);
                        state = self.lock();
                    }
                }
            }
        }
    }
}

impl State {
    /// Forgets the order of blocks that are gone.
    fn tidy(&mut self) {
        let Self { blocks, order, .. } = self;
        let mut seen = HashSet::new();
        order.retain(|key| blocks.contains_key(key) && seen.insert(*key));
    }

    /// Drops the oldest block that nobody is reading. Says whether there was one.
    fn evict(&mut self) -> bool {
        for _ in 0..self.order.len() {
            let Some(key) = self.order.pop_front() else { return false };
            match self.blocks.get(&key) {
                None => {}
                Some(Block::Ready(_) | Block::Failed) => {
                    self.blocks.remove(&key);
                    return true;
                }
                Some(Block::Queued | Block::Running) => self.order.push_back(key),
            }
        }
        false
    }
}

/// Puts the result of a block in its place, whatever happened.
struct Finish<'a> {
    shared: &'a Shared,
    key: Key,
    block: Block,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let block = std::mem::replace(&mut self.block, Block::Failed);
        // A lock that is poisoned has nobody left to wait for the block.
        if let Ok(mut state) = self.shared.state.lock()
            && let Some(place) = state.blocks.get_mut(&self.key)
        {
            *place = block;
        }
        self.shared.done.notify_all();
    }
}

#[cfg(test)]
mod tests;

//! Reads ahead: what a program reads in sequence is decoded before it asks, on cores that are idle.
//!
//! Whoever reads a sequence through a front asks for it in small pieces (the kernel 128 KiB, unless the administrator allows more), one or two at a time, which would leave all
//! but one core idle and the reader waiting for each. So what is read in sequence is cut into blocks; the blocks in front of the
//! reader are read by workers and kept, within a limit of bytes that all files share, until the reader has passed them. A read that
//! lies in a block is answered from it; every other read goes straight to the file. No lock is held while anything is read or decoded.
//!
//! A block that fails says nothing about its bytes: the reads in it then go straight to the file, so that only the damaged ones fail. Nothing that is read
//! ahead may change: an overlay lies over what is read ahead, never under it.

mod disk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Result;
use crate::filesystem::files::Content;

pub use disk::ReadaheadDisk;

/// Bytes of a block.
const BLOCK: u64 = 1 << 20;
/// Blocks that are read ahead for one reader, where there are few.
const MAX_WINDOW: u64 = 8;
/// Bytes by which reads of one sequence can overtake each other: the kernel sends several at once.
const SLACK: u64 = 1 << 20;
/// Reads that make a sequence.
const READS_OF_SEQUENCE: u32 = 3;
/// How many of the last bytes of a sequence say whether it is one still.
const LOOK_BACK: u64 = 4 * MAX_WINDOW * BLOCK;
/// Sequences of one file that are followed at once.
const MAX_SEQUENCES: usize = 8;
/// How long a reader waits for a block that a worker reads. One that takes longer has lost its core to another program, and the reader has one.
const PATIENCE: Duration = Duration::from_millis(2);

/// A file that is read, by any number of threads, and how far they are. Its content never changes.
pub struct OpenFile {
    /// Files of one number have the same bytes and share their blocks.
    number: u64,
    /// The latest first.
    positions: Mutex<VecDeque<Position>>,
    /// Sequences that are read now; those of this file count while their positions say so.
    active: Arc<AtomicUsize>,
    content: Box<dyn Content>,
}

/// Where a reader is.
#[derive(Debug, Default)]
struct Position {
    /// Byte behind the furthest read of the sequence.
    next: u64,
    /// Reads that the sequence has had so far.
    reads: u32,
    /// Bytes that the sequence has advanced, the last of them.
    advanced: u64,
    /// Bytes of those that were read.
    read: u64,
    /// Blocks below this one were asked for already.
    asked: u64,
    /// The sequence is counted as one.
    is_sequence: bool,
}

impl Position {
    fn new(range: &Range<u64>) -> Self {
        let mut position = Self { next: range.start, ..Self::default() };
        position.advance(range);
        position
    }

    fn advance(&mut self, range: &Range<u64>) {
        self.reads = self.reads.saturating_add(1);
        self.advanced = self.advanced.saturating_add(range.end.saturating_sub(self.next));
        // A read behind the furthest one fills a gap, or it reads something again, which is none of this.
        self.read = self.read.saturating_add(range.end.saturating_sub(range.start)).min(self.advanced);
        self.next = self.next.max(range.end);
        if self.advanced > LOOK_BACK {
            self.advanced /= 2;
            self.read /= 2;
        }
    }

    /// Small reads here and there in a small place are none, however near each other they lie.
    fn looks_like_a_sequence(&self) -> bool {
        self.reads >= READS_OF_SEQUENCE && self.read >= (self.advanced / 3).saturating_mul(2)
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("number", &self.number).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// The content.
    pub fn content(&self) -> &dyn Content {
        &*self.content
    }

    fn block_range(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(BLOCK);
        start.min(self.content.len())..start.saturating_add(BLOCK).min(self.content.len())
    }

    /// Takes note of a read. Returns the blocks that should be read ahead now.
    fn note(&self, range: &Range<u64>, most: u64) -> Range<u64> {
        let mut positions = self.positions.lock().expect("no holder of the lock panics");
        let near = |position: &Position| {
            (position.next.saturating_sub(SLACK)..=position.next.saturating_add(SLACK)).contains(&range.start)
        };
        let found = positions.iter().position(near).and_then(|at| positions.remove(at));
        let Some(mut position) = found else {
            if positions.len() >= MAX_SEQUENCES && positions.pop_back().is_some_and(|last| last.is_sequence) {
                self.active.fetch_sub(1, Ordering::Relaxed);
            }
            positions.push_front(Position::new(range));
            return 0..0;
        };
        let blocks = self.follow(&mut position, range, most);
        positions.push_front(position);
        blocks
    }

    /// Moves a position behind a read of its sequence. Returns the blocks that should be read ahead now.
    fn follow(&self, position: &mut Position, range: &Range<u64>, most: u64) -> Range<u64> {
        position.advance(range);
        let is_sequence = position.looks_like_a_sequence();
        match (std::mem::replace(&mut position.is_sequence, is_sequence), is_sequence) {
            (false, true) => _ = self.active.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.active.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        if !is_sequence {
            return 0..0;
        }
        // The limit is shared by all that read in sequence; half of it is for what was read and not yet taken.
        let readers = u64::try_from(self.active.load(Ordering::Relaxed)).unwrap_or(u64::MAX).max(1);
        let share = most.checked_div(readers.saturating_mul(2)).unwrap_or(0);
        // A sequence that ends now leaves at most a quarter as much unread as was read of it.
        let ahead = MAX_WINDOW.min(share).saturating_mul(BLOCK).min(position.read / 4);
        let start = position.asked.max(position.next.div_ceil(BLOCK));
        let (reach, len) = (position.next.saturating_add(ahead), self.content.len());
        let end = if reach < len { reach / BLOCK } else { len.div_ceil(BLOCK) };
        if start >= end {
            return 0..0;
        }
        position.asked = end;
        start..end
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let sequences = self.positions.get_mut().map_or(0, |all| all.iter().filter(|each| each.is_sequence).count());
        self.active.fetch_sub(sequences, Ordering::Relaxed);
    }
}

/// Bytes for an answer.
pub enum Bytes {
    /// A part of a block.
    Block(Arc<Buffer>, Range<usize>),
    /// Read for this answer.
    Own(Buffer),
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("len", &self.as_slice().len()).finish()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Block(block, range) => block.bytes.get(range.clone()).unwrap_or_default(),
            Self::Own(buffer) => &buffer.bytes,
        }
    }
}

/// A buffer that goes back to the pool it came from: fresh memory costs more than what is read into it.
pub struct Buffer {
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
type Key = (u64, u64);

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

/// Reads ahead for all files and disks that a front shows.
pub struct Readahead {
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
    pub fn start(workers: usize, limit: u64) -> std::io::Result<Self> {
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

    /// A file that is read through this. Those of one number must have the same bytes.
    pub fn file(&self, number: u64, content: Box<dyn Content>) -> Arc<OpenFile> {
        Arc::new(OpenFile { number, content, positions: Mutex::default(), active: Arc::clone(&self.active) })
    }

    /// Reads `range`, which must lie inside the file.
    pub fn read(&self, file: &Arc<OpenFile>, range: Range<u64>) -> Result<Bytes> {
        self.note(file, &range);
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
        self.copy(file, &mut own.bytes, range.start)?;
        Ok(Bytes::Own(own))
    }

    /// Fills `buf` from `offset`; the range must lie inside the file. `readers` are the reads of the file that are under way: where every core has one
    /// already there is nothing to gain, and no block is asked for.
    fn fill(&self, file: &Arc<OpenFile>, buf: &mut [u8], offset: u64, readers: usize) -> Result<()> {
        if readers > self.workers.len().div_ceil(2) {
            return match self.shared.ready(file, buf.len(), offset) {
                Some((block, from)) => {
                    let kept = block.bytes.get(from..from.saturating_add(buf.len())).unwrap_or_default();
                    buf.copy_from_slice(kept);
                    Ok(())
                }
                None => file.content.read_at(buf, offset),
            };
        }
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        self.note(file, &(offset..offset.saturating_add(len)));
        self.copy(file, buf, offset)
    }

    fn note(&self, file: &Arc<OpenFile>, range: &Range<u64>) {
        let ahead = file.note(range, u64::try_from(self.shared.most).unwrap_or(u64::MAX));
        if !ahead.is_empty() {
            self.shared.queue(file, ahead);
        }
    }

    /// Fills `buf` from `offset`, block by block.
    fn copy(&self, file: &Arc<OpenFile>, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
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
            if at == in_block.end {
                self.shared.passed(file, block);
            }
            rest = later;
        }
        Ok(())
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
            let key = (file.number, block);
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
        let queued = state.queue.len();
        drop(state);
        (0..queued).for_each(|_| self.work.notify_one());
    }

    /// The block where it was asked for: waits for one that is being read, though not for long, and reads one that no worker has come to yet.
    fn take(&self, file: &Arc<OpenFile>, block: u64) -> Option<Arc<Buffer>> {
        let key = (file.number, block);
        let mut state = self.lock();
        let mut has_waited = false;
        loop {
            match state.blocks.get_mut(&key)? {
                Block::Ready(buffer) => return Some(Arc::clone(buffer)),
                Block::Failed => return None,
                Block::Running if has_waited => return None,
                Block::Running => {
                    let still_running = |state: &mut State| matches!(state.blocks.get(&key), Some(Block::Running));
                    let waited = self.done.wait_timeout_while(state, PATIENCE, still_running);
                    (state, has_waited) = (waited.expect("no holder of the lock panics").0, true);
                }
                found @ Block::Queued => {
                    *found = Block::Running;
                    drop(state);
                    self.run(file, block);
                    state = self.lock();
                }
            }
        }
    }

    /// The block that holds `len` bytes from `offset` where it is there and whole, and where in it they begin.
    fn ready(&self, file: &Arc<OpenFile>, len: usize, offset: u64) -> Option<(Arc<Buffer>, usize)> {
        let block = offset / BLOCK;
        let from = usize::try_from(offset.saturating_sub(block.saturating_mul(BLOCK))).ok()?;
        match self.lock().blocks.get(&(file.number, block)) {
            Some(Block::Ready(buffer)) if from.checked_add(len)? <= buffer.bytes.len() => {
                Some((Arc::clone(buffer), from))
            }
            _ => None,
        }
    }

    /// Reads a block that was marked as running.
    fn run(&self, file: &Arc<OpenFile>, block: u64) {
        // Whatever happens must not leave others waiting for the block.
        let mut finish = Finish { shared: self, key: (file.number, block), block: Block::Failed };
        let range = file.block_range(block);
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut buffer = buffer(&self.pool, len);
        // A bug in a parser costs the block; whoever reads there meets it and reports it.
        let read = catch_unwind(AssertUnwindSafe(|| file.content.read_at(&mut buffer.bytes, range.start)));
        if matches!(read, Ok(Ok(()))) {
            finish.block = Block::Ready(Arc::new(buffer));
        }
    }

    /// The reader is behind the block: the kernel has it, and those before it.
    fn passed(&self, file: &Arc<OpenFile>, block: u64) {
        let mut state = self.lock();
        // Not this one yet: an earlier part of it can still be on its way.
        for old in block.saturating_sub(2)..block {
            if let Some(Block::Ready(_) | Block::Failed) = state.blocks.get(&(file.number, old)) {
                state.blocks.remove(&(file.number, old));
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
                        self.run(&file, key.1);
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

//! Reading ahead against a model file that counts, fails and waits.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::disk::{Disk, Extent, ExtentKind, check_range};
use crate::error::Error;

/// A file whose byte at `n` follows from `n`.
#[derive(Debug, Default)]
struct Model {
    len: u64,
    /// Reads that overlap this fail.
    bad: Range<u64>,
    panics: bool,
    bytes_read: Arc<AtomicU64>,
}

fn byte_at(n: u64) -> u8 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Content for Model {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf.len() as u64, self.len)?;
        self.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        if offset < self.bad.end && end > self.bad.start {
            assert!(!self.panics, "asked to");
            return Err(Error::corrupt("model", offset, "asked to"));
        }
        buf.iter_mut().zip(offset..).for_each(|(byte, n)| *byte = byte_at(n));
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, len: self.len - offset, kind: ExtentKind::Data })
    }
    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

fn check(readahead: &Readahead, file: &Arc<OpenFile>, range: Range<u64>) {
    let bytes = readahead.read(file, range.clone()).unwrap();
    assert!(bytes.as_slice().iter().copied().eq(range.clone().map(byte_at)), "{range:?}");
}

const LEN: u64 = 20 * BLOCK + 12_345;

#[test]
fn a_sequence_is_read_right_and_about_once() {
    for (piece, limit) in
        [(131_072, 64 << 20), (1 << 20, 64 << 20), (100_000, 64 << 20), (131_072, 0), (3 << 20, 8 << 20)]
    {
        let readahead = Readahead::start(2, limit).unwrap();
        let bytes_read = Arc::new(AtomicU64::new(0));
        let model = Model { len: LEN, bytes_read: Arc::clone(&bytes_read), ..Model::default() };
        let file = readahead.file(1, Box::new(model));
        let mut at = 0;
        while at < LEN {
            check(&readahead, &file, at..(at + piece).min(LEN));
            at += piece;
        }
        let read = bytes_read.load(Ordering::Relaxed);
        assert!(read < LEN + LEN / 4 + 4 * BLOCK, "{read} of {LEN} in pieces of {piece} within {limit}");
    }
}

#[test]
fn reads_that_overtake_each_other_are_right() {
    let readahead = Readahead::start(2, 32 << 20).unwrap();
    let file = readahead.file(1, Box::new(Model { len: LEN, ..Model::default() }));
    let pieces = LEN / 131_072;
    for n in 0..pieces {
        let n = if n % 2 == 0 { (n + 1).min(pieces - 1) } else { n - 1 };
        check(&readahead, &file, n * 131_072..(n + 1) * 131_072);
    }
}

#[test]
fn many_readers_of_many_files_in_a_small_limit_are_right() {
    let readahead = Readahead::start(3, 4 << 20).unwrap();
    let files: Vec<_> = (0..6).map(|n| readahead.file(n, Box::new(Model { len: LEN, ..Model::default() }))).collect();
    std::thread::scope(|scope| {
        for thread in 0..12_u64 {
            let (readahead, file) = (&readahead, &files[thread as usize % files.len()]);
            scope.spawn(move || {
                let mut at = thread * BLOCK;
                for n in 0..120 {
                    let end = (at + 100_000).min(LEN);
                    check(readahead, file, at..end);
                    // Now and then to another place.
                    at = if n % 40 == 39 || end == LEN { (n * 777_777) % LEN } else { end };
                }
            });
        }
    });
    let state = readahead.shared.lock();
    assert!(state.blocks.len() <= 4 && state.order.len() <= 17, "{} {}", state.blocks.len(), state.order.len());
}

#[test]
fn damage_fails_the_reads_that_touch_it_and_no_others() {
    // Without workers it is the reader who reads what was asked for ahead, as where the workers have no core.
    for (panics, workers) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
        let bad = 5 * BLOCK + 300_000..5 * BLOCK + 300_100;
        let readahead = Readahead::start(workers, 64 << 20).unwrap();
        let model = Model { len: LEN, bad: bad.clone(), panics, ..Model::default() };
        let file = readahead.file(1, Box::new(model));
        let mut at = 0;
        while at < LEN {
            let range = at..(at + 65_536).min(LEN);
            if range.start < bad.end && range.end > bad.start {
                let read = catch_unwind(AssertUnwindSafe(|| readahead.read(&file, range)));
                assert!(!matches!(read, Ok(Ok(_))));
            } else {
                check(&readahead, &file, range);
            }
            at += 65_536;
        }
    }
}

#[test]
fn an_empty_file_and_the_end_of_one_are_no_trouble() {
    let readahead = Readahead::start(1, 8 << 20).unwrap();
    let empty = readahead.file(1, Box::new(Model::default()));
    assert!(readahead.read(&empty, 0..0).unwrap().as_slice().is_empty());
    let file = readahead.file(2, Box::new(Model { len: BLOCK, ..Model::default() }));
    for _ in 0..6 {
        check(&readahead, &file, BLOCK - 10..BLOCK);
        check(&readahead, &file, 0..BLOCK);
    }
    drop(file);
    assert_eq!(readahead.active.load(Ordering::Relaxed), 0);
}

/// The model as a disk.
struct ModelDisk(Model);

impl Disk for ModelDisk {
    fn len(&self) -> u64 {
        self.0.len
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}

#[test]
fn a_disk_reads_the_same_in_sequences_that_mix_and_by_many_readers() {
    let readahead = Arc::new(Readahead::start(2, 16 << 20).unwrap());
    let bytes_read = Arc::new(AtomicU64::new(0));
    let model = Model { len: LEN, bytes_read: Arc::clone(&bytes_read), ..Model::default() };
    let disk = ReadaheadDisk::new(&readahead, Arc::new(ModelDisk(model)));
    let check = |at: u64, len: u64| {
        let mut buf = vec![0; usize::try_from(len).unwrap()];
        disk.read_at(&mut buf, at).unwrap();
        assert!(buf.iter().copied().eq((at..at + len).map(byte_at)), "{len} at {at}");
    };
    // Two sequences that take turns.
    for at in (0..8 * BLOCK).step_by(200_000) {
        check(at, 200_000);
        check(10 * BLOCK + at, 200_000);
    }
    let read = bytes_read.load(Ordering::Relaxed);
    assert!(read < 26 * BLOCK, "both are followed, so hardly anything is read twice: {read}");
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let check = &check;
            scope.spawn(move || (0..60).for_each(|n| check(thread * BLOCK + n * 150_000, 150_000)));
        }
    });
    assert!(disk.read_at(&mut [0; 2], LEN - 1).is_err());
    drop(disk);
    assert_eq!(readahead.active.load(Ordering::Relaxed), 0);
}

/// A disk, what was read of it, and what reads it ahead.
fn counted(len: u64) -> (ReadaheadDisk, Arc<AtomicU64>, Arc<Readahead>) {
    let readahead = Arc::new(Readahead::start(2, 64 << 20).unwrap());
    let bytes_read = Arc::new(AtomicU64::new(0));
    let model = Model { len, bytes_read: Arc::clone(&bytes_read), ..Model::default() };
    (ReadaheadDisk::new(&readahead, Arc::new(ModelDisk(model))), bytes_read, readahead)
}

/// Numbers without a pattern.
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

#[test]
fn reads_here_and_there_read_nothing_else() {
    // All over a disk, and in places as small as a file or a directory, where each read is near those before.
    for (place, count) in [(1 << 40, 3000), (40 << 20, 3000), (4 << 20, 300), (1 << 20, 80)] {
        let (disk, bytes_read, readahead) = counted(1 << 40);
        let (mut state, start) = (7, (1 << 40) - place);
        for _ in 0..count {
            let at = start + random(&mut state, place >> 12) * 4096;
            disk.read_at(&mut [0; 4096], at).unwrap();
        }
        assert!(readahead.shared.lock().blocks.is_empty(), "in {place} bytes");
        assert_eq!(bytes_read.load(Ordering::Relaxed), count * 4096, "in {place} bytes");
    }
}

#[test]
fn a_sequence_that_ends_leaves_at_most_a_quarter_as_much_unread() {
    for reads in [3, 30, 200, 1000] {
        let (disk, _, readahead) = counted(1 << 40);
        let piece = 40_000;
        let mut buf = vec![0; 40_000];
        for n in 0..reads {
            disk.read_at(&mut buf, 12_345_678 + n * piece).unwrap();
        }
        let end = 12_345_678 + reads * piece;
        let furthest = readahead.shared.lock().blocks.keys().map(|(_, block)| (block + 1) * BLOCK).max();
        assert!(furthest.unwrap_or(0) <= end + reads * piece / 4, "{reads} reads");
        assert_eq!(furthest.is_some(), reads > 30, "{reads} reads are read ahead of");
    }
}

#[test]
fn what_a_boot_reads_is_read_about_once() {
    // Files of many lengths, each read in sequence from some place, with small reads of directories between them.
    let (disk, bytes_read, _readahead) = counted(8 << 30);
    let (mut state, mut wanted) = (99, 0);
    let mut buf = vec![0; 128 << 10];
    for _ in 0..400 {
        let len = 4096 << random(&mut state, 12);
        let start = random(&mut state, (8 << 30) - (32 << 20)) / 4096 * 4096;
        let mut at = start;
        while at < start + len {
            let piece = (start + len - at).min(128 << 10);
            disk.read_at(&mut buf[..usize::try_from(piece).unwrap()], at).unwrap();
            at += piece;
            wanted += piece;
            if random(&mut state, 4) == 0 {
                disk.read_at(&mut [0; 4096], random(&mut state, 1 << 21) * 4096).unwrap();
                wanted += 4096;
            }
        }
    }
    let read = bytes_read.load(Ordering::Relaxed);
    assert!(read < wanted / 2 * 3, "{read} for {wanted}");
}

/// A file that workers read so slowly that nothing ever comes.
#[derive(Debug)]
struct Stuck {
    model: Model,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// A worker stands there.
    reached: AtomicUsize,
    open: Mutex<bool>,
    changed: Condvar,
}

impl Content for Stuck {
    fn len(&self) -> u64 {
        self.model.len
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if std::thread::current().name().is_some_and(|name| name.starts_with("readahead-")) {
            self.gate.reached.fetch_add(1, Ordering::Relaxed);
            drop(self.gate.changed.wait_while(self.gate.open.lock().unwrap(), |open| !*open).unwrap());
        }
        self.model.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.model.extent_at(offset)
    }
    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

#[test]
fn a_reader_does_not_wait_for_long_for_a_worker_that_has_no_core() {
    let readahead = Readahead::start(1, 16 << 20).unwrap();
    let gate = Arc::new(Gate::default());
    let model = Model { len: LEN, ..Model::default() };
    let file = readahead.file(1, Box::new(Stuck { model, gate: Arc::clone(&gate) }));
    for n in 0..80 {
        // By then blocks are asked for that the reader has not come to.
        while n == 32 && gate.reached.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        check(&readahead, &file, n * 131_072..(n + 1) * 131_072);
    }
    *gate.open.lock().unwrap() = true;
    gate.changed.notify_all();
}

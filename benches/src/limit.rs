//! The limit: the least that a program must do for the work of a capture or a restore, on the same chunks and cores.
//!
//! It reads, tests for zeros, hashes (BLAKE3), skips what it has seen, compresses (zstd), decodes and hashes again, and
//! writes one file. No map, no tree, no checksums, no order, no errors to survive: what hikae takes beyond it is what it costs to be an image.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Parser, Subcommand};
use zstd_safe::{CCtx, CParameter, DCtx};

use hikae_benches::chunks::{CHUNK, Entry, read_index};

/// Chunks that a thread takes at once: 1 MiB.
const JOB: usize = 16;
/// Open a device exclusively (Linux).
const O_EXCL: i32 = 0o200;
/// Bytes of a page.
const PAGE: usize = 4 << 10;
/// Compressed only where that saves a sixteenth.
const ENOUGH: usize = CHUNK - CHUNK / 16;

#[derive(Debug, Parser)]
struct Arguments {
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stores the chunks of SOURCE that RANGES touch in OUT and OUT.index.
    Store {
        source: PathBuf,
        /// Lines of offset and length, in bytes: what is read.
        ranges: PathBuf,
        out: PathBuf,
        /// A file that was stored before: its chunks are there already, and what changed a little is compressed against
        /// the chunk that lay there.
        #[arg(long)]
        known: Option<PathBuf>,
        /// zstd level.
        #[arg(long, default_value_t = 1)]
        level: i32,
    },
    /// Reads and hashes them only.
    Hash { source: PathBuf, ranges: PathBuf },
    /// Compresses each 4 KiB page of NEW that differs from OLD alone, inside of RANGES, and adds up what that gives.
    Pages {
        old: PathBuf,
        new: PathBuf,
        ranges: PathBuf,
        /// zstd level.
        #[arg(long, default_value_t = 1)]
        level: i32,
    },
    /// Decodes and hashes everything that IN and IN.index hold. Where OUT is given it goes there: a file is made anew, sparse, and takes its name when it
    /// is synced; a block device is written in place.
    Decode { input: PathBuf, out: Option<PathBuf> },
}

/// A chunk of the disk, and the runs of it that are read.
struct Wanted {
    chunk: u64,
    runs: Vec<(u64, usize)>,
}

fn wanted(ranges: &Path) -> Vec<Wanted> {
    let size = u64::try_from(CHUNK).unwrap();
    let mut all: Vec<Wanted> = Vec::new();
    for line in std::fs::read_to_string(ranges).unwrap().lines() {
        let (start, len) = line.split_once(' ').unwrap();
        let (mut at, end) =
            (start.parse::<u64>().unwrap(), start.parse::<u64>().unwrap() + len.parse::<u64>().unwrap());
        while at < end {
            let chunk = at / size;
            let stop = ((chunk + 1) * size).min(end);
            if all.last().is_none_or(|last| last.chunk != chunk) {
                all.push(Wanted { chunk, runs: Vec::new() });
            }
            all.last_mut().unwrap().runs.push((at, usize::try_from(stop - at).unwrap()));
            at = stop;
        }
    }
    all
}

/// Reads up to [`JOB`] chunks into `buf`: one read where they follow each other wholly, one for each run otherwise.
fn read_chunks(source: &File, job: &[Wanted], buf: &mut [u8]) {
    let size = u64::try_from(CHUNK).unwrap();
    let whole = job.iter().all(|wanted| matches!(wanted.runs[..], [(_, CHUNK)]))
        && job.windows(2).all(|pair| pair[0].chunk + 1 == pair[1].chunk);
    if whole {
        return source.read_exact_at(buf, job[0].chunk * size).unwrap();
    }
    for (wanted, bytes) in job.iter().zip(buf.chunks_exact_mut(CHUNK)) {
        bytes.fill(0);
        for (offset, len) in &wanted.runs {
            let at = usize::try_from(offset - wanted.chunk * size).unwrap();
            source.read_exact_at(&mut bytes[at..at + len], *offset).unwrap();
        }
    }
}

fn store(threads: usize, source: &Path, ranges: &Path, out: Option<&Path>, known: Option<&Path>, level: i32) {
    let source = File::open(source).unwrap();
    let wanted = wanted(ranges);
    let seen: Vec<Mutex<HashSet<[u8; 32]>>> = (0..256).map(|_| Mutex::default()).collect();
    let before: HashMap<u64, Entry> =
        known.map(read_index).unwrap_or_default().into_iter().map(|entry| (entry.chunk, entry)).collect();
    for entry in before.values() {
        seen[usize::from(entry.hash[0])].lock().unwrap().insert(entry.hash);
    }
    let known = known.map(|known| File::open(known).unwrap());
    let file = out.map(|out| File::create(out).unwrap());
    let (next, end) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (index, repeated) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        let (mut buf, zeros) = (vec![0; CHUNK * JOB], vec![0; CHUNK]);
        let (mut packed, mut check) = (vec![0; zstd_safe::compress_bound(CHUNK)], vec![0; CHUNK]);
        let (mut compress, mut decompress) = (CCtx::create(), DCtx::create());
        compress.set_parameter(CParameter::CompressionLevel(level)).unwrap();
        let mut bases = vec![0; CHUNK * JOB];
        let (mut mine, mut again, mut frames) = (Vec::new(), Vec::new(), Vec::with_capacity(CHUNK * JOB));
        loop {
            let first = next.fetch_add(JOB, Ordering::Relaxed);
            let Some(job) = wanted.get(first..(first + JOB).min(wanted.len())).filter(|job| !job.is_empty()) else {
                break;
            };
            let buf = &mut buf[..job.len() * CHUNK];
            read_chunks(&source, job, buf);
            frames.clear();
            let begun = mine.len();
            let mut differences = Differences::default();
            for ((wanted, bytes), base) in job.iter().zip(buf.chunks_exact(CHUNK)).zip(bases.chunks_exact_mut(CHUNK)) {
                if bytes == zeros {
                    continue;
                }
                let hash = *blake3::hash(bytes).as_bytes();
                if file.is_none() {
                    std::hint::black_box(hash);
                    continue;
                }
                if !seen[usize::from(hash[0])].lock().unwrap().insert(hash) {
                    again.push(Entry { chunk: wanted.chunk, offset: 0, len: 0, hash });
                    continue;
                }
                let old = known.as_ref().zip(before.get(&wanted.chunk));
                let payload = if let Some((known, entry)) = old {
                    entry.read(known, &mut decompress, &mut check, base);
                    let base = &*base;
                    let len = differences.compress(base, bytes, &mut packed);
                    differences.decompress(base, &packed[..len], &mut check);
                    &packed[..len]
                } else {
                    let len = compress.compress2(packed.as_mut_slice(), bytes).unwrap();
                    if len < ENOUGH {
                        assert_eq!(decompress.decompress(check.as_mut_slice(), &packed[..len]), Ok(CHUNK));
                        &packed[..len]
                    } else {
                        check.copy_from_slice(bytes);
                        bytes
                    }
                };
                assert_eq!(*blake3::hash(&check).as_bytes(), hash);
                let offset = u64::try_from(frames.len()).unwrap();
                mine.push(Entry { chunk: wanted.chunk, offset, len: payload.len(), hash });
                frames.extend_from_slice(payload);
            }
            if let Some(file) = &file {
                let at = end.fetch_add(u64::try_from(frames.len()).unwrap(), Ordering::Relaxed);
                file.write_all_at(&frames, at).unwrap();
                mine[begun..].iter_mut().for_each(|entry| entry.offset += at);
            }
        }
        index.lock().unwrap().append(&mut mine);
        repeated.lock().unwrap().append(&mut again);
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let Some((file, out)) = file.zip(out) else { return report(0.0, 0) };
    let mut index = index.into_inner().unwrap();
    let stored: HashMap<_, _> = index.iter().map(|entry| (entry.hash, *entry)).collect();
    for entry in repeated.into_inner().unwrap() {
        // What only the older index has is not in this file.
        index.extend(stored.get(&entry.hash).map(|stored| Entry { chunk: entry.chunk, ..*stored }));
    }
    index.sort_unstable_by_key(|entry| entry.chunk);
    let bytes: Vec<u8> = index.iter().flat_map(Entry::encode).collect();
    std::fs::write(out.with_extension("index"), bytes).unwrap();
    let begun = Instant::now();
    file.sync_all().unwrap();
    report(begun.elapsed().as_secs_f64(), end.into_inner());
}

/// What compresses against bases: one pair of contexts for a job, since they borrow the bases.
#[derive(Default)]
struct Differences<'a>(Option<(CCtx<'a>, DCtx<'a>)>);

impl<'a> Differences<'a> {
    fn contexts(&mut self) -> &mut (CCtx<'a>, DCtx<'a>) {
        self.0.get_or_insert_with(|| {
            let mut compress = CCtx::create();
            compress.set_parameter(CParameter::CompressionLevel(1)).unwrap();
            (compress, DCtx::create())
        })
    }

    fn compress(&mut self, base: &'a [u8], bytes: &[u8], out: &mut [u8]) -> usize {
        let (compress, _) = self.contexts();
        compress.ref_prefix(base).unwrap();
        compress.compress2(out, bytes).unwrap()
    }

    fn decompress(&mut self, base: &'a [u8], payload: &[u8], out: &mut [u8]) {
        let (_, decompress) = self.contexts();
        decompress.ref_prefix(base).unwrap();
        assert_eq!(decompress.decompress(out, payload), Ok(CHUNK));
    }
}

fn pages(old: &Path, new: &Path, ranges: &Path, level: i32) {
    let (old, new) = (File::open(old).unwrap(), File::open(new).unwrap());
    let (mut compress, mut packed) = (CCtx::create(), vec![0; zstd_safe::compress_bound(PAGE)]);
    compress.set_parameter(CParameter::CompressionLevel(level)).unwrap();
    let (mut stored, mut changed) = (0, 0_u64);
    for wanted in wanted(ranges) {
        for (start, len) in wanted.runs {
            let (mut before, mut after) = (vec![0; len], vec![0; len]);
            old.read_exact_at(&mut before, start).unwrap();
            new.read_exact_at(&mut after, start).unwrap();
            for (before, after) in before.chunks(PAGE).zip(after.chunks(PAGE)) {
                if before != after {
                    let len = compress.compress2(packed.as_mut_slice(), after).unwrap();
                    stored += u64::try_from(len.min(after.len())).unwrap();
                    changed += 1;
                }
            }
        }
    }
    println!("{}", serde_json::json!({"pages": changed, "stored": stored}));
}

fn decode(threads: usize, input: &Path, out: Option<&Path>) {
    let index = read_index(input);
    let input = File::open(input).unwrap();
    let size = u64::try_from(CHUNK).unwrap();
    let is_device = out.is_some_and(|out| out.metadata().is_ok_and(|there| there.file_type().is_block_device()));
    let new = out.map(|out| out.with_extension("new")).filter(|_| !is_device);
    let file = match (&new, out) {
        (Some(new), _) => {
            let file = File::options().read(true).write(true).create_new(true).open(new).unwrap();
            file.set_len(index.last().map_or(0, |entry| (entry.chunk + 1) * size)).unwrap();
            Some(file)
        }
        (None, Some(device)) => Some(File::options().read(true).write(true).custom_flags(O_EXCL).open(device).unwrap()),
        (None, None) => None,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut decompress = DCtx::create();
        let (mut payload, mut buf) = (vec![0; CHUNK], vec![0; CHUNK * JOB]);
        loop {
            let first = next.fetch_add(JOB, Ordering::Relaxed);
            let Some(job) = index.get(first..(first + JOB).min(index.len())).filter(|job| !job.is_empty()) else {
                break;
            };
            for (entry, bytes) in job.iter().zip(buf.chunks_exact_mut(CHUNK)) {
                entry.read(&input, &mut decompress, &mut payload, bytes);
            }
            let Some(file) = &file else { continue };
            // One write for each run of chunks that follow each other.
            let mut from = 0;
            for at in 1..=job.len() {
                if at == job.len() || job[at].chunk != job[at - 1].chunk + 1 {
                    file.write_all_at(&buf[from * CHUNK..at * CHUNK], job[from].chunk * size).unwrap();
                    from = at;
                }
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let begun = Instant::now();
    if let Some(file) = &file {
        file.sync_all().unwrap();
    }
    if let (Some(new), Some(out)) = (&new, out) {
        std::fs::rename(new, out).unwrap();
        File::open(out.parent().unwrap()).and_then(|folder| folder.sync_all()).unwrap();
    }
    report(begun.elapsed().as_secs_f64(), 0);
}

fn report(sync: f64, stored: u64) {
    println!("{}", serde_json::json!({"sync": sync, "stored": stored}));
}

fn main() {
    let Arguments { threads, command } = Arguments::parse();
    match command {
        Command::Store { source, ranges, out, known, level } => {
            store(threads, &source, &ranges, Some(&out), known.as_deref(), level);
        }
        Command::Hash { source, ranges } => store(threads, &source, &ranges, None, None, 0),
        Command::Pages { old, new, ranges, level } => pages(&old, &new, &ranges, level),
        Command::Decode { input, out } => decode(threads, &input, out.as_deref()),
    }
}

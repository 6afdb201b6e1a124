//! The limit of a mount: the least that a program must do to show the chunks of `bench-limit store` as files through FUSE.
//!
//! It reads, decodes and hashes the chunks of a read and answers; the kernel caches, as with hikae. No tree, no filesystem: a file is a list of runs of the disk.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use clap::Parser;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen,
    Request, Session,
};
use zstd_safe::DCtx;

use hikae_benches::chunks::{CHUNK, Entry, read_index};

const FOR_LONG: Duration = Duration::from_secs(1 << 20);
/// The first file's number; the root is 1.
const FIRST: u64 = 2;

#[derive(Debug, Parser)]
struct Arguments {
    /// What `bench-limit store` made.
    input: PathBuf,
    /// Length of the disk in bytes.
    len: u64,
    /// Where to.
    dir: PathBuf,
    /// Lines of offset and length on the disk: a second file, `file`, beside `disk.raw`.
    runs: Option<PathBuf>,
    /// What `bench-limit store --known INPUT` made of a later state of the disk, which is then shown: chunks that are in both are differences.
    #[arg(long)]
    later: Option<PathBuf>,
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Decoded chunks that are kept: reads of a file whose runs do not begin with a chunk share some.
    #[arg(long, default_value_t = 256)]
    kept: usize,
}

thread_local! {
    /// What each thread decodes with.
    static DECODER: RefCell<(DCtx<'static>, Vec<u8>, Vec<u8>)> =
        RefCell::new((DCtx::create(), vec![0; CHUNK], vec![0; CHUNK]));
}

/// A decoded chunk: one thread decodes it, others wait.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

struct Stored {
    file: File,
    entries: HashMap<u64, Entry>,
}

impl Stored {
    fn open(path: &PathBuf) -> Self {
        let entries = read_index(path).into_iter().map(|entry| (entry.chunk, entry)).collect();
        Self { file: File::open(path).unwrap(), entries }
    }
}

struct Limit {
    first: Stored,
    later: Option<Stored>,
    /// Names, and the runs of the disk that each is.
    files: Vec<(&'static str, Vec<Range<u64>>)>,
    kept: Mutex<(HashMap<u64, Slot>, Vec<u64>)>,
    most_kept: usize,
}

impl Limit {
    fn chunk(&self, number: u64) -> Option<Arc<Vec<u8>>> {
        let first = self.first.entries.get(&number);
        let later = self.later.as_ref().and_then(|later| Some((&later.file, later.entries.get(&number)?)));
        if first.is_none() && later.is_none() {
            return None;
        }
        let mut spare = None;
        let slot = {
            let mut kept = self.kept.lock().unwrap();
            let (slots, order) = &mut *kept;
            if let Some(slot) = slots.get(&number) {
                Arc::clone(slot)
            } else {
                if order.len() >= self.most_kept {
                    // Its memory serves again, unless somebody reads it.
                    let old = slots.remove(&order.remove(0)).and_then(Arc::into_inner);
                    spare = old.and_then(|slot| slot.into_inner().unwrap()).and_then(Arc::into_inner);
                }
                order.push(number);
                let slot = Slot::default();
                slots.insert(number, Arc::clone(&slot));
                slot
            }
        };
        let mut slot = slot.lock().unwrap();
        if slot.is_none() {
            let mut bytes = spare.unwrap_or_else(|| vec![0; CHUNK]);
            DECODER.with_borrow_mut(|(decoder, payload, base)| match (first, later) {
                (Some(first), Some((file, entry))) => {
                    first.read(&self.first.file, decoder, payload, base);
                    entry.read_difference(file, decoder, payload, base, &mut bytes);
                }
                (Some(first), None) => first.read(&self.first.file, decoder, payload, &mut bytes),
                (None, Some((file, entry))) => entry.read(file, decoder, payload, &mut bytes),
                (None, None) => unreachable!("seen above"),
            });
            *slot = Some(Arc::new(bytes));
        }
        slot.clone()
    }

    fn read(&self, file: usize, offset: u64, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size);
        let mut skip = offset;
        for run in &self.files[file].1 {
            let len = run.end - run.start;
            if skip >= len {
                skip -= len;
                continue;
            }
            let mut at = run.start + skip;
            skip = 0;
            while at < run.end && out.len() < size {
                let chunk_len = u64::try_from(CHUNK).unwrap();
                let within = usize::try_from(at % chunk_len).unwrap();
                let rest = usize::try_from((run.end - at).min(chunk_len)).unwrap();
                let part = (CHUNK - within).min(rest).min(size - out.len());
                match self.chunk(at / chunk_len) {
                    Some(chunk) => out.extend_from_slice(&chunk[within..within + part]),
                    None => out.resize(out.len() + part, 0),
                }
                at += u64::try_from(part).unwrap();
            }
        }
        out
    }

    fn attr(&self, ino: u64) -> Option<FileAttr> {
        let file = ino.checked_sub(FIRST).map(|index| self.files.get(usize::try_from(index).unwrap()));
        let size = match file {
            None => 0,
            Some(file) => file?.1.iter().map(|run| run.end - run.start).sum(),
        };
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if ino < FIRST { FileType::Directory } else { FileType::RegularFile },
            perm: 0o555,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Limit {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        if let Err(most) = config.set_max_readahead(1 << 20) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = self.files.iter().position(|(file, _)| *file == name);
        match index.and_then(|index| self.attr(FIRST + u64::try_from(index).unwrap())) {
            Some(attr) => reply.entry(&FOR_LONG, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0) {
            Some(attr) => reply.attr(&FOR_LONG, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = usize::try_from(ino.0 - FIRST).unwrap();
        reply.data(&self.read(file, offset, usize::try_from(size).unwrap()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, reply: ReplyDirectory) {
        reply.ok();
    }
}

fn main() {
    let arguments = Arguments::parse();
    let (first, later) = (Stored::open(&arguments.input), arguments.later.as_ref().map(Stored::open));
    let mut files = vec![("disk.raw", vec![0..arguments.len])];
    if let Some(runs) = &arguments.runs {
        let text = std::fs::read_to_string(runs).unwrap();
        let runs = text.lines().map(|line| {
            let (offset, len) = line.split_once(' ').unwrap();
            let (offset, len) = (offset.parse::<u64>().unwrap(), len.parse::<u64>().unwrap());
            offset..offset + len
        });
        files.push(("file", runs.collect()));
    }
    let limit = Limit { first, later, files, kept: Mutex::default(), most_kept: arguments.kept };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("bench-limit".into())];
    config.n_threads = Some(arguments.threads);
    Session::new(limit, &arguments.dir, &config).unwrap().run().unwrap();
}

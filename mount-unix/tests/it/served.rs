//! A mount for the length of a test, and what tests need around it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::record::Source;
use imgfmt::image::{FolderStore, Image, OpenOptions, PackStore, WriterOptions};
use imgfmt::tree::{Tree, TreeOptions};
use mount_unix::{Mount, MountError, MountOptions, Unmounter};

/// A small generator of pseudo-random numbers: the same seed gives the same run everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Noise that compresses a little, and zeros.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(50_000) {
        if random.below(4) > 0 {
            piece.chunks_mut(8).for_each(|part| part.fill(random.next() as u8));
        }
    }
    bytes
}

/// Captures `bytes` as the next generation of the image in `folder`.
pub(crate) fn capture_bytes(folder: &Path, bytes: Vec<u8>) -> Arc<FolderStore> {
    let store = Arc::new(FolderStore::new(&folder.join("a.hik"), &[]).unwrap());
    let identity = Source { path: "made by a test".into(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk: Arc::new(MemoryDisk::new(bytes)), identity, physical_sector_size: 512 };
    let writer = WriterOptions { chunk_log2: Some(16), pack_size: 1 << 30, compression: Compression::Zstd(1) };
    let options = CaptureOptions { writer, ..CaptureOptions::default() };
    capture(&source, store.clone() as Arc<dyn PackStore>, &options, quiet(&Cancel::default())).unwrap();
    store
}

pub(crate) fn tree(folder: &Path, cache_bytes: u64) -> Tree {
    let store = Arc::new(FolderStore::new(&folder.join("a.hik"), &[]).unwrap());
    let image = Image::open(store, &OpenOptions { cache_bytes }).unwrap();
    Tree::of_image(Arc::new(image), &TreeOptions::default())
}

/// A mount that a thread of this process serves.
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    pub(crate) unmounter: Unmounter,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<Result<(), MountError>>>,
}

impl Served {
    /// Mounts on `mnt` below `folder`.
    pub(crate) fn new(folder: &Path, tree: Tree, readahead_bytes: u64) -> Self {
        let dir = folder.join("mnt");
        std::fs::create_dir_all(&dir).unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&log);
        let options = MountOptions {
            source: folder.join("a.hik").display().to_string(),
            allow_other: false,
            uid: None,
            gid: None,
            readahead_bytes,
            log: Arc::new(move |line: &str| heard.lock().unwrap().push(line.to_owned())),
        };
        let mount = Mount::new(Arc::new(tree), &dir, &options).unwrap();
        let unmounter = mount.unmounter();
        let thread = std::thread::spawn(move || mount.serve());
        Self { dir, unmounter, log, thread: Some(thread) }
    }

    /// Waits for the mount's thread to end.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.unmounter.unmount();
            let ended = self.thread.take().unwrap().join();
            assert!(std::thread::panicking() || ended.unwrap().is_ok());
        }
    }
}

/// Runs a program that must succeed. A missing tool is a failure, never a silent skip.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed by this test and cannot be started: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?} ended with {}: {out}{err}", output.status);
    output
}

/// Runs a program that needs root: by itself where we are root, through sudo otherwise.
pub(crate) fn as_root(command: &[&str]) -> Output {
    match (command.split_first(), rustix::process::geteuid().is_root()) {
        (Some((program, args)), true) => run(program, args),
        _ => run("sudo", &[&["-n"], command].concat()),
    }
}

//! Small pieces of hikae's work on fixed input: what the microbenches time and what the instruction counts are of.
//!
//! The input is made by seeded code and by the tools that make filesystems, so that it is the same in every run (times and serial numbers apart).

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
use imgfmt::disk::{MemoryDisk, read_vec};
use imgfmt::engine::{Cancel, Quiet, Run};
use imgfmt::filesystem::files::FileSystem;
use imgfmt::filesystem::open_files;
use imgfmt::image::codec::{Compression, Compressor, Decompressor};
use imgfmt::image::id::{Id, Pointer};
use imgfmt::image::index::DedupIndex;
use imgfmt::image::layout::Codec;
use imgfmt::image::node::Slot;
use imgfmt::image::record::Source;
use imgfmt::image::{FolderStore, Generation, Image, OpenOptions, PackStore};
use imgfmt::source::FileDisk;
use imgfmt::verify::verify;
use imgfmt::{Disk, ExtentKind};

/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;
/// Chunks in a piece of work on chunks: 4 MiB.
const CHUNKS: usize = 64;
/// Bytes of the disk that the filesystems lie on.
const DISK_LEN: u64 = 48 << 20;

/// A piece of work, and what it is given.
pub struct Case {
    /// Its name, in words.
    pub name: &'static str,
    /// Bytes that it goes through, for rates; 0 where it goes through things that are counted otherwise.
    pub bytes: u64,
    /// Does it once.
    pub work: Box<dyn FnMut()>,
}

impl Case {
    fn new(name: &'static str, bytes: usize, work: impl FnMut() + 'static) -> Self {
        let bytes = u64::try_from(bytes).unwrap();
        Self { name, bytes, work: Box::new(work) }
    }
}

/// Seeded bytes: xorshift, so that no crate's next version changes them.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    /// Words that compress to about a half, as programs and documents do.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            // Few words are frequent, many are rare.
            let word = self.below(1 << 12).min(self.below(1 << 12)).min(self.below(1 << 12));
            out.extend_from_slice(&word.wrapping_mul(0x0001_0004_0051_0a37).to_be_bytes()[2..]);
        }
        out.truncate(len);
        out
    }
}

/// Disks and images that the pieces of work are given.
pub struct Fixture {
    folder: PathBuf,
}

impl Fixture {
    /// Makes what is not there yet in `folder`. Needs mke2fs, mkntfs and wimlib, but not root.
    pub fn open(folder: &Path) -> Self {
        let fixture = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).unwrap();
        if !fixture.path("made").exists() {
            fixture.make();
            fs::write(fixture.path("made"), b"").unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn make(&self) {
        let tree = self.path("tree");
        let _ = fs::remove_dir_all(&tree);
        let mut random = Random::new(1);
        for folder in 0..40 {
            let folder = tree.join(format!("folder {folder:02}"));
            fs::create_dir_all(&folder).unwrap();
            for file in 0..25 {
                let len = usize::try_from(random.below(20_000)).unwrap();
                fs::write(folder.join(format!("file {file:02}.txt")), random.text(len)).unwrap();
            }
        }
        fs::create_dir_all(tree.join("many")).unwrap();
        for file in 0..2000 {
            fs::write(tree.join("many").join(format!("a longer name, number {file:04}.dat")), b"x").unwrap();
        }
        fs::write(tree.join("large.bin"), random.text(4 << 20)).unwrap();
        for kind in ["ntfs", "ext4"] {
            let disk = self.path(kind);
            let file = fs::File::create(&disk).unwrap();
            file.set_len(DISK_LEN).unwrap();
            let (disk, tree, wim) = (text(&disk), text(&tree), self.path("tree.wim"));
            if kind == "ext4" {
                let options = "hash_seed=6b3d5b0e-7d0c-4d4e-8f2b-0d3a4c5b6a79,root_owner=0:0";
                call(
                    "mke2fs",
                    &[
                        "-q",
                        "-F",
                        "-t",
                        "ext4",
                        "-E",
                        options,
                        "-U",
                        "0f0f0f0f-7d0c-4d4e-8f2b-0d3a4c5b6a79",
                        "-d",
                        tree,
                        disk,
                    ],
                );
            } else {
                call(
                    "mkntfs",
                    &[
                        "--quiet",
                        "--force",
                        "--fast",
                        "--sector-size",
                        "512",
                        "--partition-start",
                        "0",
                        "--heads",
                        "16",
                        "--sectors-per-track",
                        "63",
                        disk,
                    ],
                );
                let _ = fs::remove_file(&wim);
                call("wimcapture", &[tree, text(&wim), "--compress=none"]);
                call("wimapply", &[text(&wim), disk]);
            }
            let image = self.path(&format!("{kind}.hik"));
            let _ = fs::remove_file(&image);
            self.capture(kind, &image);
        }
    }

    fn disk(&self, kind: &str) -> Arc<dyn Disk> {
        Arc::new(FileDisk::open(&self.path(kind), 512).unwrap())
    }

    fn capture(&self, kind: &str, image: &Path) {
        store(self.disk(kind), image);
    }

    fn image(&self, kind: &str, options: &OpenOptions) -> Arc<Image> {
        let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&self.path(&format!("{kind}.hik")), &[]).unwrap());
        Arc::new(Image::open(store, options).unwrap())
    }

    fn generation(&self, kind: &str, options: &OpenOptions) -> Generation {
        self.image(kind, options).generation(1).unwrap()
    }

    fn filesystem(&self, kind: &str) -> Box<dyn FileSystem> {
        // From memory: what is measured is the filesystem, not the system's reads.
        let bytes = read_vec(&self.disk(kind), 0, usize::try_from(DISK_LEN).unwrap()).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
        open_files(&disk).unwrap().unwrap()
    }

    /// All pieces of work.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = chunk_cases();
        cases.extend(self.image_cases());
        for (kind, lookup, list) in [("ntfs", "NTFS look-up", "NTFS listing"), ("ext4", "ext4 look-up", "ext4 listing")]
        {
            let filesystem = self.filesystem(kind);
            let many = filesystem.lookup(filesystem.root(), b"many").unwrap().unwrap().node;
            let names: Vec<_> =
                (0..2000).step_by(20).map(|file| format!("a longer name, number {file:04}.dat")).collect();
            cases.push(Case::new(lookup, 0, move || {
                for name in &names {
                    assert!(filesystem.lookup(many, name.as_bytes()).unwrap().is_some());
                }
            }));
            let filesystem = self.filesystem(kind);
            cases.push(Case::new(list, 0, move || {
                let mut count = 0;
                let mut visit = |entry: imgfmt::filesystem::files::Entry| {
                    count += usize::from(entry.name.starts_with(b"a longer"));
                    ControlFlow::Continue(())
                };
                filesystem.list(many, &mut visit).unwrap();
                assert_eq!(count, 2000);
            }));
        }
        cases
    }

    /// Work on an image: looking up, reading, capturing, proving.
    fn image_cases(&self) -> Vec<Case> {
        let (warm, cold) = (OpenOptions::default(), OpenOptions { cache_bytes: 0 });
        let mut cases = Vec::new();

        let generation = self.generation("ntfs", &warm);
        let chunks = generation.tree().shape().chunks();
        cases.push(Case::new("tree look-up", 0, move || {
            for chunk in 0..chunks {
                generation.tree().find(generation.image(), chunk).unwrap();
            }
        }));

        let image = self.image("ntfs", &warm);
        let index = DedupIndex::open(&image, HashSet::new());
        let known: Vec<_> = pointers(&self.generation("ntfs", &warm)).iter().map(|pointer| pointer.id).collect();
        let unknown: Vec<_> = (0..known.len()).map(|number| Id::of_chunk(&number.to_le_bytes())).collect();
        cases.push(Case::new("index look-up, half of them there", 0, move || {
            assert!(known.iter().all(|id| index.find(id).is_some()));
            assert!(unknown.iter().all(|id| index.find(id).is_none()));
        }));

        for (name, options) in [("4 KiB read, chunk cached", &warm), ("4 KiB read, chunk not cached", &cold)] {
            let generation = self.generation("ntfs", options);
            let places = data(&generation);
            let mut buf = vec![0; 4096];
            cases.push(Case::new(name, places.len() * buf.len(), move || {
                for place in &places {
                    generation.read_at(&mut buf, *place).unwrap();
                }
            }));
        }

        let generation = self.generation("ntfs", &cold);
        let mut buf = vec![0; 1 << 20];
        cases.push(Case::new("sequential read", usize::try_from(DISK_LEN).unwrap(), move || {
            for at in (0..generation.len()).step_by(buf.len()) {
                generation.read_at(&mut buf, at).unwrap();
            }
        }));

        let out = self.path("work.hik");
        for (name, kind) in
            [("capture of NTFS", Some("ntfs")), ("capture of ext4", Some("ext4")), ("capture of zeros", None)]
        {
            let disk: Arc<dyn Disk> = match kind {
                Some(kind) => self.disk(kind),
                None => Arc::new(MemoryDisk::new(vec![0; usize::try_from(DISK_LEN).unwrap()])),
            };
            let out = out.clone();
            cases.push(Case::new(name, usize::try_from(DISK_LEN).unwrap(), move || {
                let _ = fs::remove_file(&out);
                store(Arc::clone(&disk), &out);
            }));
        }
        let (disk, out) = (self.disk("ntfs"), self.path("again.hik"));
        let mut made = false;
        cases.push(Case::new("capture of NTFS, nothing changed", usize::try_from(DISK_LEN).unwrap(), move || {
            if !made {
                let _ = fs::remove_file(&out);
                store(Arc::clone(&disk), &out);
                made = true;
            }
            store(Arc::clone(&disk), &out);
        }));

        let image = self.image("ntfs", &warm);
        cases.push(Case::new("verify", 0, move || {
            let cancel = Cancel::default();
            assert!(verify(&image, one_thread(&cancel)).unwrap().is_clean());
        }));
        cases
    }
}

/// Work on chunks without an image.
fn chunk_cases() -> Vec<Case> {
    let len = CHUNK * CHUNKS;
    let chunks = Random::new(2).text(len);
    let mut cases = Vec::new();

    let bytes = chunks.clone();
    cases.push(Case::new("hash", len, move || {
        for chunk in bytes.chunks_exact(CHUNK) {
            std::hint::black_box(Id::of_chunk(chunk));
        }
    }));

    for (compress, decompress, compression) in [
        ("zstd 1 compress", "zstd 1 decompress", Compression::Zstd(1)),
        ("LZ4 compress", "LZ4 decompress", Compression::Lz4),
    ] {
        let mut compressor = Compressor::new(compression);
        let payloads: Vec<(Codec, Vec<u8>)> = chunks
            .chunks_exact(CHUNK)
            .map(|chunk| {
                let (codec, payload) = compressor.compress(chunk);
                (codec, payload.to_vec())
            })
            .collect();
        let bytes = chunks.clone();
        cases.push(Case::new(compress, len, move || {
            for chunk in bytes.chunks_exact(CHUNK) {
                std::hint::black_box(compressor.compress(chunk));
            }
        }));
        let (mut decompressor, mut out) = (Decompressor::default(), vec![0; CHUNK]);
        cases.push(Case::new(decompress, len, move || {
            for (codec, payload) in &payloads {
                decompressor.decode(*codec, payload, &mut out).unwrap();
            }
        }));
    }
    cases.extend(difference_cases(chunks));
    cases
}

/// A page of each chunk changed.
fn difference_cases(old: Vec<u8>) -> [Case; 2] {
    let len = old.len();
    let mut new = old.clone();
    for chunk in new.chunks_exact_mut(CHUNK) {
        chunk[8192..12288].reverse();
    }
    let mut out = Vec::new();
    let mut compressor = Compressor::new(Compression::default());
    let payloads: Vec<_> = new
        .chunks_exact(CHUNK)
        .zip(old.chunks_exact(CHUNK))
        .map(|(new, old)| {
            let len = compressor.compress_difference(new, old, &mut out).unwrap();
            out[..len].to_vec()
        })
        .collect();
    let (bases, mut check, mut decompressor) = (old.clone(), vec![0; CHUNK], Decompressor::default());
    let compress = Case::new("difference compress", len, move || {
        for (new, old) in new.chunks_exact(CHUNK).zip(old.chunks_exact(CHUNK)) {
            std::hint::black_box(compressor.compress_difference(new, old, &mut out));
        }
    });
    let decompress = Case::new("difference decompress", len, move || {
        for (payload, base) in payloads.iter().zip(bases.chunks_exact(CHUNK)) {
            decompressor.decode_difference(payload, base, &mut check).unwrap();
        }
    });
    [compress, decompress]
}

fn one_thread(cancel: &Cancel) -> Run<'_> {
    Run { threads: 1, cancel, progress: &Quiet }
}

/// Captures a disk as the command line does, on one thread.
fn store(disk: Arc<dyn Disk>, image: &Path) {
    let identity = Source { path: "fixture".into(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk, identity, physical_sector_size: 512 };
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(image, &[]).unwrap());
    capture(&source, store, &CaptureOptions::default(), one_thread(&Cancel::default())).unwrap();
}

/// Where stored chunks begin, of all chunks of a generation.
fn data(generation: &Generation) -> Vec<u64> {
    let chunk = u64::try_from(CHUNK).unwrap();
    let is_data = |at: &u64| generation.extent_at(*at).unwrap().kind == ExtentKind::Data;
    (0..generation.len().div_ceil(chunk)).map(|number| number * chunk).filter(is_data).collect()
}

/// Pointers of all stored chunks.
fn pointers(generation: &Generation) -> Vec<Pointer> {
    let tree = generation.tree();
    let mut out = Vec::new();
    for chunk in 0..tree.shape().chunks() {
        if let imgfmt::image::generation::Found::Leaf(node, at) = tree.find(generation.image(), chunk).unwrap()
            && let Slot::Pointer(pointer) | Slot::Mixed { chunk: Some(pointer), .. } = &node.slots[at]
        {
            out.push(*pointer);
        }
    }
    out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn call(program: &str, args: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let status = Command::new(program).args(args).env("PATH", path).stdout(Stdio::null()).status();
    assert!(status.unwrap_or_else(|error| panic!("{program}: {error}")).success(), "{program} failed");
}

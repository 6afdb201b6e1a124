//! Captures of random disks, generation after generation, against the bytes that went in.

use std::sync::Arc;

use imgfmt::capture::{CaptureOptions, CaptureSource, Captured, capture};
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::record::Source;
use imgfmt::image::verdict::Verdicts;
use imgfmt::image::{FolderStore, Image, OpenOptions, PackStore, WriterOptions};
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::verify::verify;
use imgfmt::{Disk, ExtentKind};

use crate::conformance::{Random, disk_suite};
use crate::files::{sparse_file, takes_at_most, write_all_at};
use crate::memory_store::MemoryStore;

pub(crate) fn source(disk: impl Disk + 'static) -> CaptureSource {
    let sector_size = disk.sector_size();
    let identity = Source { path: "made by a test".into(), kind: "file".into(), ..Source::default() };
    CaptureSource { disk: Arc::new(disk), identity, physical_sector_size: sector_size }
}

pub(crate) fn options(chunk_log2: u8, pack_size: u64, compression: Compression) -> CaptureOptions {
    let writer = WriterOptions { chunk_log2: Some(chunk_log2), pack_size, compression };
    CaptureOptions { writer, ..CaptureOptions::default() }
}

pub(crate) fn run_capture(disk: impl Disk + 'static, store: &Arc<dyn PackStore>, options: &CaptureOptions) -> Captured {
    capture(&source(disk), Arc::clone(store), options, quiet(&Cancel::default())).unwrap()
}

pub(crate) fn open(store: &Arc<dyn PackStore>) -> Arc<Image> {
    Arc::new(Image::open(Arc::clone(store), &OpenOptions::default()).unwrap())
}

/// Bytes of every texture: zeros, noise, text, single sectors.
pub(crate) fn random_bytes(len: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let run = (random.below(40_000) as usize + 1).min(len - at);
        let part = &mut bytes[at..at + run];
        match random.below(4) {
            0 => {}
            1 => random.fill(part),
            2 => part.iter_mut().enumerate().for_each(|(n, byte)| *byte = b"the copy kept in reserve "[n % 25]),
            _ => part.fill(random.next() as u8),
        }
        at += run;
    }
    bytes
}

fn change(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..random.below(12) {
        let at = random.below(bytes.len() as u64) as usize;
        let run = (random.below(6000) as usize).min(bytes.len() - at);
        if random.below(3) == 0 {
            bytes[at..at + run].fill(0);
        } else {
            random.fill(&mut bytes[at..at + run]);
        }
    }
}

#[test]
fn every_generation_of_random_disks_comes_back() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
        let chunk_log2 = 12 + random.below(8) as u8;
        let compression =
            [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(5)][random.below(4) as usize];
        let pack_size = [1 << 20, 3 << 20, 1 << 32][random.below(3) as usize];
        let options = options(chunk_log2, pack_size.max(4 << chunk_log2), compression);
        // Not always whole sectors: a raw file can have any length.
        let len = 1 + random.below(3_000_000) as usize;
        let mut bytes = random_bytes(len, &mut random);
        let sector_size = if random.below(2) == 0 { 512 } else { 4096 };
        let mut models = Vec::new();
        for _ in 0..4 {
            let disk = MemoryDisk::with_sector_size(bytes.clone(), sector_size);
            let captured = run_capture(disk, &store, &options);
            assert!(captured.bad.is_empty());
            models.push(bytes.clone());
            change(&mut bytes, &mut random);
        }
        let image = open(&store);
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        for (entry, model) in image.generations().iter().zip(&models) {
            let generation = image.generation(entry.number).unwrap();
            assert_eq!(generation.sector_size(), sector_size);
            disk_suite(&generation, model, seed);
        }
        let report = verify(&image, quiet(&Cancel::default())).unwrap();
        assert!(report.is_clean(), "seed {seed}: {:?} {:?}", report.damage, report.generations);
        for (_, len) in store.list().unwrap() {
            assert!(len <= options.writer.pack_size, "a pack of {len} bytes");
        }
    }
}

#[test]
fn an_unchanged_disk_costs_next_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let bytes = random_bytes(20 << 20, &mut Random::new(5));
    let options = options(16, 1 << 32, Compression::default());
    run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    let second = run_capture(MemoryDisk::new(bytes), &store, &options).record;
    assert_eq!((second.counts.chunks_new, second.counts.chunks_difference, second.counts.stored), (0, 0, 0));
    assert!(store.list().unwrap()[1].1 < 4096, "{:?}", store.list());
}

#[test]
fn changed_pages_cost_about_what_they_are_worth() {
    // 3 % of the pages of 64 MiB, each changed page's own compressed size as the measure.
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
    let mut random = Random::new(7);
    let mut bytes = random_bytes(64 << 20, &mut random);
    let options = options(16, 1 << 32, Compression::default());
    run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    let pages = bytes.len() / 4096;
    let mut alone = 0;
    let mut changed = std::collections::BTreeSet::new();
    while changed.len() < pages * 3 / 100 {
        changed.insert(random.below(pages as u64) as usize);
    }
    let words: Vec<String> = (0..500).map(|_| format!("{:x} ", random.next() % 65_536)).collect();
    for page in &changed {
        let part = &mut bytes[page * 4096..(page + 1) * 4096];
        if page % 2 == 0 {
            random.fill(part);
        } else {
            let text: String = (0..2000).map(|_| words[random.below(500) as usize].as_str()).collect();
            part.copy_from_slice(&text.as_bytes()[..4096]);
        }
        let mut compressor = imgfmt::image::codec::Compressor::new(Compression::default());
        alone += compressor.compress(part).1.len() as u64;
    }
    let record = run_capture(MemoryDisk::new(bytes.clone()), &store, &options).record;
    // Every leaf of the tree has changed: at most 56 bytes for each of its pointers.
    let nodes = (bytes.len() as u64 / 65536) * 56 + 4096;
    assert!(
        record.counts.stored <= alone * 13 / 10 + nodes,
        "{} bytes stored for pages worth {alone} and nodes of at most {nodes}",
        record.counts.stored
    );
    let image = open(&store);
    disk_suite(&image.generation(2).unwrap(), &bytes, 1);
}

#[test]
fn a_huge_sparse_disk_is_captured_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.img");
    sparse_file(&path, 10 << 40);
    let mut random = Random::new(11);
    let mut written = Vec::new();
    {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for n in 0..64_u64 {
            let mut piece = vec![0; 65536];
            random.fill(&mut piece);
            let at = n * (160 << 30) + random.below(1 << 30) / 4096 * 4096;
            write_all_at(&file, &piece, at);
            written.push((at, piece));
        }
    }
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("huge.hik"), &[]).unwrap());
    let disk = imgfmt::source::FileDisk::open(&path, 512).unwrap();
    let record = run_capture(disk, &store, &CaptureOptions::default()).record;
    assert_eq!(record.counts.data + record.counts.zero, 10 << 40);
    let image = open(&store);
    let generation = image.generation(1).unwrap();
    for (at, piece) in &written {
        let mut buf = vec![0; piece.len()];
        generation.read_at(&mut buf, *at).unwrap();
        assert!(buf == *piece);
    }
    let mut extents = 0;
    let mut at = 0;
    while at < generation.len() {
        let extent = generation.extent_at(at).unwrap();
        extents += u64::from(extent.kind == ExtentKind::Zero);
        at = extent.end();
    }
    assert!(extents < 64 * 200, "{extents} runs of zero");
    assert!(verify(&image, quiet(&Cancel::default())).unwrap().is_clean());
}

#[test]
fn another_disk_is_refused_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
    let mut options = CaptureOptions::default();
    run_capture(MemoryDisk::new(vec![7; 100_000]), &store, &options);
    let other = source(MemoryDisk::new(vec![7; 100_001]));
    let error = capture(&other, Arc::clone(&store), &options, quiet(&Cancel::default())).unwrap_err();
    assert!(matches!(error, imgfmt::Error::Refused(_)), "{error}");
    options.same_disk = true;
    let record = run_capture(MemoryDisk::new(vec![7; 100_001]), &store, &options).record;
    assert_eq!(record.generation, 2);
    disk_suite(&open(&store).generation(2).unwrap(), &vec![7; 100_001], 3);
    disk_suite(&open(&store).generation(1).unwrap(), &vec![7; 100_000], 3);
}

#[test]
fn one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let writer = imgfmt::image::ImageWriter::open(Arc::clone(&store), WriterOptions::default()).unwrap();
    let second = imgfmt::image::ImageWriter::open(Arc::clone(&store), WriterOptions::default()).unwrap_err();
    let process = std::process::id().to_string();
    assert!(second.to_string().contains(&process), "{second}");
    drop(writer);
    imgfmt::image::ImageWriter::open(store, WriterOptions::default()).unwrap();
}

#[test]
fn a_copy_to_a_file_is_sparse_and_equal() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
    let mut bytes = random_bytes(3 << 20, &mut Random::new(3));
    bytes.resize(80 << 20, 0);
    run_capture(MemoryDisk::new(bytes.clone()), &store, &CaptureOptions::default());
    let generation = open(&store).generation(1).unwrap();
    let path = folder.path().join("out.raw");
    let target = FileTarget::create(&path, generation.len()).unwrap();
    let cancel = Cancel::default();
    copy(&generation, &target, CopyOptions::default(), quiet(&cancel)).unwrap();
    assert!(!path.exists(), "a file has its name only when it is whole");
    Box::new(target).finish().unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    takes_at_most(&path, 8 << 20);
}

#[test]
fn derived_files_of_an_older_image_with_the_same_name_mean_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hik");
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&path, &[]).unwrap());
    let bytes = random_bytes(1 << 20, &mut Random::new(11));
    let options = options(16, 1 << 32, Compression::default());
    for _ in 0..2 {
        run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    }
    assert!(verify(&open(&store), quiet(&Cancel::default())).unwrap().is_clean());
    for pack in ["a.hik", "a.00001.hik"] {
        std::fs::remove_file(folder.path().join(pack)).unwrap();
    }

    let record = run_capture(MemoryDisk::new(bytes), &store, &options).record;
    assert_eq!((record.generation, record.root.pack), (1, 0));
    let image = open(&store);
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
    assert!(Verdicts::read(&*store, image.id()).generations.is_empty(), "nobody has verified this image");
}

//! Holds the product against a second reader, `samples/reader/hikread.py`, which was written from `docs/format.md` alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
use imgfmt::disk::{MemoryDisk, buf_len};
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::record::Source;
use imgfmt::image::{FolderStore, PackStore};
use imgfmt::{Disk, Error, Extent, Result};
use serde_json::Value;

fn hikae(folder: &Path, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hikae")).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "hikae {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_slice(&hikae(folder, args).stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program of `samples/reader` with the Python that `.ci/install` made, or the one that `HIKAE_PYTHON` names.
fn python(folder: &Path, args: &[&str]) -> Output {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let made = top.join("target/python/bin/python3");
    let python = std::env::var_os("HIKAE_PYTHON").map_or(made, PathBuf::from);
    let (script, args) = args.split_first().unwrap();
    Command::new(&python)
        // The reader's own folder stays as it is.
        .arg("-B")
        .arg(top.join("samples/reader").join(script))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("{} is needed and cannot be started: {error}: run .ci/install", python.display())
        })
}

fn hikread(folder: &Path, args: &[&str]) -> String {
    let output = python(folder, &[&["hikread.py"], args].concat());
    assert!(output.status.success(), "hikread.py {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

/// Runs of noise, text and zeros.
fn disk_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let run = (1 + random.below(300_000)).min(len - at);
        match random.below(3) {
            0 => bytes[at..at + run].iter_mut().for_each(|byte| *byte = random.byte()),
            1 => bytes[at..at + run].iter_mut().for_each(|byte| *byte = b"etaoin shrdlu"[random.below(13)]),
            _ => {}
        }
        at += run;
    }
    bytes
}

/// Changes a few bytes in many chunks, and one larger run.
fn changed(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    for _ in 0..40 {
        let at = random.below(bytes.len() - 100);
        bytes[at..at + 100].iter_mut().for_each(|byte| *byte = random.byte());
    }
    let at = random.below(bytes.len() - 200_000);
    bytes[at..at + 200_000].iter_mut().for_each(|byte| *byte = random.byte());
    bytes
}

fn same_bytes(path: &Path, expected: &[u8]) {
    // No assert_eq!: it would print both.
    assert!(fs::read(path).unwrap() == expected, "{} differs", path.display());
}

/// Both readers give back every generation, and list the same roots.
fn both_readers_give_back(folder: &Path, generations: &[Vec<u8>]) {
    let listed = hikread(folder, &["list", "d.hik"]);
    let ours = json(folder, &["list", "d.hik", "--json"]);
    let ours = ours["generations"].as_array().unwrap();
    assert_eq!((ours.len(), listed.lines().count()), (generations.len(), generations.len() + 1), "{listed}");
    for ((number, bytes), (line, ours)) in (1..).zip(generations).zip(listed.lines().skip(1).zip(ours)) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..3], [number.to_string(), ours["created"].as_str().unwrap().into(), bytes.len().to_string()]);
        assert_eq!(words[4], ours["root"].as_str().unwrap());

        hikread(folder, &["extract", &format!("d.hik@{number}"), "theirs.raw"]);
        hikae(folder, &["export", "--overwrite", &format!("d.hik@{number}"), "ours.raw"]);
        same_bytes(&folder.join("theirs.raw"), bytes);
        same_bytes(&folder.join("ours.raw"), bytes);
    }
}

/// Two generations in several packs; returns what the disk held each time.
fn two_generations(folder: &Path, compression: &str) -> Vec<Vec<u8>> {
    // A last chunk that is shorter than the others, and a last sector that is not whole.
    let first = disk_bytes((6 << 20) + 1234, 1);
    let second = changed(first.clone(), 2);
    for bytes in [&first, &second] {
        fs::write(folder.join("disk.raw"), bytes).unwrap();
        hikae(folder, &["capture", "disk.raw", "d.hik", "--pack-size", "1M", "--compression", compression]);
    }
    let packs = fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "hik"));
    assert!(packs.count() > 3, "the test wants several packs");
    vec![first, second]
}

/// The count in front of `what` in the line that `hikread.py check` prints.
fn count_of(line: &str, what: &str) -> usize {
    let words: Vec<_> = line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("{what:?} in {line:?}"));
    words[at - 1].parse().unwrap()
}

fn both_readers_agree(compression: &str, codecs: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let generations = two_generations(folder.path(), compression);
    let line = hikread(folder.path(), &["check", "d.hik"]);
    for codec in codecs {
        assert!(count_of(&line, codec) > 0, "the test wants frames of the kind {codec}: {line}");
    }
    both_readers_give_back(folder.path(), &generations);
}

#[test]
fn the_second_reader_reads_zstd_and_difference_chunks_in_several_packs() {
    both_readers_agree("zstd", &["zstd", "stored", "differences"]);
}

#[test]
fn the_second_reader_reads_lz4_and_difference_chunks_in_several_packs() {
    both_readers_agree("lz4", &["lz4", "stored", "differences"]);
}

#[test]
fn the_second_reader_reads_stored_chunks_in_several_packs() {
    both_readers_agree("none", &["stored"]);
}

#[test]
fn packs_that_were_replaced_are_read_through_their_place_map() {
    let folder = tempfile::tempdir().unwrap();
    let generations = two_generations(folder.path(), "zstd");
    // The second time the pack with the first map is replaced itself.
    for round in 0..2 {
        let before: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let output = python(folder.path(), &["repack.py", "d.hik"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for path in before.iter().filter(|path| path.extension().is_some_and(|extension| extension == "hik")) {
            fs::remove_file(path).unwrap();
        }
        let line = hikread(folder.path(), &["check", "d.hik"]);
        assert_eq!((count_of(&line, "packs"), count_of(&line, "generations")), (1, 2), "round {round}: {line}");
        both_readers_give_back(folder.path(), &generations);
        hikae(folder.path(), &["verify", "d.hik"]);
    }
    // What the map leads to is reused by the next capture.
    let record = json(folder.path(), &["capture", "disk.raw", "d.hik", "--json"]);
    assert_eq!(record["record"]["counts"]["chunks_new"], 0);
    both_readers_give_back(folder.path(), &[&generations[..], &generations[1..]].concat());
}

#[test]
fn the_second_reader_sees_unallocated_space_and_straddling_chunks_as_we_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    // From sector 63 on, so that one chunk holds the gap and the start of the filesystem. Stale bytes where NTFS has nothing.
    fs::write(&path, disk_bytes(24 << 20, 3)).unwrap();
    let script = "printf 'label: dos\nstart=63, size=40000, type=7\n' | sfdisk -q disk.raw
        truncate -s 20480000 ntfs && mkntfs -q -F -f -p 63 -s 512 -c 4096 -H 16 -S 63 ntfs
        dd if=ntfs of=disk.raw bs=512 seek=63 conv=notrunc status=none";
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "sfdisk and mkntfs are needed: {}", text(&output.stderr));
    let record = json(folder.path(), &["capture", "disk.raw", "d.hik", "--json"]);
    assert!(record["record"]["counts"]["absent"].as_u64().unwrap() > 1 << 20, "{record:#}");

    hikread(folder.path(), &["check", "d.hik"]);
    hikread(folder.path(), &["extract", "d.hik", "theirs.raw"]);
    hikae(folder.path(), &["export", "d.hik", "ours.raw"]);
    same_bytes(&folder.path().join("ours.raw"), &fs::read(folder.path().join("theirs.raw")).unwrap());
}

/// A disk of which some bytes cannot be read.
struct FailingDisk(MemoryDisk, std::ops::Range<u64>);

impl Disk for FailingDisk {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset < self.1.end && self.1.start < offset + buf_len(buf) {
            return Err(Error::io(
                "read",
                "a failing disk",
                std::io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR),
            ));
        }
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }
}

#[test]
fn the_second_reader_names_unreadable_sectors() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = disk_bytes(1 << 20, 4);
    // A whole chunk and a part of the next.
    let bad = 0x20000..0x30600;
    let disk = FailingDisk(MemoryDisk::new(bytes.clone()), bad.clone());
    let identity = Source { path: "made by a test".into(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk: Arc::new(disk), identity, physical_sector_size: 512 };
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("d.hik"), &[]).unwrap());
    let captured = capture(&source, store, &CaptureOptions::default(), quiet(&Cancel::default())).unwrap();
    assert_eq!(captured.record.bad, [(bad.start, bad.end - bad.start)]);

    let output = python(folder.path(), &["hikread.py", "extract", "d.hik", "theirs.raw"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("65536 bytes from 0x20000") && told.contains("1536 bytes from 0x30000"), "{told}");
    bytes[0x20000..0x30600].fill(0);
    same_bytes(&folder.path().join("theirs.raw"), &bytes);
}

#[test]
fn the_second_reader_notices_every_flipped_byte_that_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk.raw"), disk_bytes(200_000, 5)).unwrap();
    hikae(folder.path(), &["capture", "disk.raw", "d.hik", "--chunk-size", "4K"]);
    let path = folder.path().join("d.hik");
    let whole = fs::read(&path).unwrap();
    let mut random = Random(6);
    // Every tenth is in the first or the last bytes: header and footer.
    for round in 0..60 {
        let at = match round % 10 {
            0 => random.below(56),
            1 => whole.len() - 1 - random.below(128),
            _ => random.below(whole.len()),
        };
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << random.below(8);
        fs::write(&path, &flipped).unwrap();
        let output = python(folder.path(), &["hikread.py", "check", "d.hik"]);
        assert_eq!(output.status.code(), Some(1), "byte {at:#x}: {}", text(&output.stdout));
        assert!(text(&output.stderr).starts_with("hikread: "), "byte {at:#x}: {}", text(&output.stderr));
    }
}

//! Allocation maps that claim too little: forged ones, which the cross-check of the plan finds, and ones that lie to the plan and the
//! cross-check alike, which only the closure check can find. Nothing that the metadata reach is ever lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use imgfmt::capture::{CaptureOptions, CaptureSource, Captured, capture};
use imgfmt::disk::{Disk, Extent, MemoryDisk};
use imgfmt::engine::{Cancel, Progress, Run, quiet};
use imgfmt::image::PackStore;
use imgfmt::image::record::Source;
use imgfmt::verify::verify;
use imgfmt::{ExtentKind, Result};

use crate::capture::{open, run_capture};
use crate::files::sparse_file;
use crate::filesystem_oracle;
use crate::memory_store::MemoryStore;
use crate::tools::{Mounted, as_root, run, shell};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ntfs,
    Fat32,
    Exfat,
    Ext4,
}

const KINDS: [Kind; 4] = [Kind::Ntfs, Kind::Fat32, Kind::Exfat, Kind::Ext4];
const LEN: u64 = 40 << 20;

/// Makes a filesystem in a file.
fn make(kind: Kind, folder: &Path) -> PathBuf {
    let image = folder.join("fs.img");
    sparse_file(&image, LEN);
    let path = image.to_str().unwrap();
    match kind {
        Kind::Ntfs => run("mkntfs", ["-F", "-q", "-c", "4096", path]),
        Kind::Fat32 => run("mkfs.vfat", ["-F", "32", "-s", "1", path]),
        Kind::Exfat => run("mkfs.exfat", ["-c", "4K", path]),
        // Without checksums, so that a forged bitmap is not given away by its own.
        Kind::Ext4 => {
            run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^has_journal", path])
        }
    };
    image
}

/// Adds a file of 5 MB of noise to a filesystem.
fn add(kind: Kind, image: &Path, name: &str) {
    let folder = image.parent().unwrap();
    shell(folder, &format!("head -c 5000000 /dev/urandom > '{name}'"));
    let (path, file) = (image.to_str().unwrap(), folder.join(name));
    let file = file.to_str().unwrap();
    match kind {
        Kind::Ntfs => {
            let mounted = Mounted::new(folder, &["ntfs-3g"], image);
            as_root("cp", [file, mounted.path.to_str().unwrap()]);
        }
        Kind::Fat32 => {
            run("mcopy", ["-i", path, file, "::"]);
        }
        Kind::Exfat => {
            let device = as_root("losetup", ["--find", "--show", path]).stdout;
            let device = String::from_utf8(device).unwrap().trim().to_owned();
            let mounted = Mounted::new(folder, &["mount.exfat-fuse"], Path::new(&device));
            as_root("cp", [file, mounted.path.to_str().unwrap()]);
            drop(mounted);
            as_root("losetup", ["--detach", &device]);
        }
        Kind::Ext4 => {
            run("debugfs", ["-w", "-R", &format!("write {file} {name}"), path]);
        }
    }
}

fn le(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Where the allocation map lies, from the part on that governs the second megabyte, by the specifications.
fn map(kind: Kind, image: &Path, bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    match kind {
        Kind::Ntfs => {
            // Record 6 of the MFT is $Bitmap; its first run is all that a small volume has.
            let mut place = None;
            filesystem_oracle::open(image)
                .walk(&mut |reached| {
                    if reached.owner == 6 {
                        place = Some(reached.range);
                    }
                    Ok(())
                })
                .unwrap();
            let start = place.unwrap().start as usize;
            vec![start + (1 << 20) / 4096 / 8..start + LEN as usize / 4096 / 8]
        }
        Kind::Fat32 => {
            let (reserved, fats, fat_len) = (le(bytes, 14, 2), le(bytes, 16, 1), le(bytes, 36, 4));
            (0..fats)
                .map(|fat| {
                    let start = (reserved + fat * fat_len) as usize * 512;
                    start + 2048 * 4..start + fat_len as usize * 512
                })
                .collect()
        }
        Kind::Exfat => {
            // mkfs.exfat puts the bitmap into the first cluster.
            let heap = (le(bytes, 0x58, 4) as usize) << bytes[0x6c];
            vec![heap + 32..heap + LEN as usize / 4096 / 8]
        }
        Kind::Ext4 => {
            let block = le(bytes, 4096, 4) as usize;
            vec![block * 4096 + 32 * 8..block * 4096 + LEN as usize / 4096 / 8]
        }
    }
}

/// All of the generation is what the disk was, without a hole.
fn is_whole(store: &Arc<dyn PackStore>, bytes: &[u8]) {
    let image = open(store);
    let generation = image.generation(1).unwrap();
    let mut back = vec![0; bytes.len()];
    generation.read_at(&mut back, 0).unwrap();
    assert!(back == bytes);
    let mut at = 0;
    while at < generation.len() {
        let extent = generation.extent_at(at).unwrap();
        assert_ne!(extent.kind, ExtentKind::Absent);
        at = extent.end();
    }
    assert!(verify(&image, quiet(&Cancel::default())).unwrap().is_clean());
}

#[test]
fn a_forged_allocation_map_makes_the_partition_whole_and_the_record_says_so() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let image = make(kind, folder.path());
        for name in ["one", "two"] {
            add(kind, &image, name);
        }
        let good = std::fs::read(&image).unwrap();
        let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
        let record = run_capture(MemoryDisk::new(good.clone()), &store, &CaptureOptions::default()).record;
        let known = record.partitions[0].captured == "used blocks";
        assert!(known || kind == Kind::Ext4, "{:?}", record.partitions);

        let mut forged = good;
        for range in map(kind, &image, &forged) {
            assert!(forged[range.clone()].iter().any(|byte| *byte != 0), "{kind:?}: the map is to say something");
            forged[range].fill(0);
        }
        let other = tempfile::tempdir().unwrap();
        let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(other.path()));
        let record = run_capture(MemoryDisk::new(forged.clone()), &store, &CaptureOptions::default()).record;
        let kept = &record.partitions[0];
        assert_eq!((kept.captured.as_str(), kept.used), ("whole", LEN), "{kind:?}: {kept:?}");
        assert!(!kept.reasons.is_empty());
        if kind == Kind::Ntfs {
            assert!(kept.reasons[0].contains("cannot be trusted"), "{:?}", kept.reasons);
            assert!(kept.reasons.len() > 1 && kept.reasons.len() <= 11, "{:?}", kept.reasons);
            assert!(kept.reasons[1].contains("MFT record"), "{:?}", kept.reasons);
        }
        is_whole(&store, &forged);
    }
}

/// Shows one disk until it is told to show another: to the plan a filesystem before a file was added, to the capture the one with it.
struct ChangingDisk {
    before: MemoryDisk,
    after: MemoryDisk,
    changed: Arc<AtomicBool>,
}

impl Disk for ChangingDisk {
    fn len(&self) -> u64 {
        self.after.len()
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let now = if self.changed.load(Ordering::SeqCst) { &self.after } else { &self.before };
        now.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.after.extent_at(offset)
    }
}

/// Lets the disk change when the plan is made and reading begins. Keeps what the user was told.
struct Switch {
    changed: Arc<AtomicBool>,
    notes: Mutex<Vec<String>>,
}

impl Progress for Switch {
    fn begin(&self, stage: &str, _: u64) {
        if stage == "capturing" {
            self.changed.store(true, Ordering::SeqCst);
        }
    }
    fn advance(&self, _: u64) {}
    fn note(&self, message: &str) {
        self.notes.lock().unwrap().push(message.to_owned());
    }
}

fn capture_changing(before: Vec<u8>, after: Vec<u8>, store: &Arc<dyn PackStore>) -> (Captured, Vec<String>) {
    let changed = Arc::new(AtomicBool::new(false));
    let disk =
        ChangingDisk { before: MemoryDisk::new(before), after: MemoryDisk::new(after), changed: Arc::clone(&changed) };
    let identity = Source { path: "a test".into(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk: Arc::new(disk), identity, physical_sector_size: 512 };
    let switch = Switch { changed, notes: Mutex::default() };
    let run = Run { threads: 2, cancel: &Cancel::default(), progress: &switch };
    let captured = capture(&source, Arc::clone(store), &CaptureOptions::default(), run).unwrap();
    (captured, switch.notes.into_inner().unwrap())
}

#[test]
fn what_only_the_closure_check_can_see_makes_the_partition_whole_in_the_same_generation() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let image = make(kind, folder.path());
        add(kind, &image, "one");
        let before = std::fs::read(&image).unwrap();
        add(kind, &image, "two");
        let after = std::fs::read(&image).unwrap();
        let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
        let (captured, notes) = capture_changing(before, after.clone(), &store);
        let kept = &captured.record.partitions[0];
        assert_eq!((kept.captured.as_str(), kept.used), ("whole", LEN), "{kind:?}: {kept:?}");
        if kept.closure == "not walked" {
            assert_eq!(kind, Kind::Ext4, "{kept:?}");
        } else {
            assert!(kept.closure.starts_with("captured whole after: "), "{kept:?}");
            assert!(kept.closure.contains("which were not kept") || kept.closure.contains("corrupt"), "{kept:?}");
            assert!(notes.iter().any(|note| note.contains("partition 1 is captured whole after all")), "{notes:?}");
        }
        assert_eq!(captured.record.counts.absent, 0);
        assert_eq!(captured.record.generation, 1, "the generation that failed the check was never visible");
        is_whole(&store, &after);
        // What the first pass stored serves the second one.
        assert!(captured.record.counts.chunks_new < LEN / 65536 * 2, "{:?}", captured.record.counts);
    }
}

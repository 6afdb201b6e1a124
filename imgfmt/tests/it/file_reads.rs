//! What taking one file out of an image reads of its packs: the file's own chunks, and a way to it that does not grow with what else there is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::filesystem::files::FileSystem;
use imgfmt::image::codec::Compression;
use imgfmt::image::{Image, OpenOptions, PackStore};
use imgfmt::source::FileDisk;
use imgfmt::tree::resolve::resolve;
use imgfmt::tree::{Tree, TreeOptions};

use crate::capture::{options, run_capture};
use crate::conformance::Random;
use crate::counting_store::{CountingStore, Counts};
use crate::ext::work_folder;
use crate::files::sparse_file;
use crate::memory_store::MemoryStore;
use crate::tools::{Mounted, run, run_any_status, shell};
use crate::tree_oracle::bytes_of;

const CHUNK: u64 = 64 << 10;
const FILE_LEN: u64 = 1 << 20;
/// More than what 64 KiB of noise take in a pack.
const FRAME: u64 = CHUNK + 256;

/// What `hikae cat` does with a path, counted: reads and bytes of packs on the way to the file, and for its content.
fn cat(disk: &Path, wanted: &[u8]) -> ((u64, u64), (u64, u64)) {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let store = CountingStore { inner: MemoryStore::new(folder.path()), counts: Arc::clone(&counts) };
    let store: Arc<dyn PackStore> = Arc::new(store);
    let captured = FileDisk::open(disk, 512).unwrap();
    run_capture(captured, &store, &options(16, 1 << 32, Compression::Zstd(1)));
    counts.take();
    let image = Arc::new(Image::open(store, &OpenOptions::default()).unwrap());
    let tree = Tree::of_image(image, &TreeOptions::default());
    let start = tree.generation(1).unwrap();
    let found = resolve(&tree, start, b"/p1/folder/wanted", true).unwrap();
    let content = tree.open(found.node, None).unwrap();
    let way = counts.take();
    assert!(bytes_of(&*content) == wanted, "the file is what was put there");
    (way, counts.take())
}

/// Files of noise and text to put on a disk: `folder/wanted` of 1 MiB, and `count` others.
fn files(folder: &Path, count: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    let mut wanted = vec![0; FILE_LEN as usize];
    random.fill(&mut wanted);
    let mut noise = vec![0; 9000];
    std::fs::create_dir_all(folder.join("folder")).unwrap();
    for number in 0..count {
        random.fill(&mut noise);
        std::fs::write(folder.join(format!("folder/other{number}")), &noise).unwrap();
        if number == count / 2 {
            std::fs::write(folder.join("folder/wanted"), &wanted).unwrap();
        }
    }
    wanted
}

fn ntfs(folder: &Path, files: &Path) -> PathBuf {
    let disk = folder.join("ntfs.img");
    sparse_file(&disk, 192 << 20);
    run("mkntfs", ["-F", "-q", "-f", disk.to_str().unwrap()]);
    let mounted = Mounted::new(folder, &["ntfs-3g"], &disk);
    shell(&mounted.path, &format!("cp -r '{}/folder' .", files.display()));
    drop(mounted);
    disk
}

fn ext4(folder: &Path, files: &Path) -> PathBuf {
    let disk = folder.join("ext4.img");
    sparse_file(&disk, 192 << 20);
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-d", files.to_str().unwrap(), disk.to_str().unwrap()]);
    // It makes lists; the driver would have made hash trees, as the checker does now.
    let checked = run_any_status("e2fsck", ["-fyD", disk.to_str().unwrap()]);
    assert!(matches!(checked.status.code(), Some(0 | 1)), "directories are made anew: {checked:?}");
    disk
}

/// Makes a disk of these files in a folder.
type Make = fn(&Path, &Path) -> PathBuf;

#[test]
fn one_file_of_an_image_costs_its_chunks_and_a_way_that_does_not_grow() {
    let kinds: [(&str, Make); 2] = [("NTFS", ntfs), ("ext4", ext4)];
    for (kind, make) in kinds {
        let mut ways = Vec::new();
        for count in [200, 4000] {
            let folder = work_folder();
            let files_folder = folder.path().join("files");
            let wanted = files(&files_folder, count);
            let (way, content) = cat(&make(folder.path(), &files_folder), &wanted);
            // 16 chunks, or 17 where it does not begin with one; two pieces where something lies between; the leaves that point to them.
            let (reads, bytes) = content;
            assert!((FILE_LEN..=19 * FRAME).contains(&bytes), "{kind}, {count} others: {content:?}");
            assert!(reads <= 24, "{kind}, {count} others: {content:?}");
            ways.push(way);
        }
        // Twenty times as many files: a deeper directory, no more.
        let (few, many) = (ways[0], ways[1]);
        assert!(many.1 <= few.1 + 4 * FRAME, "{kind}: {few:?} bytes on the way past 200 files, {many:?} past 4000");
        assert!(many.0 <= 45, "{kind}: {many:?}");
    }
}

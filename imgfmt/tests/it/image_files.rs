//! Disks to make virtual disk files of, and what is in such a file.

use std::fs::File;
use std::path::{Path, PathBuf};

use imgfmt::format::{DiskImage, OpenOptions, open};
use imgfmt::source::FileDisk;
use imgfmt::{Disk, ExtentKind};

use crate::conformance::Random;
use crate::files::write_all_at;

/// The bytes of a disk: runs of noise, text, zeros and holes, long and short, with no regard to any alignment but a few sectors'.
pub(crate) fn disk_bytes(len: u64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; len as usize];
    let mut at = 0;
    while at < len {
        let longest = [4096, 65536, 1 << 19][random.below(3) as usize];
        let run = (random.below(longest) + 1).next_multiple_of(512).min(len - at);
        let part = &mut bytes[at as usize..(at + run) as usize];
        match random.below(4) {
            0 => random.fill(part),
            1 => {
                let text = format!("a line of text at {at} that compresses well enough\n");
                part.iter_mut().zip(text.bytes().cycle()).for_each(|(byte, text)| *byte = text);
            }
            _ => {}
        }
        at += run;
    }
    bytes
}

/// Writes them with holes for pages of zeros.
pub(crate) fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            write_all_at(&file, page, number as u64 * 4096);
        }
    }
}

/// Opens an image with the default policy.
pub(crate) fn opened(image: &Path) -> DiskImage {
    open(image, &OpenOptions::default()).unwrap_or_else(|error| panic!("{}: {error}", image.display()))
}

/// All bytes of a disk.
pub(crate) fn all_of(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Holds a disk too large for memory against a sparse raw file, by the data of either.
pub(crate) fn same_as_file(disk: &dyn Disk, raw: &Path) {
    let raw = FileDisk::open(raw, 512).unwrap();
    assert_eq!(disk.len(), raw.len());
    for map in [disk, &raw] {
        let mut at = 0;
        while at < map.len() {
            let extent = map.extent_at(at).unwrap();
            if extent.kind == ExtentKind::Data {
                for part in (at..extent.end()).step_by(1 << 20) {
                    let len = (extent.end() - part).min(1 << 20) as usize;
                    let (mut ours, mut theirs) = (vec![0; len], vec![1; len]);
                    disk.read_at(&mut ours, part).unwrap();
                    raw.read_at(&mut theirs, part).unwrap();
                    assert!(ours == theirs, "{len} bytes at {part} differ");
                }
            }
            at = extent.end();
        }
    }
}

/// Bytes of Data extents, by the map alone.
pub(crate) fn mapped_data(disk: &dyn Disk) -> u64 {
    let (mut at, mut data) = (0, 0);
    while at < disk.len() {
        let extent = disk.extent_at(at).unwrap();
        if extent.kind == ExtentKind::Data {
            data += extent.len;
        }
        at = extent.end();
    }
    data
}

/// A folder with a raw disk `disk.raw` of these bytes.
pub(crate) struct Workshop {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) bytes: Vec<u8>,
}

impl Workshop {
    pub(crate) fn new(len: u64, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bytes = disk_bytes(len, seed);
        write_sparse(&folder.path().join("disk.raw"), &bytes);
        Self { folder, bytes }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

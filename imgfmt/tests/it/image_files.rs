//! Makes virtual disk files with qemu-img and qemu-io, and holds ours against what qemu-img reads from them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use imgfmt::format::{DiskImage, OpenOptions, open};
use imgfmt::source::FileDisk;
use imgfmt::{Disk, ExtentKind};

use crate::conformance::{Random, disk_suite};
use crate::tools::shell;

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
            file.write_all_at(page, number as u64 * 4096).unwrap();
        }
    }
}

/// Runs `qemu-img` with words separated by blanks, in a folder.
pub(crate) fn qemu_img(folder: &Path, words: &str) {
    shell(folder, &format!("qemu-img {words} >&2"));
}

/// Writes at random through QEMU's own driver, which is given as words for `qemu-io` that open the image.
pub(crate) fn random_writes(folder: &Path, image: &str, len: u64, count: usize, seed: u64, kinds: &[&str]) {
    let mut random = Random::new(seed);
    // Nobody pulls the plug here, so nothing needs to be durable.
    let mut script = format!("qemu-io -t unsafe {image}");
    for _ in 0..count {
        let longest = [8192, 65536, 300_000][random.below(3) as usize];
        let part = (random.below(longest) + 1).next_multiple_of(512).min(len);
        let at = random.below(len - part + 1) / 512 * 512;
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        let (at, part) = match kind {
            // Compressed writes are whole clusters.
            "write -c" => (at / 65536 * 65536, 65536.min(len - at / 65536 * 65536)),
            _ => (at, part),
        };
        let pattern =
            if kind == "write" || kind == "write -c" { format!("-P {}", random.below(256)) } else { String::new() };
        script += &format!(" -c '{kind} {pattern} {at} {part}'");
    }
    // A cluster that is allocated takes no compressed write; everything else must succeed.
    let known = if kinds.contains(&"write -c") { "-e 'write failed: Input/output error'" } else { "" };
    shell(folder, &format!("{script} > io.log 2>&1 || true; ! grep -v -e wrote -e discard -e ops {known} io.log"));
}

/// What qemu-img reads from an image; `options` are words before its name.
pub(crate) fn qemu_reads(image: &Path, options: &str) -> Vec<u8> {
    let raw = image.with_extension("as-raw");
    let (folder, image) = (image.parent().unwrap(), image.file_name().unwrap().to_str().unwrap());
    let out = raw.file_name().unwrap().to_str().unwrap();
    qemu_img(folder, &format!("convert {options} -O raw '{image}' '{out}'"));
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    bytes
}

/// Opens an image with the default policy.
pub(crate) fn opened(image: &Path) -> DiskImage {
    open(image, &OpenOptions::default()).unwrap_or_else(|error| panic!("{}: {error}", image.display()))
}

/// Holds an image against what qemu-img reads from it; returns those bytes.
pub(crate) fn same_as_qemu(image: &Path, options: &str) -> Vec<u8> {
    let model = qemu_reads(image, options);
    disk_suite(&opened(image), &model, model.len() as u64);
    model
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

    /// Runs qemu-img here.
    pub(crate) fn qemu_img(&self, words: &str) {
        qemu_img(self.folder.path(), words);
    }

    /// Converts `disk.raw` and holds the result against it, by us and by qemu.
    pub(crate) fn converted(&self, name: &str, options: &str) -> PathBuf {
        self.qemu_img(&format!("convert -f raw {options} disk.raw {name}"));
        let image = self.path(name);
        disk_suite(&opened(&image), &self.bytes, 7);
        image
    }
}

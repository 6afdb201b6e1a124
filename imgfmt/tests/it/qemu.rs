//! Makes virtual disk files with qemu-img and qemu-io, and holds ours against what qemu-img reads from them.

use std::path::{Path, PathBuf};

use crate::conformance::{Random, disk_suite};
use crate::image_files::{Workshop, opened};
use crate::tools::shell;

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

/// Holds an image against what qemu-img reads from it; returns those bytes.
pub(crate) fn same_as_qemu(image: &Path, options: &str) -> Vec<u8> {
    let model = qemu_reads(image, options);
    disk_suite(&opened(image), &model, model.len() as u64);
    model
}

impl Workshop {
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

//! The seeds of the ext targets, and mutations that hit their metadata.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test, which is what it is for")]

use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem::{self, Reach};

use crate::mutate::{Random, mutate};

fn unpack(packed: &[u8], len: usize) -> Vec<u8> {
    let mut image = vec![0; len];
    assert_eq!(zstd_safe::decompress(&mut image[..], packed).unwrap(), len);
    image
}

/// The filesystems that `seeds/ext.sh` made.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        unpack(include_bytes!("../seeds/ext2.img.zst"), 1 << 20),
        unpack(include_bytes!("../seeds/ext4.img.zst"), 5 << 20),
        // Its newest state is in its journal.
        unpack(include_bytes!("../seeds/ext4-journal.img.zst"), 3 << 20),
    ]
}

/// Calls `run` on each seed and on `count` mutations of its metadata.
pub(crate) fn on_mutations(count: usize, run: impl Fn(&[u8])) {
    for mut image in seeds() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(image.clone()));
        let filesystem = filesystem::open(&disk).unwrap().expect("the seed is a filesystem");
        let mut places = Vec::new();
        filesystem
            .walk(&mut |reached| {
                if reached.reach == Reach::Metadata {
                    places.push(reached.range);
                }
                Ok(())
            })
            .unwrap();
        // Lines of metadata that hold something, each of them as likely as any other.
        let mut lines: Vec<usize> = places
            .into_iter()
            .flat_map(|range| (range.start..range.end).step_by(32))
            .map(|at| usize::try_from(at).unwrap())
            .filter(|at| image[*at..*at + 32].iter().any(|byte| !matches!(byte, 0 | 0xff)))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        run(&image);
        let mut random = Random::new(3);
        for _ in 0..count {
            // The superblock is small, and decides much.
            let at = if random.below(8) == 0 { 1024 + random.below(12) * 32 } else { lines[random.below(lines.len())] };
            let before = image[at..at + 32].to_vec();
            mutate(&mut image[at..at + 32], 32, &mut random);
            run(&image);
            image[at..at + 32].copy_from_slice(&before);
        }
    }
}

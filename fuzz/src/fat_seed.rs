//! The seeds of the FAT and exFAT targets, and mutations that hit their metadata.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test, which is what it is for")]

use std::ops::Range;
use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem::{self, Reach};

use crate::mutate::{Random, mutate};

/// The volumes that `seeds/fat.sh` made, with where their first table starts.
pub(crate) const FAT: [(&[u8], usize); 3] = [
    (include_bytes!("../seeds/fat12.img.zst"), 512),
    (include_bytes!("../seeds/fat16.img.zst"), 4 * 512),
    (include_bytes!("../seeds/fat32.img.zst"), 32 * 512),
];
/// The same for exFAT.
pub(crate) const EXFAT: (&[u8], usize) = (include_bytes!("../seeds/exfat.img.zst"), 24 * 512);

/// Unpacks a seed, which is at most 4 MiB long.
fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 4 << 20];
    let len = zstd_safe::decompress(&mut image[..], packed).unwrap();
    image.truncate(len);
    image
}

/// Calls `run` on a seed and on `count` mutations of its metadata.
pub(crate) fn on_mutations((packed, table): (&[u8], usize), count: usize, run: impl Fn(&[u8])) {
    let mut image = unpack(packed);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(image.clone()));
    // The fields of the boot sector, the used part of the table, and directories piece by piece.
    let mut places: Vec<Range<usize>> = vec![0..120, 0..120, table..table + 480];
    let filesystem = filesystem::open(&disk).unwrap().expect("the seed is a volume");
    filesystem
        .walk(&mut |reached| {
            let start = usize::try_from(reached.range.start).unwrap();
            let end = usize::try_from(reached.range.end).unwrap();
            if reached.reach == Reach::Metadata {
                // The boot areas end with the root directory of FAT12 and FAT16.
                let start = if start == 0 { end - 16 * 512 } else { start };
                places.extend((start..end).step_by(512).map(|at| at..at + 512));
            }
            Ok(())
        })
        .unwrap();
    run(&image);
    let mut random = Random::new(5);
    for _ in 0..count {
        let range = places[random.below(places.len())].clone();
        let before = image.clone();
        let len = range.len();
        mutate(&mut image[range.clone()], len, &mut random);
        if before.starts_with(b"\xeb\x76\x90EXFAT") && range.start == 0 {
            // An intact backup region would take the place of the mutated one.
            image.copy_within(0..512, 12 * 512);
        }
        run(&image);
        image = before;
    }
}

//! The seed of the NTFS targets, and mutations that hit its metadata.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test, which is what it is for")]

use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem::{self, Reach};

use crate::mutate::{Random, mutate};

/// Bytes of the seed.
const LEN: usize = 3 << 20;

/// The volume that `seeds/ntfs.sh` made.
pub(crate) fn seed() -> Vec<u8> {
    let packed = include_bytes!("../seeds/ntfs.img.zst");
    let mut image = vec![0; LEN];
    assert_eq!(zstd_safe::decompress(&mut image[..], packed).unwrap(), LEN);
    image
}

/// Calls `run` on the seed and on `count` mutations of its metadata.
pub(crate) fn on_mutations(count: usize, run: impl Fn(&[u8])) {
    let mut image = seed();
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(image.clone()));
    // Records of the MFT, by the part that mostly is used, and everything else.
    let mut records = Vec::new();
    let mut others = vec![0..512];
    let filesystem = filesystem::open(&disk).unwrap().expect("the seed is a volume");
    filesystem
        .walk(&mut |reached| {
            let (start, end) =
                (usize::try_from(reached.range.start).unwrap(), usize::try_from(reached.range.end).unwrap());
            match (reached.reach, reached.owner) {
                // The MFT's own, with its bitmap among them.
                (Reach::Metadata, 0) => records.extend((start..end).step_by(512).map(|at| at..(at + 448).min(end))),
                // $LogFile, $UpCase and $AttrDef are large and dull.
                (Reach::Metadata, owner) if !matches!(owner, 2 | 4 | 10) => others.push(start..end),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    run(&image);
    let mut random = Random::new(3);
    for _ in 0..count {
        let places = if random.below(4) == 0 { &others } else { &records };
        let range = places[random.below(places.len())].clone();
        // Of what is long, mostly one sector.
        let start = range.start + random.below(range.len()) / 512 * 512;
        let range = if random.below(4) == 0 { range } else { start..(start + 512).min(range.end) };
        let before = image[range.clone()].to_vec();
        let len = range.len();
        mutate(&mut image[range.clone()], len, &mut random);
        run(&image);
        image[range].copy_from_slice(&before);
    }
}

//! A long history: what it costs to open it, to list it, to read any part of it, and to add to it, counted at the packs.

use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::{Image, OpenOptions, PackStore};
use imgfmt::verify::verify;

use crate::capture::{options, random_bytes, run_capture};
use crate::conformance::Random;
use crate::counting_store::{CountingStore, Counts};
use crate::memory_store::MemoryStore;

/// What each generation has at its start: its own number, so that none is taken for another.
fn stamp(bytes: &mut [u8], number: u32, random: &mut Random) {
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    let at = random.below(bytes.len() as u64 - 5000) as usize;
    random.fill(&mut bytes[at.max(8)..at.max(8) + 4096]);
}

#[test]
fn a_thousand_generations_are_as_quick_to_open_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let store = CountingStore { inner: MemoryStore::new(folder.path()), counts: Arc::clone(&counts) };
    let shared: Arc<dyn PackStore> = Arc::new(store);
    let open = || Arc::new(Image::open(Arc::clone(&shared), &OpenOptions::default()).unwrap());
    let mut random = Random::new(1);
    let mut bytes = random_bytes(2 << 20, &mut random);
    let options = options(16, 1 << 32, Compression::Zstd(1));
    let mut curve = Vec::new();
    let mut capture_reads = Vec::new();
    for number in 1..=1000_u32 {
        stamp(&mut bytes, number, &mut random);
        counts.take();
        run_capture(MemoryDisk::new(bytes.clone()), &shared, &options);
        capture_reads.push(counts.take());
        if matches!(number, 1 | 10 | 100 | 1000) {
            counts.take();
            let image = open();
            let opened = counts.take();
            // Any generation, its first bytes.
            let mut most = (0, 0);
            for wanted in [1, number / 2 + 1, number] {
                let mut buf = [0; 4];
                image.generation(wanted.min(number)).unwrap().read_at(&mut buf, 0).unwrap();
                assert_eq!(u32::from_le_bytes(buf), wanted.min(number));
                most = most.max(counts.take());
            }
            let image = open();
            counts.take();
            for entry in image.generations() {
                image.record(entry).unwrap();
            }
            curve.push((number, opened, most, counts.take()));
        }
    }
    for &(number, opened, one, all) in &curve {
        // A footer and a catalogue (of 120 bytes for each generation and pack), and the headers that say which pack that is.
        assert!(opened.0 <= 12 && opened.1 <= 4096 + 130 * u64::from(number), "opened {number}: {opened:?}");
        // A record, the nodes on the way, a chunk with its base.
        assert!(one.0 <= 16 && one.1 <= 300 << 10, "one of {number}: {one:?}");
        // A record each.
        assert!(all.0 <= 4 * u64::from(number) && all.1 <= 6000 * u64::from(number), "all {number}: {all:?}");
    }
    // A capture late in the history reads hardly more of the packs than one early in it: no table is read through.
    let average = |part: &[(u64, u64)]| part.iter().map(|(_, bytes)| bytes).sum::<u64>() / part.len() as u64;
    let (early, late) = (average(&capture_reads[20..120]), average(&capture_reads[880..980]));
    assert!(late < early * 4 + (512 << 10), "{early} bytes read early, {late} late");
    let image = open();
    assert!(verify(&image, quiet(&Cancel::default())).unwrap().is_clean());
}

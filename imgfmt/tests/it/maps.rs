//! The map of a generation is exact to the sector, whatever lies across chunk borders; and a restore writes only what it says.

use std::ops::Range;
use std::sync::Arc;

use imgfmt::capture::chunks::{PassOptions, store_disk};
use imgfmt::capture::planned::PlannedDisk;
use imgfmt::disk::{Disk, Extent, ExtentKind, MemoryDisk, buf_len};
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::generation::Tree;
use imgfmt::image::record::{DiskShape, Record};
use imgfmt::image::tree::TreeShape;
use imgfmt::image::{ImageWriter, PackStore, WriterOptions};
use imgfmt::ranges::RangeSet;
use imgfmt::target::{CopyOptions, copy};
use imgfmt::verify::verify;
use imgfmt::{Error, Result};

use crate::capture::{open, random_bytes};
use crate::conformance::Random;
use crate::memory_store::MemoryStore;
use crate::memory_target::{MemoryTarget, POISON};

/// A disk some of whose sectors cannot be read.
struct BadDisk {
    inner: MemoryDisk,
    bad: RangeSet,
}

impl Disk for BadDisk {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = RangeSet::from_range(offset..offset + buf_len(buf));
        if range.minus(&self.bad) != range {
            return Err(Error::io(
                "read",
                "bad disk",
                std::io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR),
            ));
        }
        self.inner.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }
}

/// Up to `count` ranges anywhere, at sector borders or not, from a few bytes to many chunks.
fn ranges(random: &mut Random, len: u64, count: u64, aligned: bool) -> RangeSet {
    let mut all = Vec::new();
    for _ in 0..random.below(count + 1) {
        let start = random.below(len);
        let most = [700, 5000, 70_000, len][random.below(4) as usize];
        let end = (start + 1 + random.below(most)).min(len);
        all.push(if aligned { start / 512 * 512..end.div_ceil(512) * 512 } else { start..end });
    }
    RangeSet::from_unsorted(all)
}

/// The part of a set that lies in whole sectors of it.
fn whole_sectors(set: &RangeSet) -> RangeSet {
    let shrunk = set.iter().map(|range| range.start.div_ceil(512) * 512..range.end / 512 * 512);
    RangeSet::from_unsorted(shrunk.filter(|range| range.start < range.end).collect())
}

/// What each sector must be.
fn kinds(len: u64, unwanted: &RangeSet, elided: &RangeSet, bad: &RangeSet) -> Vec<ExtentKind> {
    let (unwanted, elided) = (whole_sectors(unwanted), whole_sectors(elided));
    let sectors = (0..len.div_ceil(512)).map(|sector| sector * 512..sector * 512 + 512);
    let kind = |sector: Range<u64>| {
        if elided.contains(sector.clone()) {
            ExtentKind::Zero
        } else if unwanted.contains(sector.clone()) {
            ExtentKind::Absent
        } else if bad.contains(sector.start..sector.end.min(len)) {
            ExtentKind::Bad
        } else {
            ExtentKind::Data
        }
    };
    sectors.map(kind).collect()
}

fn record(len: u64) -> Record {
    let disk = DiskShape { len, logical_sector_size: 512, physical_sector_size: 512 };
    Record { format: 1, created: "2026-11-15T09:30:00Z".into(), disk, ..Record::default() }
}

#[test]
fn maps_are_exact_and_a_restore_touches_no_absent_sector() {
    for seed in 0..60 {
        let mut random = Random::new(300 + seed);
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
        let chunk_log2 = 12 + random.below(6) as u8;
        let len = 1 + random.below(1_500_000);
        let mut previous: Option<Tree> = None;
        for number in 1..=3 {
            let bytes = random_bytes(len as usize, &mut random);
            let (unwanted, elided) = (ranges(&mut random, len, 20, false), ranges(&mut random, len, 3, false));
            let bad =
                if random.below(3) == 0 { ranges(&mut random, len, 4, true).clipped(len) } else { RangeSet::empty() };
            let disk = BadDisk { inner: MemoryDisk::new(bytes.clone()), bad: bad.clone() };
            let planned = PlannedDisk::new(&disk, &unwanted, &elided);

            let writer =
                WriterOptions { chunk_log2: Some(chunk_log2), pack_size: 1 << 30, compression: Compression::Zstd(1) };
            let mut writer = ImageWriter::open(Arc::clone(&store), writer).unwrap();
            let pass =
                PassOptions { compression: Compression::Zstd(1), decode_verify: true, previous: previous.as_ref() };
            let (root, totals) = store_disk(&planned, &mut writer, pass, quiet(&Cancel::default())).unwrap();
            let shape = TreeShape::new(len, 1 << chunk_log2).unwrap();
            writer.commit(record(len), root, shape.root_level()).unwrap();

            let image = open(&store);
            let generation = image.generation(number).unwrap();
            previous = Some(generation.tree().clone());
            let expected = kinds(len, &unwanted, &elided, &bad);
            let mut at = 0;
            while at < len {
                let extent = generation.extent_at(at).unwrap();
                for sector in at / 512..extent.end().div_ceil(512) {
                    let want = expected[sector as usize];
                    // A chunk of zeros is kept as Zero.
                    let is_zero = || {
                        bytes[sector as usize * 512..(sector as usize * 512 + 512).min(len as usize)]
                            .iter()
                            .all(|b| *b == 0)
                    };
                    let same = extent.kind == want
                        || (want == ExtentKind::Data && extent.kind == ExtentKind::Zero && is_zero());
                    assert!(
                        same,
                        "seed {seed}, generation {number}, sector {sector}: {want:?} became {:?}",
                        extent.kind
                    );
                }
                assert!(extent.end() % 512 == 0 || extent.end() == len);
                at = extent.end();
            }
            let target = MemoryTarget::new(len);
            let copied = copy(&generation, &target, CopyOptions::default(), quiet(&Cancel::default())).unwrap();
            assert_eq!((copied.data, copied.zero, copied.absent), (totals.data, totals.zero, totals.absent));
            let listed: Vec<_> = copied.bad.iter().map(|(start, len)| *start..start + len).collect();
            assert_eq!(listed, totals.bad);
            let (restored, written) = target.into_parts();
            for (sector, kind) in expected.iter().enumerate() {
                let range = sector * 512..(sector * 512 + 512).min(len as usize);
                let (part, model) = (&restored[range.clone()], &bytes[range.clone()]);
                match kind {
                    ExtentKind::Absent => {
                        assert!(!written[range].contains(&true), "seed {seed}: absent sector {sector} was written");
                        assert!(part.iter().all(|byte| *byte == POISON));
                    }
                    ExtentKind::Zero => assert!(part.iter().all(|byte| *byte == 0)),
                    ExtentKind::Data => assert!(part == model, "seed {seed}: sector {sector} differs"),
                    ExtentKind::Bad => assert!(part.starts_with(b"HIKAE: UNREADABLE AT THE SOURCE\n")),
                }
            }
            // With --wipe nothing of the target is left.
            let target = MemoryTarget::new(len);
            copy(&generation, &target, CopyOptions { wipe: true }, quiet(&Cancel::default())).unwrap();
            assert!(target.into_parts().1.iter().all(|written| *written));
        }
        assert!(verify(&open(&store), quiet(&Cancel::default())).unwrap().is_clean());
    }
}

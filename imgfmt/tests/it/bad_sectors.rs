//! Disks that cannot be read everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imgfmt::disk::{MemoryDisk, buf_len};
use imgfmt::image::PackStore;
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::{Disk, Error, Extent, ExtentKind, Result};

use crate::capture::{open, options, random_bytes, run_capture};
use crate::conformance::Random;
use crate::memory_store::MemoryStore;

/// A disk with unreadable runs and slow ones.
struct FailingDisk {
    inner: MemoryDisk,
    bad: Vec<(u64, u64)>,
    slow: Option<Duration>,
    reads: Arc<AtomicU64>,
}

impl Disk for FailingDisk {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads.fetch_add(buf_len(buf), Ordering::Relaxed);
        let end = offset + buf_len(buf);
        if self.bad.iter().any(|(start, len)| *start < end && offset < start + len) {
            if let Some(slow) = self.slow {
                std::thread::sleep(slow);
            }
            return Err(Error::io(
                "read",
                "failing disk",
                std::io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR),
            ));
        }
        self.inner.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }
}

fn check(ranges: u64, slow: Option<Duration>) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(folder.path()));
    let mut random = Random::new(ranges);
    let len = 8_u64 << 20;
    let mut bytes = random_bytes(len as usize, &mut random);
    bytes[..512].fill(0);
    let step = len / ranges / 512 * 512;
    let bad: Vec<(u64, u64)> = (0..ranges)
        .map(|n| (n * step + 512 * (1 + random.below(step / 512 - 5)), 512 * (1 + random.below(3))))
        .collect();
    let expected: Vec<(u64, u64)> = bad.clone();
    let reads = Arc::new(AtomicU64::default());
    let disk = |bad: &[(u64, u64)]| FailingDisk {
        inner: MemoryDisk::new(bytes.clone()),
        bad: bad.to_vec(),
        slow,
        reads: Arc::clone(&reads),
    };
    let mut options = options(16, 1 << 30, Default::default());
    let captured = run_capture(disk(&bad), &store, &options);
    assert!(captured.record.bad == expected, "the record has the unreadable runs at sector granularity");
    let mut model = bytes.clone();
    for (start, len) in &bad {
        model[*start as usize..(start + len) as usize].fill(0xee);
    }
    // Every readable sector is there; the others are an error, and Bad.
    let generation = open(&store).generation(1).unwrap();
    let mut at = 0;
    while at < len {
        let extent = generation.extent_at(at).unwrap();
        let mut buf = vec![0; extent.len as usize];
        let result = generation.read_at(&mut buf, at);
        let is_bad = bad.iter().any(|(start, len)| *start < extent.end() && at < start + len);
        assert_eq!(extent.kind == ExtentKind::Bad, is_bad);
        match result {
            Ok(()) => assert!(!is_bad && buf == bytes[at as usize..extent.end() as usize]),
            Err(Error::Bad { .. }) => assert!(is_bad),
            Err(error) => panic!("{error}"),
        }
        at = extent.end();
    }
    // A restore marks and lists them.
    let path = folder.path().join("out.raw");
    let target = FileTarget::create(&path, len).unwrap();
    let cancel = imgfmt::engine::Cancel::default();
    let copied = copy(&generation, &target, CopyOptions::default(), imgfmt::engine::quiet(&cancel)).unwrap();
    Box::new(target).finish().unwrap();
    assert!(copied.bad == expected);
    let restored = std::fs::read(&path).unwrap();
    for (start, len) in &bad {
        assert!(restored[*start as usize..(start + len) as usize].starts_with(b"HIKAE: UNREADABLE AT THE SOURCE\n"));
    }
    // The next capture can read only those again, and one that has come back is kept.
    options.retry_bad = true;
    reads.store(0, Ordering::Relaxed);
    let again = run_capture(disk(&bad[1..]), &store, &options);
    assert!(again.record.bad == expected[1..]);
    let retried: u64 = reads.load(Ordering::Relaxed);
    assert!(retried < 600 << 10 || ranges > 100, "{retried} bytes of the source were read again");
    let mut buf = vec![0; bad[0].1 as usize];
    open(&store).generation(2).unwrap().read_at(&mut buf, bad[0].0).unwrap();
    assert!(buf == bytes[bad[0].0 as usize..(bad[0].0 + bad[0].1) as usize]);
}

#[test]
fn one_eight_and_a_thousand_unreadable_runs_cost_only_themselves() {
    for ranges in [1, 8, 1000] {
        check(ranges, None);
    }
}

#[test]
fn slow_sectors_are_waited_for() {
    check(8, Some(Duration::from_millis(3)));
}

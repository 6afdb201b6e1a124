//! What every disk must do, whatever it is made of.

use imgfmt::{Disk, Error, ExtentKind};

/// A small generator of pseudo-random numbers: the same seed gives the same run everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next() as u8;
        }
    }
}

/// Holds a disk without Bad extents against the bytes that it must have.
pub(crate) fn disk_suite(disk: &dyn Disk, model: &[u8], seed: u64) {
    let len = model.len() as u64;
    assert_eq!(disk.len(), len);
    assert!(matches!(disk.sector_size(), 512 | 4096));
    let mut random = Random::new(seed);
    let check = |offset: u64, part: u64| {
        let mut buf = vec![0xcc; part as usize];
        disk.read_at(&mut buf, offset).unwrap_or_else(|error| panic!("{part} bytes at {offset}: {error}"));
        let model = &model[offset as usize..(offset + part) as usize];
        assert!(buf == model, "{part} bytes at {offset} differ");
    };
    check(0, len);
    check(0, 0);
    check(len, 0);
    for boundary in [512, 4096, 65536, 1 << 20, len] {
        for at in [boundary - 1, boundary, boundary + 1] {
            if at < len {
                check(at, (len - at).min(3));
                check(0, at);
            }
        }
    }
    for _ in 0..200 {
        let offset = random.below(len + 1);
        let part = random.below((len - offset).min(1 << 18) + 1);
        check(offset, part);
    }
    // Past the end, and where offsets overflow.
    for (offset, part) in [(len, 1), (len - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 1), (len + 1, 0)] {
        let result = disk.read_at(&mut vec![0; part], offset);
        assert!(matches!(result, Err(Error::OutOfRange { .. })), "{part} bytes at {offset}");
    }
    assert!(disk.extent_at(len).is_err());
    assert!(disk.extent_at(u64::MAX).is_err());
    // Extents tile the disk; what is not Data reads as zero.
    let mut at = 0;
    while at < len {
        let extent = disk.extent_at(at).unwrap();
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0 && extent.end() <= len, "{extent:?}");
        if extent.kind != ExtentKind::Data {
            assert_ne!(extent.kind, ExtentKind::Bad);
            assert!(model[at as usize..extent.end() as usize].iter().all(|byte| *byte == 0), "{extent:?}");
        }
        let middle = at + extent.len / 2;
        assert_eq!(disk.extent_at(middle).unwrap().kind, extent.kind, "inside {extent:?}");
        at = extent.end();
    }
    // Eight threads at once.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let mut random = Random::new(seed ^ (thread + 1));
                for _ in 0..40 {
                    let offset = random.below(len);
                    let part = random.below((len - offset).min(100_000) + 1);
                    let mut buf = vec![0; part as usize];
                    disk.read_at(&mut buf, offset).unwrap();
                    assert!(buf == model[offset as usize..(offset + part) as usize]);
                }
            });
        }
    });
}

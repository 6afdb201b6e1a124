//! What every filesystem's used-block map must stand: held against its own metadata, and against the real driver on a copy whose unused
//! bytes are garbage.

use std::path::Path;
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::filesystem::{self, UsedBlocks};
use imgfmt::ranges::RangeSet;
use imgfmt::source::FileDisk;

/// Opens the filesystem in a file of one partition.
pub(crate) fn open(path: &Path) -> Box<dyn UsedBlocks> {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(path, 512).unwrap());
    filesystem::open(&disk).unwrap().expect("a filesystem that is read")
}

/// All that the walk reaches.
pub(crate) fn walked(filesystem: &dyn UsedBlocks) -> RangeSet {
    let mut ranges = Vec::new();
    filesystem
        .walk(&mut |reached| {
            ranges.push(reached.range);
            Ok(())
        })
        .unwrap();
    RangeSet::from_unsorted(ranges)
}

/// A clean filesystem: no doubts, and every byte that the metadata reach is allocated. Returns what is allocated but not reached.
pub(crate) fn check_clean(path: &Path) -> RangeSet {
    let filesystem = open(path);
    assert_eq!(filesystem.doubts().unwrap(), Vec::<String>::new());
    let allocated = filesystem.allocated().unwrap();
    assert_eq!(allocated, filesystem.allocated().unwrap(), "the same answer twice");
    let reached = walked(&*filesystem);
    let violations = reached.minus(&allocated);
    assert_eq!(violations.iter().collect::<Vec<_>>(), vec![], "reached but not allocated");
    for file in filesystem.elidable().unwrap() {
        let outside = file.ranges.minus(&allocated);
        assert_eq!(outside.total(), 0, "elidable but not allocated: {}", file.path);
    }
    allocated.minus(&reached)
}

/// Writes a copy with garbage wherever nothing is allocated.
pub(crate) fn poison(path: &Path, copy: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let allocated = open(path).allocated().unwrap();
    for range in RangeSet::from_range(0..bytes.len() as u64).minus(&allocated).iter() {
        bytes[range.start as usize..range.end as usize].fill(0xaa);
    }
    std::fs::write(copy, bytes).unwrap();
}

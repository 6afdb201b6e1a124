//! What every used-block map must stand, whatever lies in the partition: no panic, no endless walk, and nothing outside of it.

use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem;

/// Opens `data` as a partition and asks everything that a capture asks.
pub fn run(data: &[u8]) {
    let len = u64::try_from(data.len()).expect("usize is at most 64 bits");
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(data.to_vec()));
    let Ok(Some(filesystem)) = filesystem::open(&disk) else { return };
    assert!(filesystem.summary().len <= len, "the filesystem ends inside its partition");
    let _ = filesystem.doubts();
    if let Ok(allocated) = filesystem.allocated() {
        assert_eq!(allocated.clipped(len), allocated, "allocated bytes lie inside the partition");
        assert!(allocated.contains(0..len.min(512)), "the boot sector is kept");
    }
    let mut reached = 0_usize;
    let mut owners = Vec::new();
    let _ = filesystem.walk(&mut |range| {
        assert!(
            range.range.start < range.range.end && range.range.end <= len,
            "reached bytes lie inside the partition"
        );
        // A run of clusters takes two bytes of metadata at the least.
        reached = reached.saturating_add(1);
        assert!(reached <= data.len(), "no more runs than bytes");
        if owners.len() < 16 && !owners.contains(&range.owner) {
            owners.push(range.owner);
        }
        Ok(())
    });
    for file in filesystem.elidable().unwrap_or_default() {
        assert_eq!(file.ranges.clipped(len), file.ranges, "elidable bytes lie inside the partition");
    }
    for owner in owners {
        let _ = filesystem.path_of(owner);
    }
}

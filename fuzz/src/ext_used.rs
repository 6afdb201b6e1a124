//! The used-block map of ext2, ext3 and ext4: no panic, no endless walk, and nothing outside of the partition.

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
        assert!(allocated.contains(filesystem.summary().len..len), "the rest of the partition is kept");
    }
    let mut reached = 0_usize;
    let mut last = None;
    let _ = filesystem.walk(&mut |range| {
        assert!(
            range.range.start < range.range.end && range.range.end <= len,
            "reached bytes lie inside the partition"
        );
        // A run takes four bytes of a map at the least.
        reached = reached.saturating_add(1);
        assert!(reached <= data.len(), "no more runs than bytes");
        last = Some(range.owner);
        Ok(())
    });
    if let Some(owner) = last {
        let _ = filesystem.path_of(owner);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_mutations_of_them() {
        crate::ext_seed::on_mutations(3000, super::run);
    }
}

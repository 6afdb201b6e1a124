//! A short name for the state of a disk's tables, by which a person or a script can tell one disk from another.

use crate::disk::{Disk, read_vec};
use crate::error::Result;
use crate::partition::Layout;

/// What the digest covers at the start and at the end of a disk without a table.
const ENDS: u64 = 4096;

/// Sixteen hexadecimal digits over length, sector size, tables and boot code of a disk, as they are now.
///
/// Unreadable structures count as such: a disk whose table cannot be read still has a digest.
pub fn table_digest(disk: &dyn Disk, layout: &Layout) -> Result<String> {
    let mut hasher = blake3::Hasher::new_derive_key("hikae 2026 table digest v1");
    hasher.update(&disk.len().to_le_bytes());
    hasher.update(&disk.sector_size().to_le_bytes());
    let mut ranges: Vec<_> = layout.structures.iter().map(|structure| structure.range.clone()).collect();
    if ranges.is_empty() {
        ranges = vec![0..ENDS.min(disk.len()), disk.len().saturating_sub(ENDS)..disk.len()];
    }
    for range in ranges {
        hasher.update(&range.start.to_le_bytes());
        hasher.update(&range.end.to_le_bytes());
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        match read_vec(disk, range.start, len) {
            Ok(bytes) => hasher.update(&bytes),
            Err(error) if error.is_unreadable_medium() => hasher.update(b"unreadable"),
            Err(error) => return Err(error),
        };
    }
    Ok(hasher.finalize().to_hex().chars().take(16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::partition::read_layout;

    #[test]
    fn the_digest_changes_with_the_table_and_not_with_what_lies_between() {
        let digest = |bytes: &[u8]| {
            let disk = MemoryDisk::new(bytes.to_vec());
            table_digest(&disk, &read_layout(&disk).unwrap()).unwrap()
        };
        let mut bytes = vec![0; 1 << 20];
        let empty = digest(&bytes);
        bytes[500_000] = 1;
        assert_eq!(digest(&bytes), empty);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 64, 0, 0, 0, 100, 0, 0, 0]);
        let table = digest(&bytes);
        assert_ne!(table, empty);
        bytes[500_000] = 2;
        assert_eq!(digest(&bytes), table);
        bytes[440] = 9;
        assert_ne!(digest(&bytes), table);
        bytes.extend([0; 512]);
        assert_ne!(digest(&bytes[..]), table, "another length is another disk");
    }
}

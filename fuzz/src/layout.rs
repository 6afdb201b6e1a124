//! Partition tables: MBR with logical partitions, and GPT with its checksums made right.
//!
//! The oracle: a partition that counts lies inside the disk and overlaps no other one that counts; structures lie inside the disk.

use imgfmt::bytes::{le32, le64};
use imgfmt::disk::MemoryDisk;
use imgfmt::partition::read_layout;

/// Reads the table of a disk of these bytes, for both sizes of sectors, with and without right checksums.
pub fn run(data: &[u8]) {
    for (sector, size) in [(512, 512_u32), (4096, 4096)] {
        check(data.to_vec(), size);
        let mut fixed = data.to_vec();
        if fix_checksums(&mut fixed, sector).is_some() {
            check(fixed, size);
        }
    }
}

fn check(bytes: Vec<u8>, sector_size: u32) {
    let len = u64::try_from(bytes.len()).expect("usize is at most 64 bits");
    let layout = read_layout(&MemoryDisk::with_sector_size(bytes, sector_size)).expect("a disk in memory can be read");
    let mut usable: Vec<_> = layout.partitions.iter().filter(|partition| partition.unusable.is_none()).collect();
    usable.sort_by_key(|partition| partition.range.start);
    for partition in &usable {
        assert!(
            partition.range.start <= partition.range.end && partition.range.end <= len,
            "{partition:?} in {len} bytes"
        );
    }
    for (one, next) in usable.iter().zip(usable.iter().skip(1)) {
        assert!(one.range.end <= next.range.start, "{one:?} overlaps {next:?}");
    }
    for structure in &layout.structures {
        assert!(
            structure.range.start <= structure.range.end && structure.range.end <= len,
            "{structure:?} in {len} bytes"
        );
    }
    assert!(layout.partitions.iter().all(|partition| partition.unusable.is_none()) || !layout.problems.is_empty());
}

/// Makes the checksums of the primary GPT right; `None` where there is no header to make right.
fn fix_checksums(bytes: &mut [u8], sector: usize) -> Option<()> {
    let header = bytes.get(sector..sector.checked_mul(2)?)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let array = usize::try_from(le64(header, 72)?).ok()?.checked_mul(sector)?;
    let len = usize::try_from(u64::from(le32(header, 80)?).checked_mul(le32(header, 84)?.into())?).ok()?;
    let array_checksum = crc32fast::hash(bytes.get(array..array.checked_add(len)?)?);
    let header = bytes.get_mut(sector..sector.checked_mul(2)?)?;
    header.get_mut(88..92)?.copy_from_slice(&array_checksum.to_le_bytes());
    header.get_mut(16..20)?.fill(0);
    let header_len = usize::try_from(le32(header, 12)?).ok()?;
    let checksum = crc32fast::hash(header.get(..header_len)?);
    header.get_mut(16..20)?.copy_from_slice(&checksum.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};
    use imgfmt::disk::MemoryDisk;
    use imgfmt::partition::{Scheme, read_layout};

    fn entry(bytes: &mut [u8], sector: usize, index: usize, kind: u8, start: u32, len: u32) {
        let record = bytes.chunks_exact_mut(512).nth(sector).unwrap();
        let entry = record[446..510].chunks_exact_mut(16).nth(index).unwrap();
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&len.to_le_bytes());
        record[510..].copy_from_slice(&[0x55, 0xaa]);
    }

    /// Two primary partitions and three logical ones.
    fn mbr() -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        entry(&mut bytes, 0, 0, 0x07, 1, 20);
        entry(&mut bytes, 0, 1, 0x83, 30, 10);
        entry(&mut bytes, 0, 3, 0x05, 50, 60);
        entry(&mut bytes, 50, 0, 0x83, 1, 5);
        entry(&mut bytes, 50, 1, 0x05, 10, 20);
        entry(&mut bytes, 60, 0, 0x83, 1, 5);
        entry(&mut bytes, 60, 1, 0x05, 30, 20);
        entry(&mut bytes, 80, 0, 0x82, 1, 5);
        bytes
    }

    /// Three partitions in eight entries, behind a protective MBR.
    fn gpt() -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        entry(&mut bytes, 0, 0, 0xee, 1, 127);
        let header = &mut bytes[512..1024];
        header[..8].copy_from_slice(b"EFI PART");
        for (at, value) in [(12, 92_u64), (24, 1), (32, 127), (40, 10), (48, 120), (72, 2), (80, 8), (84, 128)] {
            header[at..][..4].copy_from_slice(&value.to_le_bytes()[..4]);
        }
        for (raw, (first, last)) in bytes[1024..].chunks_exact_mut(128).zip([(10_u64, 19_u64), (20, 60), (61, 120)]) {
            raw[..32].fill(0x5a);
            raw[32..40].copy_from_slice(&first.to_le_bytes());
            raw[40..48].copy_from_slice(&last.to_le_bytes());
            raw[56] = b'x';
        }
        super::fix_checksums(&mut bytes, 512).unwrap();
        bytes
    }

    #[test]
    fn seeds_and_mutations_of_them() {
        let layout = |bytes: Vec<u8>| read_layout(&MemoryDisk::new(bytes)).unwrap();
        assert_eq!((layout(mbr()).scheme, layout(mbr()).partitions.len()), (Scheme::Mbr, 5));
        assert_eq!((layout(gpt()).scheme, layout(gpt()).partitions.len()), (Scheme::Gpt, 3));
        let mut random = Random::new(42);
        for seed in [mbr(), gpt()] {
            super::run(&seed);
            for _ in 0..6000 {
                let mut bytes = seed.clone();
                // Where the tables are: records of the chain, header, entries.
                let part = match random.below(5) {
                    0 => 446..512,
                    1 => 512..604,
                    2 => 1024..2048,
                    _ => {
                        let start = [50_usize, 60, 80][random.below(3)].saturating_mul(512);
                        start.saturating_add(446)..start.saturating_add(512)
                    }
                };
                let len = part.len();
                mutate(&mut bytes[part], len, &mut random);
                if random.below(10) == 0 {
                    bytes.truncate(random.below(bytes.len()));
                }
                super::run(&bytes);
            }
        }
    }
}

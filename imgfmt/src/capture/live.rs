//! After the capture of a disk in use: which metadata changed while it was read?
//!
//! Metadata that differ between the start and the end of a capture say that the generation is a mix of moments. They are not repaired (no
//! order of reading could): they are counted and reported, so that nobody takes the generation for a snapshot.

use std::sync::Arc;

use crate::capture::plan::Plan;
use crate::disk::{Disk, ExtentKind, Slice};
use crate::engine::Cancel;
use crate::error::{Result, full_message};
use crate::filesystem::{self, Reach};
use crate::ranges::RangeSet;

/// Bytes compared at once.
const PIECE: u64 = 1 << 20;
/// Granularity of what is reported: no filesystem writes less.
const SECTOR: usize = 512;

/// Compares the boot structures and the metadata of each known filesystem in `generation` with `source` as it is now. Returns a phrase for each
/// part of the disk that differs or cannot be compared.
pub fn changes(
    source: &Arc<dyn Disk>,
    generation: &Arc<dyn Disk>,
    plan: &Plan,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    let mut phrases = Vec::new();
    let tables = plan.layout.structures.iter().map(|structure| structure.range.clone()).collect();
    let tables = RangeSet::from_unsorted(tables);
    if let Some(phrase) = compare("the partition tables", source, generation, &tables, cancel)? {
        phrases.push(phrase);
    }
    for kept in &plan.partitions {
        let range = &kept.partition.range;
        let what = format!("metadata of partition {} ({})", kept.partition.number, kept.filesystem);
        let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(generation), range.clone())?);
        let mut metadata = Vec::new();
        let walked = filesystem::open(&slice).and_then(|filesystem| match filesystem {
            None => Ok(()),
            Some(filesystem) => filesystem.walk(&mut |reached| {
                cancel.check()?;
                if reached.reach == Reach::Metadata {
                    metadata.push(reached.range);
                }
                Ok(())
            }),
        });
        cancel.check()?;
        let metadata = RangeSet::from_unsorted(metadata).clipped(slice.len()).shifted(range.start);
        phrases.extend(compare(&what, source, generation, &metadata, cancel)?);
        if let Err(error) = walked {
            phrases.push(format!("{what} do not fit together: {}", full_message(&error)));
        }
    }
    Ok(phrases)
}

/// One phrase where `ranges` differ between the two.
fn compare(
    what: &str,
    source: &dyn Disk,
    generation: &dyn Disk,
    ranges: &RangeSet,
    cancel: &Cancel,
) -> Result<Option<String>> {
    let (mut now, mut then) = (Vec::new(), Vec::new());
    let mut sectors = 0_u64;
    let mut first = None;
    for range in ranges.iter() {
        let end = range.end.min(source.len()).min(generation.len());
        let mut at = range.start;
        while at < end {
            cancel.check()?;
            let extent = generation.extent_at(at)?;
            let next = extent.end().min(end).min(at.saturating_add(PIECE));
            let len = usize::try_from(next.saturating_sub(at)).expect("at most a piece");
            // Elided and unreadable bytes were not kept as they were, so there is nothing to compare.
            if extent.kind == ExtentKind::Data {
                now.resize(len, 0);
                then.resize(len, 0);
                generation.read_at(&mut then, at)?;
                match source.read_at(&mut now, at) {
                    // It could be read before; what is kept of it may still be the best there is.
                    Err(error) if error.is_unreadable_medium() => {
                        now.iter_mut().zip(&then).for_each(|(now, then)| *now = !then);
                    }
                    read => read?,
                }
                for (index, (a, b)) in now.chunks(SECTOR).zip(then.chunks(SECTOR)).enumerate() {
                    if a != b {
                        sectors = sectors.saturating_add(1);
                        let within = u64::try_from(index.saturating_mul(SECTOR)).unwrap_or(0);
                        first.get_or_insert(at.saturating_add(within));
                    }
                }
            }
            at = next;
        }
    }
    Ok(first.map(|first| {
        format!("{what} changed while the disk was read: {sectors} sectors differ or cannot be read again, the first at byte {first:#x}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::{PlanOptions, plan};
    use crate::disk::MemoryDisk;

    fn mbr_disk() -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[446 + 4] = 0x83;
        bytes[446 + 8..446 + 12].copy_from_slice(&64_u32.to_le_bytes());
        bytes[446 + 12..446 + 16].copy_from_slice(&1000_u32.to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    #[test]
    fn a_table_that_changed_is_told_and_one_that_did_not_is_not() {
        let then: Arc<dyn Disk> = Arc::new(MemoryDisk::new(mbr_disk()));
        let plan = plan(&then, &PlanOptions::default()).unwrap();
        assert_eq!(changes(&then, &then, &plan, &Cancel::default()).unwrap(), Vec::<String>::new());
        let mut changed = mbr_disk();
        changed[440] ^= 1;
        changed[200_000] ^= 1;
        let now: Arc<dyn Disk> = Arc::new(MemoryDisk::new(changed));
        let phrases = changes(&now, &then, &plan, &Cancel::default()).unwrap();
        assert_eq!(phrases.len(), 1, "{phrases:?}");
        assert!(phrases[0].contains("partition tables") && phrases[0].contains("1 sectors"), "{phrases:?}");
    }
}

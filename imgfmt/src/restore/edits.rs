//! Small repairs: boot code, partition table, boot sectors, and putting back what was there before.
//!
//! Each is a list of [`Edit`]s. [`apply`] saves what they overwrite, writes them in order, and reads them back.

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::le16;
use crate::capture::bad::read_tolerant;
use crate::disk::{Disk, Slice, buf_len, read_vec};
use crate::error::{Error, Result};
use crate::partition::{Layout, Scheme, Structure};
use crate::restore::fit::{FitOptions, fit};
use crate::restore::tables;
use crate::restore::undo::{Phase, Undo};
use crate::target::InPlace;

/// Bytes of boot code in an MBR: what follows is the disk signature and the table.
pub const BOOT_CODE_LEN: usize = 440;
/// Most bytes of a gap or BIOS boot partition that count as boot code.
const MAX_GAP: u64 = 32 << 20;

/// Our own boot code of an MBR: it starts the active partition. Assembled from `standard_mbr.asm`.
pub const STANDARD_BOOT_CODE: &[u8; BOOT_CODE_LEN] = include_bytes!("standard_mbr.bin");

/// Bytes to be written at a place of the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What they are.
    pub what: String,
    /// First byte in the scope.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Edit {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(buf_len(&self.bytes))
    }
}

/// Saves what `edits` overwrite, writes them (the start of the scope last, behind a flush), and reads them back from the medium. Returns the bytes that were
/// not right before.
pub fn apply(target: &dyn InPlace, undo: &mut Undo, edits: &[Edit]) -> Result<u64> {
    for edit in edits {
        crate::disk::check_range(edit.offset, buf_len(&edit.bytes), target.len())?;
    }
    if undo.phase() != Phase::Saving {
        return Err(Error::Refused(format!("{} belongs to another run", undo.path().display())));
    }
    let save: Vec<_> = edits.iter().map(|edit| Structure { what: edit.what.clone(), range: edit.range() }).collect();
    undo.save(target, &save)?;
    let mut changed = 0_u64;
    let (first, rest): (Vec<_>, Vec<_>) = edits.iter().partition(|edit| edit.offset < 4096);
    for group in [rest, first] {
        for edit in group {
            let mut there = vec![0; edit.bytes.len()];
            let mut unreadable = Vec::new();
            read_tolerant(target, &mut there, edit.offset, &mut unreadable)?;
            if unreadable.is_empty() && there == edit.bytes {
                continue;
            }
            target.write_at(&edit.bytes, edit.offset)?;
            changed = changed.saturating_add(buf_len(&edit.bytes));
        }
        target.flush()?;
    }
    let medium = target.read_back()?;
    for edit in edits {
        if read_vec(&*medium, edit.offset, edit.bytes.len())? != edit.bytes {
            return Err(Error::corrupt(
                format_args!("{} of the target", edit.what),
                edit.offset,
                "the medium does not hold what was written to it",
            ));
        }
    }
    drop(medium);
    undo.finished()?;
    Ok(changed)
}

/// What a session or another repair saved, to be put back.
pub fn put_back(undo: &Undo) -> Vec<Edit> {
    let edit = |saved: &super::undo::Saved| Edit {
        what: saved.what.clone(),
        offset: saved.offset,
        bytes: saved.bytes.clone(),
    };
    undo.saved().iter().map(edit).collect()
}

/// Our own boot code for a target with an MBR.
pub fn standard_boot_code(target: &Layout) -> Result<Vec<Edit>> {
    match target.scheme {
        Scheme::Mbr | Scheme::HybridGpt => {}
        Scheme::Gpt => {
            return Err(Error::Refused(
                "the standard boot code starts the active partition of an MBR; this disk has a GPT: restore its own boot code from an image, or its EFI system partition".into(),
            ));
        }
        Scheme::None => {
            return Err(Error::Refused("the target has no partition table that boot code could use".into()));
        }
    }
    if !target.partitions.iter().any(|partition| partition.active) {
        return Err(Error::Refused(
            "no partition of the target is active, so the standard boot code would find nothing to start: restore the table, or set the active flag (sfdisk --activate)".into(),
        ));
    }
    Ok(vec![Edit { what: "boot code".into(), offset: 0, bytes: STANDARD_BOOT_CODE.to_vec() }])
}

/// The boot code of an image for a target: the code in the first sector, the gap before the first partition, and a BIOS boot partition.
pub fn boot_code(source: &dyn Disk, from: &Layout, target: &dyn Disk, to: &Layout) -> Result<Vec<Edit>> {
    if from.scheme == Scheme::None || to.scheme == Scheme::None {
        let which = if from.scheme == Scheme::None { "source" } else { "target" };
        return Err(Error::Refused(format!("the {which} has no partition table, and so no boot code of its own")));
    }
    let code = read_vec(source, 0, BOOT_CODE_LEN)?;
    let mut edits = Vec::new();
    let gap_start = gap_start(source, from).max(gap_start(target, to));
    let gap_end = gap_end(from).min(gap_end(to)).min(source.len()).min(target.len());
    let mut push = |what: &str, range: Range<u64>| -> Result<()> {
        if !range.is_empty() && range.end.saturating_sub(range.start) <= MAX_GAP {
            let len = usize::try_from(range.end.saturating_sub(range.start)).expect("at most the limit");
            edits.push(Edit { what: what.into(), offset: range.start, bytes: read_vec(source, range.start, len)? });
        }
        Ok(())
    };
    push("gap before the first partition", gap_start..gap_end)?;
    for partition in from.partitions.iter().filter(|partition| partition.type_name == "BIOS boot") {
        let same = |other: &&crate::partition::Partition| {
            other.type_name == "BIOS boot" && other.range == partition.range && other.unusable.is_none()
        };
        if to.partitions.iter().any(|other| same(&other)) {
            push("BIOS boot partition", partition.range.clone())?;
        }
    }
    edits.push(Edit { what: "boot code".into(), offset: 0, bytes: code });
    Ok(edits)
}

/// First byte behind the table at the start of a disk.
fn gap_start(disk: &dyn Disk, layout: &Layout) -> u64 {
    let sector = u64::from(disk.sector_size());
    let primary = layout.structures.iter().filter(|structure| structure.what.starts_with("primary GPT"));
    primary.map(|structure| structure.range.end).max().unwrap_or(0).max(sector)
}

/// First byte of the first partition, or of an EBR.
fn gap_end(layout: &Layout) -> u64 {
    let partitions = layout.partitions.iter().map(|partition| partition.range.start);
    let ebrs = layout.structures.iter().filter(|structure| structure.what.starts_with("EBR"));
    partitions.chain(ebrs.map(|structure| structure.range.start)).min().unwrap_or(0)
}

/// The partition table of a source for a target, whose boot code stays. A GPT that the target has and that will not be in force is made invalid.
pub fn table(
    source: &Arc<dyn Disk>,
    from: &Layout,
    target: &dyn Disk,
    to: &Layout,
    sector_size: Option<u32>,
) -> Result<Vec<Edit>> {
    if from.scheme == Scheme::None {
        return Err(Error::Refused("the source has no partition table".into()));
    }
    let fitted = fit(source, from, target.len(), FitOptions { grow: false, sector_size })?;
    let layout = crate::partition::read_layout(&fitted.wanted)?;
    let wanted = tables::of_disk(&fitted.wanted, &layout)?;
    let mut edits = Vec::new();
    let old = tables::of_disk(target, to)?;
    let new = wanted.ranges();
    for structure in old.all().filter(|structure| structure.what.contains("GPT")) {
        for range in crate::ranges::RangeSet::from_range(structure.range.clone()).minus(&new).iter() {
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
            edits.push(Edit { what: format!("old {}", structure.what), offset: range.start, bytes: vec![0; len] });
        }
    }
    for structure in wanted.groups().into_iter().flatten() {
        let mut range = structure.range.clone();
        if range.start == 0 {
            // Bytes 440 to 511 are the signature and the table; the rest of a larger sector is nobody's.
            range = u64::try_from(BOOT_CODE_LEN).unwrap_or(440)..512;
        }
        let len = usize::try_from(range.end.saturating_sub(range.start)).expect("a table is small");
        let bytes = read_vec(&fitted.wanted, range.start, len)?;
        edits.push(Edit { what: structure.what.clone(), offset: range.start, bytes });
    }
    Ok(edits)
}

/// The boot sectors of a partition, with their backup, for a partition of `target_len` bytes that starts at byte `target_start` of its disk.
pub fn boot_sectors(partition: Slice<Arc<dyn Disk>>, target_start: u64, target_len: u64) -> Result<Vec<Edit>> {
    let moved = target_start != partition.start();
    let partition: Arc<dyn Disk> = Arc::new(partition);
    let mut wanted = crate::restore::wanted::Wanted::new(Arc::clone(&partition), partition.len());
    if moved {
        for patch in crate::partition::edit::moved_boot_sectors(&wanted, target_start)? {
            wanted.patch(patch.offset, &patch.bytes);
        }
    }
    let tables = tables::of_filesystem(&wanted)?;
    let known = tables.first.iter().find_map(|structure| {
        ["NTFS", "exFAT", "FAT", "ext"].into_iter().find(|kind| structure.what.starts_with(kind))
    });
    let kind = known.ok_or_else(|| Error::Refused("the partition has no boot sectors that are known".into()))?;
    let mut ranges: Vec<(String, Range<u64>)> = match kind {
        // The superblock describes the filesystem as it was: only the boot block in front of it is boot code.
        "ext" => vec![("ext boot block".into(), 0..1024)],
        _ => tables.all().map(|structure| (structure.what.clone(), structure.range.clone())).collect(),
    };
    if kind == "FAT" {
        // The count of free clusters changes all the time, and is no boot sector.
        let head = read_vec(&wanted, 0, 512)?;
        let sector = u64::from(le16(&head, 11).unwrap_or(512));
        if head.get(82..87) == Some(b"FAT32") {
            let info = u64::from(le16(&head, 48).unwrap_or(1));
            let backup = u64::from(le16(&head, 50).unwrap_or(6)).saturating_add(1);
            for lba in [info, backup] {
                let hole = lba.saturating_mul(sector)..lba.saturating_add(1).saturating_mul(sector);
                let hole = crate::ranges::RangeSet::from_range(hole);
                ranges = ranges
                    .into_iter()
                    .flat_map(|(what, range)| {
                        let rest = crate::ranges::RangeSet::from_range(range).minus(&hole);
                        rest.iter().map(|range| (what.clone(), range)).collect::<Vec<_>>()
                    })
                    .collect();
            }
        }
    }
    let furthest = ranges.iter().map(|(_, range)| range.end).max().unwrap_or(0);
    if furthest > target_len {
        return Err(Error::Refused(format!(
            "the boot sectors are those of a filesystem that reaches to byte {furthest}, and the partition of the target has {target_len} bytes: they do not belong to it"
        )));
    }
    let mut edits = Vec::new();
    for (what, range) in ranges {
        let len = usize::try_from(range.end.saturating_sub(range.start)).expect("boot sectors are few");
        edits.push(Edit { what, offset: range.start, bytes: read_vec(&wanted, range.start, len)? });
    }
    Ok(edits)
}

// They need an assembler of Unix.
#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_boot_code_is_what_its_source_assembles_to() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/restore/standard_mbr.asm");
        let status = std::process::Command::new("nasm").args(["-f", "bin", "-o"]).arg(&out).arg(source).status();
        assert!(status.expect("nasm is needed by this test").success());
        assert!(std::fs::read(out).unwrap() == STANDARD_BOOT_CODE, "assemble it again and commit the result");
    }
}
